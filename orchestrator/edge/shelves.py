"""
The call of a page: several shelves in one request, a slate for each, no item in two of them.

The rule: each slate is word for word what `/v1/recommendations` answers; here is only what they share. See `routes` for
how handlers are written and `hot` for why there are two.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from orchestrator.core.page import longest
from orchestrator.edge import schemas
from orchestrator.edge.admission import ticket_of
from orchestrator.edge.encode import ranks_of, slate_body
from orchestrator.edge.exchange import exchange_of
from orchestrator.edge.parse import check, read_document
from orchestrator.edge.routes import JSON, Handler, plan_of, running_in, words_of
from orchestrator.edge.translate import Resolver, page_queries

ADDRESS = "/v1/pages"


async def pages(request: Request) -> Response:
    """Fill all shelves of a page at once: one shopper, one deadline, and no item twice."""
    return Response(await paged(request.scope, request.receive), media_type=JSON)


async def paged(scope: Scope, receive: Receive) -> bytes:
    """The answer to POST /v1/pages."""
    running = running_in(scope)
    asked = check(schemas.PageRequest, await read_document(scope, receive))
    resolvers = [Resolver(running.catalogue) for _ in asked.placements]
    queries = page_queries(asked, resolvers, running.settings.edge)
    plan = plan_of(scope, asked.budget_ms, len(queries))
    shelves = await running.pipeline.page(queries, plan.budget_s, queued_s=plan.queued_s, floor=plan.floor)
    slates = [shelf.slate for shelf in shelves]
    exchange, ticket = exchange_of(scope), ticket_of(scope)
    exchange.stages_ms = longest(slates)
    if ticket is not None and all(slate.from_cache for slate in slates):
        ticket.remembered()
    words, took_ms = words_of(scope, running), exchange.took_ms()
    bodies = [
        slate_body(
            shelf.query, shelf.slate, words, resolver.missing, took_ms, ranks_of(shelf.lists) if asked.explain else None
        )
        for shelf, resolver in zip(shelves, resolvers, strict=True)
    ]
    return b'{"slates":[%b],"took_ms":%b}' % (b",".join(bodies), str(took_ms).encode())


HANDLERS: dict[tuple[str, str], Handler] = {(ADDRESS, "post"): pages}

HOT = {ADDRESS: paged}
"""See `routes.HOT`."""

SLATES = frozenset({pages})
"""See `routes.SLATES`."""
