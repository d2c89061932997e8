"""
What a client saw, one record an answer, written as JSON lines so that another process can judge it. Pure.

Moments are seconds of the machine's monotonic clock, which every process shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Seen:
    """
    One request and what became of it.

    Args:
        scheduled_at: when it was to be sent, whatever happened; latency counts from here.
        sent_at: when it left; later than scheduled only if this client was late.
        done_at: last byte of the answer, or the moment nobody waited any longer.
        kind: which kind of request, see `mix`.
        status: HTTP status; 0 when no answer came, then *error* says why (refused, reset, timeout, garbage).
        retry_after: a 503 says when to come again.
        level, rung, degraded, from_cache: of `quality`; rung None where the answer does not say.
        lost: source → status, for each source whose status is neither ok nor cached.
        n_items, asked: how many came, how many were asked for.
        client_s: seconds of this request's life in which the client itself was not looking (its loop was late).
        process: which of several orchestrators answered; "" where the answer does not say.
        broken: invariants this answer breaks by itself, in words.
    """

    scheduled_at: float
    sent_at: float
    done_at: float
    kind: str
    status: int
    priority: str = "critical"
    error: str = ""
    retry_after: bool = False
    level: str = ""
    rung: int | None = None
    degraded: tuple[str, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()
    n_items: int = 0
    asked: int = 0
    from_cache: bool = False
    client_s: float = 0.0
    process: str = ""
    broken: tuple[str, ...] = ()

    @property
    def latency_s(self) -> float:
        return self.done_at - self.scheduled_at

    @property
    def is_shed(self) -> bool:
        """Turned away politely: 503 with the time to come again."""
        return self.status == 503 and self.retry_after


def write(path: Path, seen: Iterable[Seen]) -> None:
    """Replace *path* by one line an answer."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for one in seen:
            file.write(orjson.dumps(one) + b"\n")
    partial.replace(path)


def read(path: Path) -> list[Seen]:
    """What `write` wrote, in the order of schedule."""
    with path.open("rb") as file:
        found = [_of(orjson.loads(line)) for line in file]
    return sorted(found, key=lambda one: one.scheduled_at)


def between(seen: Sequence[Seen], start: float, end: float) -> Iterator[Seen]:
    """Those scheduled in [start, end)."""
    return (one for one in seen if start <= one.scheduled_at < end)


def _of(document: Mapping[str, Any]) -> Seen:
    fields = dict(document)
    fields["degraded"] = tuple(fields["degraded"])
    fields["lost"] = tuple((name, status) for name, status in fields["lost"])
    fields["broken"] = tuple(fields["broken"])
    return Seen(**fields)
