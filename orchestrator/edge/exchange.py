"""
One request and its answer, as the edge keeps track of them: id, start, size, what Server-Timing will say.

Lives in the ASGI scope under one key, so that middleware, handlers and problem documents speak of the same.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_KEY = "tutti.exchange"

PROCESS = f'process;desc="{os.getpid()}"'
"""Which of several workers answered: each has breakers and limits of its own, so whose answer it is explains it."""


@dataclass(slots=True)
class Exchange:
    """
    started    monotonic seconds at which the request's head had been read
    stages_ms  stage → milliseconds, set by the handler once a slate is there
    route      address as it stands in the route table, where it is known before routing
    """

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    stages_ms: Sequence[tuple[str, float]] = ()
    route: str | None = None

    def took_ms(self) -> float:
        """Milliseconds since the request's head had been read."""
        return round((time.perf_counter() - self.started) * 1000, 3)

    def server_timing(self) -> str:
        """Value of the Server-Timing header: the total, the pipeline's stages in their order, and who answered."""
        stages = [f"{name};dur={took_ms:.2f}" for name, took_ms in self.stages_ms]
        return ", ".join([f"total;dur={self.took_ms():.2f}", *stages, PROCESS])


def begin(scope: MutableMapping[str, Any], request_id: str) -> Exchange:
    """Start tracking *scope*'s request."""
    exchange = Exchange(request_id)
    scope[_KEY] = exchange
    return exchange


def exchange_of(scope: Mapping[str, Any]) -> Exchange:
    """The exchange of *scope*; a fresh one where no middleware began it (a handler tested alone)."""
    found = scope.get(_KEY)
    return found if isinstance(found, Exchange) else Exchange(new_id())


def new_id() -> str:
    """32 hex digits nobody else has."""
    return uuid.uuid4().hex
