"""
One request and its answer, as the edge keeps track of them: id, start, size, what Server-Timing will say.

Lives in the ASGI scope under one key, so that middleware, handlers and problem documents speak of the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_KEY = "tutti.exchange"

ID_BYTES, IDS_AT_ONCE = 16, 256
"""As long as a UUID, and so many for one call of the operating system, which costs as much as all else about an id."""

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


def _ids() -> Iterator[str]:
    while True:
        drawn = os.urandom(ID_BYTES * IDS_AT_ONCE).hex()
        for at in range(0, len(drawn), 2 * ID_BYTES):
            yield drawn[at : at + 2 * ID_BYTES]


_waiting = _ids()


def new_id() -> str:
    """32 hex digits nobody else has. Not for a process that was forked: it would give out its parent's."""
    return next(_waiting)
