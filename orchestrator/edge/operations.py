"""
What whoever runs it asks: is it alive, is it ready, how is it doing.
"""

from __future__ import annotations

import asyncio

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.edge.problems import FieldError, Kind, Problem
from orchestrator.edge.routes import JSON, RETRY_AFTER_S, Handler, running_of
from orchestrator.telemetry import metrics

CHECKS_WITHIN_S = 0.5
"""Derived: half of the shortest probe timeout in use (Kubernetes' default is 1 s)."""


async def livez(_: Request) -> Response:
    """The process answers. Restart it when it does not."""
    return Response(b'{"status":"alive"}', media_type=JSON)


async def readyz(request: Request) -> Response:
    """
    Slates can be answered: send traffic.

    A dependency that is down does not make it unready, since slates go out without it; `checks` tells.
    """
    running = running_of(request)
    try:
        async with asyncio.timeout(CHECKS_WITHIN_S):
            checks = await running.checks()
    except TimeoutError:
        checks = {"checks": f"took longer than {CHECKS_WITHIN_S:g} s"}
    if running.is_draining or not running.is_ready:
        errors = [FieldError(name, state) for name, state in checks.items() if state != "ok"]
        headers = {"retry-after": str(RETRY_AFTER_S)}
        raise Problem(Kind.NOT_READY, "still starting, or stopping", errors, {"checks": checks}, headers)
    return Response(orjson.dumps({"status": "ready", "checks": checks}), media_type=JSON)


async def scrape(_: Request) -> Response:
    """Prometheus text: ours, then the process's own (memory, CPU, garbage collection)."""
    return Response(generate_latest(metrics.registry) + generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


HANDLERS: dict[tuple[str, str], Handler] = {
    ("/livez", "get"): livez,
    ("/readyz", "get"): readyz,
    ("/metrics", "get"): scrape,
}
"""Address and method → handler."""
