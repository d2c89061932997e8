"""
What a shop asks about one person: this browser is that user, show me what is held, erase it.

None of it is on a shopper's way, so it has the time that events have (`routes.EVENT_BUDGETS`), and a store that does
not answer is said so: nothing here has a cheaper answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.bootstrap import Running
from orchestrator.core.people import Deed, Held
from orchestrator.edge import schemas
from orchestrator.edge.parse import check, read_json
from orchestrator.edge.problems import Kind, Problem
from orchestrator.edge.receive_events import TYPE_CODES, rfc3339
from orchestrator.edge.routes import EVENT_BUDGETS, JSON, RETRY_AFTER_S, Handler, running_of
from orchestrator.ports import Catalogue, DependencyError

T = TypeVar("T")

TYPE_NAMES = {code: name for name, code in TYPE_CODES.items()}

LATER = ("event_stream", "event_log", "training_data")
"""What an erasure leaves to ingestion and to the next `tutti train`."""


async def merge(request: Request) -> Response:
    """
    This visitor has logged in: what they did is the user's, and so is what comes later under the visitor's id.

    A slate asked for with the visitor's id alone stays without the user's taste: who has logged out may be somebody
    else at the same browser. Repeating it changes nothing.
    """
    running = running_of(request)
    asked = check(schemas.MergeRequest, await read_json(request))
    merged = await _in_time(running, running.people.merge(asked.visitor_id, asked.user_id))
    return _json({"is_new": merged.is_new, "moved": merged.moved, "watermark": merged.watermark})


async def export_user(request: Request) -> Response:
    """Everything the online store holds of a user. Somebody unknown is an empty answer, not an error."""
    user_id = _identifier(request, "user_id")
    return await _export(running_of(request), f"u:{user_id}", {"user_id": user_id})


async def export_visitor(request: Request) -> Response:
    """Everything the online store holds of a visitor; of a merged one, whose it is now."""
    visitor_id = _identifier(request, "visitor_id")
    return await _export(running_of(request), f"v:{visitor_id}", {"visitor_id": visitor_id})


async def erase_user(request: Request) -> Response:
    """
    Forget a user, and the visitors merged into them.

    Gone with the answer: features, history, impressions, remembered slates, watermark, identities. The event stream
    and the event log follow within seconds, the training data and the models with the next `tutti train`. Repeating it
    is harmless; whoever comes back under this id is somebody new.
    """
    return await _erase(running_of(request), f"u:{_identifier(request, 'user_id')}")


async def erase_visitor(request: Request) -> Response:
    """Forget a visitor. What was merged into a user is the user's and is erased with the user."""
    return await _erase(running_of(request), f"v:{_identifier(request, 'visitor_id')}")


def _identifier(request: Request, name: str) -> str:
    """
    The id of the path.

    Raises:
        BadFields: too long, or with control characters.
    """
    model = schemas.UserPath if name == "user_id" else schemas.VisitorPath
    found: str = getattr(check(model, {name: request.path_params[name]}), name)
    return found


async def _export(running: Running, subject: str, who: dict[str, object]) -> Response:
    held = await _in_time(running, running.people.held(subject))
    return _json(who | _document(held, running.catalogue))


async def _erase(running: Running, subject: str) -> Response:
    erased = await _in_time(running, running.people.erase(subject))
    numbers = {
        name: getattr(erased, name) for name in ("features", "history", "shown", "slates", "watermark", "identities")
    }
    return _json({"erased": numbers, "redaction": erased.redaction, "later": LATER}, 202)


def _document(held: Held, catalogue: Catalogue) -> dict[str, object]:
    def deeds(entries: tuple[Deed, ...]) -> list[dict[str, object]]:
        return [
            {
                "item_id": _item_id(entry.key, catalogue),
                "event_type": TYPE_NAMES.get(entry.type_code),
                "timestamp": rfc3339(entry.at_us),
            }
            for entry in entries
        ]

    slates = [
        {
            "made_at": rfc3339(round(slate.made_at * 1e6)),
            "item_ids": [_item_id(key, catalogue) for key in slate.keys],
        }
        for slate in held.slates
    ]
    return {
        "features": dict(held.features),
        "history": deeds(held.history),
        "shown": deeds(held.shown),
        "watermark": held.watermark,
        "visitor_ids": held.visitor_ids,
        "merged_into": held.user_id,
        "slates": slates,
        "exported_at": rfc3339(time.time_ns() // 1000),
    }


def _item_id(key: int, catalogue: Catalogue) -> str | None:
    """None for a key that this process does not know: another one may have a newer catalogue."""
    return catalogue.id_of(key) if 0 <= key < catalogue.size else None


async def _in_time(running: Running, asked: Awaitable[T]) -> T:
    """
    Raises:
        Problem: the store does not answer, or not in time.
    """
    try:
        async with asyncio.timeout(running.settings.budget.total_ms / 1000 * EVENT_BUDGETS):
            return await asked
    except (DependencyError, TimeoutError) as error:
        detail = "the store does not answer; ask again, what was done already is not done twice"
        raise Problem(Kind.PEOPLE_UNAVAILABLE, detail, headers={"retry-after": str(RETRY_AFTER_S)}) from error


def _json(document: dict[str, object], status: int = 200) -> Response:
    # Of one person: no proxy may keep it.
    headers = {"cache-control": "no-store"}
    return Response(orjson.dumps(document, default=_as_text), status, headers, media_type=JSON)


def _as_text(value: object) -> str:
    """A feature of bytes; every other kind is JSON's own."""
    return value.hex() if isinstance(value, bytes) else str(value)


HANDLERS: dict[tuple[str, str], Handler] = {
    ("/v1/identities:merge", "post"): merge,
    ("/v1/users/{user_id:path}", "get"): export_user,
    ("/v1/users/{user_id:path}", "delete"): erase_user,
    ("/v1/visitors/{visitor_id:path}", "get"): export_visitor,
    ("/v1/visitors/{visitor_id:path}", "delete"): erase_visitor,
}
"""Address and method → handler."""
