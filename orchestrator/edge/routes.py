"""
The calls of a storefront: recommendations, rankings, similar items, what is bought together, events.

Handlers read top to bottom: parse, translate, ask, encode. They take the bare request and are mounted as plain
Starlette routes: FastAPI's own parsing would coerce types and hide which field was wrong, and its route adds a
third to the CPU of the edge (in process, 2 busy cores, median of 8 × 400 calls: 0.39 ms with it, 0.30 ms without).
The two that a page waits for, `recommended` and `ranked`, do without a request object, too: see `hot`.
`openapi` documents them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from orchestrator.bootstrap import Running
from orchestrator.core.model import Event, Level, Placement, Query, Slate
from orchestrator.edge import schemas
from orchestrator.edge.admission import Plan, ticket_of
from orchestrator.edge.encode import ItemWords, Ranks, ranks_of, slate_body
from orchestrator.edge.exchange import exchange_of
from orchestrator.edge.parse import check, check_parameters, read_document, read_json
from orchestrator.edge.problems import BadFields, FieldError, Kind, Problem
from orchestrator.edge.receive_events import Rejected, judge
from orchestrator.edge.translate import Resolver, item_query, ranking_query, recommendation_query
from orchestrator.ports import DependencyError
from orchestrator.telemetry import metrics, summarise

JSON = "application/json"
EVENT_BUDGETS = 20
"""
A batch of events may take this many times the budget of a slate. Derived: nobody waits for it with an empty page,
and 2 s is still below the few seconds after which browsers' beacons and HTTP clients give up.
"""
RETRY_AFTER_S = 1


def running_of(request: Request) -> Running:
    """
    What the application runs on.

    Raises:
        Problem: the application has not started.
    """
    return running_in(request.scope)


def running_in(scope: Scope) -> Running:
    """See `running_of`."""
    running: Running | None = getattr(scope["app"].state, "running", None)
    if running is None:
        raise Problem(Kind.NOT_READY, "still starting", headers={"retry-after": str(RETRY_AFTER_S)})
    return running


async def recommendations(request: Request) -> Response:
    """Fill a shelf: the items this shopper should see here, now."""
    return Response(await recommended(request.scope, request.receive), media_type=JSON)


async def recommended(scope: Scope, receive: Receive) -> bytes:
    """The answer to POST /v1/recommendations."""
    running = running_in(scope)
    asked = check(schemas.RecommendationRequest, await read_document(scope, receive))
    resolver = Resolver(running.catalogue)
    query = recommendation_query(asked, resolver, running.settings.edge)
    return await _slate(scope, running, query, resolver, asked.budget_ms)


async def rankings(request: Request) -> Response:
    """Put the caller's own list into personal order: every item the shop knows, once."""
    return Response(await ranked(request.scope, request.receive), media_type=JSON)


async def ranked(scope: Scope, receive: Receive) -> bytes:
    """The answer to POST /v1/rankings."""
    running = running_in(scope)
    asked = check(schemas.RankingRequest, await read_document(scope, receive))
    resolver = Resolver(running.catalogue)
    query = ranking_query(asked, resolver, running.settings.edge)
    if not query.only_keys:
        # The pipeline would read "no restriction" into an empty list; there is nothing to order.
        return _answer(scope, running, query, _nothing(), resolver, None)
    return await _slate(scope, running, query, resolver, asked.budget_ms)


async def similar(request: Request) -> Response:
    """Items like this one, and for a known shopper the likelier of them first."""
    return await _about_an_item(request, Placement.ITEM)


async def bought_together(request: Request) -> Response:
    """What goes into the basket with this item: complements, not its likes."""
    return await _about_an_item(request, Placement.CART)


async def events(request: Request) -> Response:
    """Tell what shoppers did; it counts for the very next slate."""
    running = running_of(request)
    documents = _event_documents(await read_json(request), running.settings.edge.max_events)
    oldest_us = int((running.shop_now() - running.settings.retention.user_s) * 1e6)
    accepted, rejected = judge(documents, running.catalogue, time.time_ns() // 1000, oldest_us)
    metrics.events.labels("rejected").inc(len(rejected))
    if not accepted:
        raise _none_accepted(rejected)
    try:
        async with asyncio.timeout(running.settings.budget.total_ms / 1000 * EVENT_BUDGETS):
            were_new = await running.events.append(accepted)
    except (DependencyError, TimeoutError) as error:
        metrics.events.labels("failed").inc(len(accepted))
        detail = (
            "the event log does not answer; send the same events again, their event_id keeps them from counting twice"
        )
        raise Problem(Kind.EVENTS_UNAVAILABLE, detail, headers={"retry-after": str(RETRY_AFTER_S)}) from error
    n_new = sum(were_new)
    metrics.events.labels("accepted").inc(n_new)
    metrics.events.labels("duplicate").inc(len(accepted) - n_new)
    answer = {
        "accepted": n_new,
        "duplicates": len(accepted) - n_new,
        "rejected": [one.document() for one in rejected],
        "watermark": await _watermark(running, accepted),
    }
    return Response(orjson.dumps(answer), 202, media_type=JSON)


async def _about_an_item(request: Request, placement: Placement) -> Response:
    running = running_of(request)
    asked = check_parameters(request, schemas.SimilarParameters, frozenset({"count"}))
    item_id: str = request.path_params["item_id"]
    key = running.catalogue.key_of(item_id)
    if key is None or not running.catalogue.is_listed(key):
        error = FieldError("item_id", "no such item in this shop")
        raise Problem(Kind.UNKNOWN_ITEM, f"no item with id {item_id[: schemas.MAX_ID]!r}", [error])
    query = item_query(placement, key, asked, running.settings.edge)
    body = await _slate(request.scope, running, query, Resolver(running.catalogue), None)
    return Response(body, media_type=JSON)


async def _slate(scope: Scope, running: Running, query: Query, resolver: Resolver, budget_ms: float | None) -> bytes:
    plan = plan_of(scope, budget_ms)
    if not query.explain:
        slate = await running.pipeline.recommend(query, plan.budget_s, queued_s=plan.queued_s, floor=plan.floor)
        return _answer(scope, running, query, slate, resolver, None)
    started = time.perf_counter()
    budget = running.settings.budget
    total_s = budget.total_ms / 1000 if plan.budget_s is None else min(budget.total_ms / 1000, plan.budget_s)
    left_s = max(0.0, total_s - budget.reply_ms / 1000)
    slate, lists = await running.pipeline.traced(query, left_s, queued_s=plan.queued_s, floor=plan.floor)
    summarise(query, slate, time.perf_counter() - started, metrics)
    return _answer(scope, running, query, slate, resolver, ranks_of(lists))


def plan_of(scope: Scope, budget_ms: float | None, slates: int = 1) -> Plan:
    """How the call of *scope* is to be answered; it asks for so many *slates*."""
    ticket = ticket_of(scope)
    if ticket is None:
        return Plan(None if budget_ms is None else budget_ms / 1000)
    return ticket.plan(budget_ms, slates)


def _answer(
    scope: Scope, running: Running, query: Query, slate: Slate, resolver: Resolver, ranks: Ranks | None
) -> bytes:
    exchange = exchange_of(scope)
    exchange.stages_ms = slate.stages_ms
    if slate.from_cache and (ticket := ticket_of(scope)) is not None:
        ticket.remembered()
    return slate_body(query, slate, words_of(scope, running), resolver.missing, exchange.took_ms(), ranks)


def words_of(scope: Scope, running: Running) -> ItemWords:
    """What answers say of items: the process's own, made with the first answer."""
    state = scope["app"].state
    words: ItemWords | None = getattr(state, "words", None)
    if words is None or words.catalogue is not running.catalogue:
        words = state.words = ItemWords(running.catalogue)
    return words


def _nothing() -> Slate:
    """The answer to a list none of whose items the shop has."""
    return Slate((), Level.FULL, (), (), (), (), 0, time.time())


def _event_documents(body: object, limit: int) -> list[object]:
    """
    The envelope's list, not yet judged.

    Raises:
        BadFields: no object, no list, none or more than *limit* events, another field.
    """
    if not isinstance(body, dict):
        raise BadFields([FieldError("body", 'should be an object: {"events": […]}')])
    unknown = [FieldError(str(name)[:60], "unknown field") for name in body if name != "events"]
    if unknown:
        raise BadFields(unknown)
    documents = body.get("events")
    if not isinstance(documents, list):
        raise BadFields([FieldError("events", "is required, a list of events")])
    if not 1 <= len(documents) <= limit:
        raise BadFields([FieldError("events", f"should have 1 to {limit} entries; has {len(documents)}")])
    return documents


def _none_accepted(rejected: list[Rejected]) -> Problem:
    first = rejected[0]
    errors = [FieldError(_event_field(one), one.message) for one in rejected]
    detail = f"{errors[0].field}: {first.message}"
    extra = {"accepted": 0, "duplicates": 0, "rejected": [one.document() for one in rejected]}
    return Problem(Kind.NO_EVENT_ACCEPTED, detail, errors, extra)


def _event_field(rejected: Rejected) -> str:
    place = f"events[{rejected.index}]"
    return place if rejected.field == "body" else f"{place}.{rejected.field}"


async def _watermark(running: Running, accepted: list[Event]) -> int | None:
    """The shopper's watermark; None for a batch about several shoppers, or when it cannot be read any more."""
    subjects = {event.subject for event in accepted}
    subject = subjects.pop()
    if subjects or subject is None:
        return None
    try:
        async with asyncio.timeout(running.settings.budget.total_ms / 1000):
            return await running.events.watermark(subject)
    except (DependencyError, TimeoutError):
        # The events are in the log: that is what 202 promises. The number is a courtesy.
        return None


Handler = Callable[[Request], Awaitable[Response]]

HANDLERS: dict[tuple[str, str], Handler] = {
    ("/v1/recommendations", "post"): recommendations,
    ("/v1/rankings", "post"): rankings,
    ("/v1/items/{item_id:path}/similar", "get"): similar,
    ("/v1/items/{item_id:path}/bought-together", "get"): bought_together,
    ("/v1/events", "post"): events,
}
"""Address and method → handler; an item id may hold slashes."""

HOT = {"/v1/recommendations": recommended, "/v1/rankings": ranked}
"""POSTs that are most of the load, by address: answered with 200, or by raising."""

SLATES = frozenset({recommendations, rankings, similar, bought_together})
"""What admission decides about: calls whose answer has a cheap form."""
