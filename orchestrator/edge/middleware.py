"""
What every request gets, in one pure-ASGI layer: an id, admission, limits, timing headers, counting, a last resort.

Pure ASGI on purpose: Starlette's BaseHTTPMiddleware was measured to cost two thirds of the throughput
(7.5k → 2.7k requests/s for a layer that does nothing).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.bootstrap import Running
from orchestrator.core.model import Rung
from orchestrator.edge.admission import Admission, keep, ticket_of
from orchestrator.edge.exchange import Exchange, begin, new_id
from orchestrator.edge.problems import FieldError, Kind, Problem, response
from orchestrator.telemetry import Metrics, log

ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}\Z")
"""A caller's X-Request-Id is echoed and logged, so it may hold nothing a header or a log line could trip over."""

DRAIN_BYTES, DRAIN_S = 8 * 2**20, 1.0
"""How much of a refused body is read and forgotten, and how long. Judged: what an honest mistake may send in a second;
whoever sends more has the connection closed on it."""


_NO_SNIFFING = (b"x-content-type-options", b"nosniff")

NO_EXCEPTIONS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Gate:
    """Who decides, and about which addresses: calls for a *slate* have a cheap answer, *events* only a refusal."""

    admission: Admission
    slates: Sequence[Route]
    events: Sequence[Route]


class Edge:
    """
    Wraps the application; outermost of our layers, inside nothing but the server.

    max_body_bytes: a larger body is refused with 413: at once when its length is announced, otherwise as soon
        as that many bytes have arrived. Nothing of it is parsed.
    larger: path → another bound, for what is read while it streams and never held whole.
    labels: endpoint → address as it stands in the route table, the closed set of the metrics' route label.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        metrics: Metrics,
        labels: Mapping[object, str],
        gate: Gate,
        larger: Mapping[str, int] = NO_EXCEPTIONS,
    ) -> None:
        self._app = app
        self._max_body_bytes, self._larger = max_body_bytes, larger
        self._metrics = metrics
        self._labels = labels
        self._gate = gate
        # Most calls are for an address without a parameter in it: found by name, not by a row of expressions.
        self._exact = {
            (method, route.path): route
            for route in gate.slates
            if "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = begin(scope, _request_id(scope))
        running: Running | None = getattr(scope["app"].state, "running", None)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            is_start = message["type"] == "http.response.start"
            if is_start:
                headers = message["headers"]
                headers += (
                    (b"x-request-id", exchange.request_id.encode()),
                    (b"server-timing", exchange.server_timing().encode()),
                    _NO_SNIFFING,
                )
                if running is not None and running.is_draining:
                    # The next request is somebody else's: a kept connection would find nobody here.
                    MutableHeaders(raw=headers)["connection"] = "close"
            try:
                await send(message)
            except OSError as error:
                # How ASGI servers say that the caller has left (spec 2.4); uvicorn only falls silent.
                raise ClientDisconnect from error
            if is_start:
                status = message["status"]

        self._metrics.requests_in_flight.inc()
        try:
            await self._answer(scope, receive, send_with_headers, exchange, running, lambda: status != 0)
        finally:
            ticket = ticket_of(scope)
            if ticket is not None:
                ticket.settle(status)
            self._metrics.requests_in_flight.dec()
            self._count(scope, status, exchange)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        running: Running | None,
        has_begun: Callable[[], bool],
    ) -> None:
        try:
            refusal = None if running is None else self._refusal(scope, exchange, running)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            announced, most = _content_length(scope), self._larger.get(scope["path"], self._max_body_bytes)
            if announced is not None and announced > most:
                await _drained(receive)
                raise _too_large(f"{announced} bytes were announced", most)
            await self._app(scope, _limited(receive, most), send)
        except ClientDisconnect:
            # Nobody is there to be answered; counted under status class "none".
            log.info("client_left", request_id=exchange.request_id)
        except Problem as problem:
            await response(problem, exchange.request_id)(scope, receive, send)
        except Exception:
            log.exception(
                "unexpected", request_id=exchange.request_id, method=scope["method"], path=scope["path"][:200]
            )
            if has_begun():
                raise
            detail = "the request was fine, we were not; the request_id finds it in our log"
            await response(Problem(Kind.INTERNAL, detail), exchange.request_id)(scope, receive, send)

    def _refusal(self, scope: Scope, exchange: Exchange, running: Running) -> Response | None:
        """
        Admission's no, before anything of the body is read; None: the request goes on.

        The server reads a refused body on and forgets it, so that its connection can carry the next request, unless
        there is too much of it or it would only be sent when asked for.
        """
        admission, lag = self._gate.admission, running.loop.lag
        route = self._exact.get((scope["method"], scope["path"])) or _match(self._gate.slates, scope)
        if route is not None:
            exchange.route = route.path
            ticket = admission.admit(scope["headers"], lag)
            keep(scope, ticket)
            if ticket.rung is not Rung.SHED:
                return None
        elif (route := _match(self._gate.events, scope)) is not None and admission.is_overwhelmed(lag):
            exchange.route = route.path
        else:
            return None
        announced = _content_length(scope) or 0
        is_held_back = any(name == b"expect" for name, _ in scope["headers"])
        keeps_connection = announced <= self._max_body_bytes and not is_held_back
        return admission.refusal(exchange.request_id, keeps_connection=keeps_connection)

    def _count(self, scope: Scope, status: int, exchange: Exchange) -> None:
        route = exchange.route or self._labels.get(scope.get("endpoint"), "unmatched")
        status_class = f"{status // 100}xx" if status else "none"
        self._metrics.requests.labels(route, status_class).inc()
        self._metrics.request_seconds.labels(route).observe(exchange.took_ms() / 1000)


def _limited(receive: Receive, most: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            if message.get("more_body", False):
                await _drained(receive)
            raise _too_large(f"{received} bytes had arrived when we stopped", most)
        return message

    return limited


def _too_large(found: str, most: int) -> Problem:
    detail = f"{found}, at most {most} are taken; send fewer items or events in one call"
    # The rest of the body is not read, so the connection cannot carry another request.
    whole = FieldError("body", f"at most {most} bytes")
    return Problem(Kind.BODY_TOO_LARGE, detail, [whole], headers={"connection": "close"})


def _match(candidates: Sequence[Route], scope: Scope) -> Route | None:
    """Which of *candidates* the router would choose; another method is none of them."""
    return next((route for route in candidates if route.matches(scope)[0] is Match.FULL), None)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and ACCEPTABLE_ID.match(value):
            return str(value, "ascii")
    return new_id()


def _content_length(scope: Scope) -> int | None:
    """The announced length; None where there is none or it is no number (the stream is counted anyway)."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


async def _drained(receive: Receive) -> None:
    """
    Read and forget the rest of a body, within bounds.

    A client that is still sending when the connection closes sees a reset instead of our answer.
    """
    left = DRAIN_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
