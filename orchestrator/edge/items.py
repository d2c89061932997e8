"""
The shop's items: read one, put, patch or delete it, import many.

A change is in the store, and so on its way to every process, before it is answered; the process that answers has
applied it. The rule: whoever is told that it was done sees it done in the next slate, wherever that is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.bootstrap import Running
from orchestrator.core.merge_patch import patched
from orchestrator.edge import schemas
from orchestrator.edge.parse import check, read_json
from orchestrator.edge.problems import FieldError, Kind, Problem
from orchestrator.edge.routes import EVENT_BUDGETS, JSON, RETRY_AFTER_S, Handler, running_of
from orchestrator.ports import DependencyError, ItemStore
from protos.catalogue import NO_KEY, ItemState, Outcome, Verdict, Wish

CHANGES_A_TURN = 20
"""Changes applied before others get the event loop; as the mirror's."""

PATCH_ATTEMPTS = 20
"""Times a patch is merged anew because somebody else was faster. Derived: of n who patch one item at once one wins each
round, so twenty at once all get through; more than that about one item is a loop in somebody's program."""


async def read_item(request: Request) -> Response:
    """One item as it is now: what the data directory says, or what it was changed to since."""
    running, item_id = running_of(request), _item_id(request)
    # Without an answer, what this process has heard of; a moment ago somebody else may have been told otherwise.
    state = None
    if running.items is not None:
        with contextlib.suppress(DependencyError, TimeoutError):
            async with asyncio.timeout(running.settings.budget.total_ms / 1000):
                state = await running.items.read(item_id)
    if state is not None:
        running.catalogue.apply([state])
    return _answer(running, item_id)


async def put_item(request: Request) -> Response:
    """Make an item what the body says, whole; a new one is recommendable as soon as it has a key."""
    running, item_id = running_of(request), _item_id(request)
    document = check(schemas.ItemDocument, await read_json(request)).model_dump(exclude_none=True)
    is_new = running.catalogue.document(item_id) is None
    await changed(running, [Wish(item_id, document, _key(running, item_id))])
    return _answer(running, item_id, 201 if is_new else 200)


async def patch_item(request: Request) -> Response:
    """Change some fields of an item: null removes one, attributes are merged name by name (RFC 7396)."""
    running, item_id = running_of(request), _item_id(request)
    changes = check(schemas.ItemPatch, await read_json(request)).model_dump(exclude_unset=True)
    document: Mapping[str, Any] | None = running.catalogue.document(item_id)
    version = running.catalogue.version_of(item_id)
    if document is None and (state := await _read(running, item_id)) is not None:
        # Another process took it in a moment ago.
        document, version = state.document, state.version
    for _ in range(PATCH_ATTEMPTS):
        if document is None:
            raise _unknown(item_id)
        wish = Wish(item_id, patched(document, changes), _key(running, item_id), expected=version)
        (outcome,) = await changed(running, [wish])
        if outcome.verdict is not Verdict.STALE:
            return _answer(running, item_id)
        if outcome.state is None:
            # A Redis that forgot the item's changes; what we know of it is the best there is.
            version = 0
        else:
            document, version = outcome.state.document, outcome.state.version
    detail = f"others changed {item_id[:60]!r} {PATCH_ATTEMPTS} times meanwhile; send the same again"
    raise Problem(Kind.ITEMS_UNAVAILABLE, detail, headers={"retry-after": str(RETRY_AFTER_S)})


async def delete_item(request: Request) -> Response:
    """The shop does not have the item any more: no slate holds it from now on. Again: nothing happens."""
    running, item_id = running_of(request), _item_id(request)
    await changed(running, [Wish(item_id, None, _key(running, item_id))])
    return Response(status_code=204)


def _item_id(request: Request) -> str:
    return check(schemas.ItemAddress, {"item_id": request.path_params["item_id"]}).item_id


def _key(running: Running, item_id: str) -> int:
    key = running.catalogue.key_of(item_id)
    return NO_KEY if key is None else key


def _store(running: Running) -> ItemStore:
    if running.items is None:
        raise Problem(Kind.ITEMS_UNAVAILABLE, "this process serves a catalogue that cannot be changed")
    return running.items


async def changed(running: Running, wishes: Sequence[Wish]) -> Sequence[Outcome]:
    """
    What came of *wishes*, already applied here.

    Raises:
        Problem: the store does not answer; any part of the wishes may have come true.
    """
    try:
        async with asyncio.timeout(running.settings.budget.total_ms / 1000 * EVENT_BUDGETS):
            outcomes = await _store(running).change(wishes)
    except (DependencyError, TimeoutError) as error:
        raise _unavailable() from error
    states = [outcome.state for outcome in outcomes if outcome.state is not None]
    for start in range(0, len(states), CHANGES_A_TURN):
        if start:
            await asyncio.sleep(0)
        running.catalogue.apply(states[start : start + CHANGES_A_TURN])
    return outcomes


async def _read(running: Running, item_id: str) -> ItemState | None:
    try:
        async with asyncio.timeout(running.settings.budget.total_ms / 1000 * EVENT_BUDGETS):
            return await _store(running).read(item_id)
    except (DependencyError, TimeoutError) as error:
        raise _unavailable() from error


def _unavailable() -> Problem:
    detail = "the store of items does not answer; send the same again, a change that was taken is taken again unchanged"
    return Problem(Kind.ITEMS_UNAVAILABLE, detail, headers={"retry-after": str(RETRY_AFTER_S)})


def _unknown(item_id: str) -> Problem:
    error = FieldError("item_id", "no such item in this shop")
    return Problem(Kind.UNKNOWN_ITEM, f"no item with id {item_id[: schemas.MAX_ID]!r}", [error])


def _answer(running: Running, item_id: str, status: int = 200) -> Response:
    catalogue = running.catalogue
    document = catalogue.document(item_id)
    if document is None:
        raise _unknown(item_id)
    version = catalogue.version_of(item_id)
    state = "waiting" if catalogue.key_of(item_id) is None else "known"
    body = {"item_id": item_id, "version": version, "state": state, "item": document}
    return Response(orjson.dumps(body), status, {"etag": f'"{version}"'}, JSON)


HANDLERS: dict[tuple[str, str], Handler] = {
    ("/v1/items/{item_id:path}", "get"): read_item,
    ("/v1/items/{item_id:path}", "put"): put_item,
    ("/v1/items/{item_id:path}", "patch"): patch_item,
    ("/v1/items/{item_id:path}", "delete"): delete_item,
}
"""Address and method → handler. To be mounted behind those whose address only begins so: an id may hold slashes."""
