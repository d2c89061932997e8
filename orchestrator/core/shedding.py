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

from orchestrator.core.lag import Lag
from orchestrator.core.model import Rung

CROWD = 32
"""Calls in one turn of the event loop from which its length is their own doing. Derived: so many answers from memory
take 10 ms; and a process that was stopped for the 150 ms of a stall finds a third of it, at 120 calls a second and two
processes."""


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


class Turns:
    """
    How long a call has waited for its turn, as far as the calls before it are to blame.

    A turn of the loop reads what every connection has sent, then answers one after the other: the last of 500 waits
    for 499, and a beat sees that only when it is over. Within the turn, the beat that is overdue tells. A process that
    was merely stopped is as late, but then there is no crowd, and whoever waited is answered.
    """

    __slots__ = ("_beats", "_calls")

    def __init__(self) -> None:
        self._beats = 0
        self._calls = 0

    def __repr__(self) -> str:
        return f"<Turns {self._calls} calls since beat {self._beats}>"

    def late_s(self, lag: Lag) -> float:
        """Called once a call: seconds of lag that decide about it."""
        if lag.beats != self._beats:
            self._beats, self._calls = lag.beats, 0
        self._calls += 1
        return max(lag.smoothed_s, lag.overdue_s) if self._calls > CROWD else lag.smoothed_s
