"""
Who is answered how when there is too much to do: a table of three priorities, and nothing else.

First comes the cheap path (what is popular, from memory), which costs a hundredth of a computed slate; a 503 only
when even that would be late. Nothing is reserved for anybody: the thresholds are on everything that is in flight,
so whoever comes may use what the others leave, and being over one costs quality, never an answer, as long as
the loop turns in time (resilience specification §1.6; the defaults are its table).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from orchestrator.core.model import Rung


class Priority(Enum):
    """What hangs on the answer: `X-Request-Priority`. The least first."""

    BULK = "bulk"
    """A batch, a warm-up: nobody waits."""
    BEST_EFFORT = "best_effort"
    """A prefetch: somebody may come to want it."""
    CRITICAL = "critical"
    """A page in front of a shopper."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """
    Where one priority leaves the full way; each is exceeded, not reached.

    cheap_share  requests in flight as a share of the limit
    cheap_lag_s  lag of the event loop from which the cheap path answers
    shed_lag_s   lag of the event loop from which even that would be late
    """

    cheap_share: float
    cheap_lag_s: float
    shed_lag_s: float


def admit(table: Mapping[Priority, Thresholds], priority: Priority, in_flight_share: float, lag_s: float) -> Rung:
    """
    FULL: go on. STALE: what is remembered, else popular. POPULAR: popular, asking nobody. SHED: 503.

    Too much in flight leaves time for one read of the cache, which most answers need; a loop that is late does not.

    in_flight_share: computed requests, this one included, as a share of the edge's limit; above 1 when the limit
        has no room for it.
    """
    limits = table[priority]
    if lag_s > limits.shed_lag_s:
        return Rung.SHED
    if lag_s > limits.cheap_lag_s:
        return Rung.POPULAR
    if in_flight_share > limits.cheap_share:
        return Rung.STALE
    return Rung.FULL
