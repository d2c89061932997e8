"""
The degradation ladder's controller: which rung the whole process stands on, from its health second by second.

Quick to step down, slow to come back, never twice within the dwell, and one rung at a time: a controller that
follows every blip would itself be a load that swings. What a single request needs is decided where it is
answered; the lower of both counts (resilience specification §1.8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.core.model import Rung

BUSY_SHARE = 0.8
"""Of a limit, or of the re-ranker's cap: from here on there is no room for a bad moment (specification §1.8)."""

LATE_S = 0.010
"""Lag of the loop from which extra work is left undone (specification §1.8)."""

MOST_SHARE = 0.5
"""Missing in most requests. Judged: a store that answers every second request is not one to wait for."""

BAD_SECONDS, GOOD_SECONDS, DWELL_S = 1, 10, 5.0
"""Specification §1.8: worse after 1 bad second, better after 10 good ones, at least 5 s on a rung."""


@dataclass(frozen=True, slots=True)
class Health:
    """
    The last second; what is unknown is healthy.

    limiter_share     the fullest limiter's in-flight calls, as a share of its limit
    lag_s             the event loop's, smoothed
    rerank_p95_share  the re-ranker's p95 as a share of its cap
    features_missing  share of the requests whose shopper's features were lost
    rerank_open       the re-ranker's breaker lets nobody through
    """

    limiter_share: float = 0.0
    lag_s: float = 0.0
    rerank_p95_share: float = 0.0
    features_missing: float = 0.0
    rerank_open: bool = False


def wanted(health: Health) -> Rung:
    """The rung *health* asks for. Below NO_RERANK a request gets by what it lost or by admission, never from here."""
    if health.rerank_open:
        return Rung.NO_RERANK
    if health.rerank_p95_share > BUSY_SHARE or health.features_missing > MOST_SHARE:
        return Rung.NARROW
    if health.limiter_share > BUSY_SHARE or health.lag_s > LATE_S:
        return Rung.LEAN
    return Rung.FULL


class Ladder:
    """The controller. Starts at FULL."""

    def __init__(self) -> None:
        self._rung = Rung.FULL
        self._changed_at = -math.inf
        self._bad = 0
        self._good = 0

    def __repr__(self) -> str:
        return f"<Ladder {self._rung.name.lower()}, {self._good} good and {self._bad} bad seconds>"

    @property
    def rung(self) -> Rung:
        """Where the process stands."""
        return self._rung

    def observe(self, now: float, health: Health) -> Rung:
        """Take the last second into account; called once a second with monotonic *now*. The rung from here on."""
        goal = wanted(health)
        self._bad = self._bad + 1 if goal > self._rung else 0
        self._good = self._good + 1 if goal < self._rung else 0
        if now - self._changed_at < DWELL_S:
            return self._rung
        if self._bad >= BAD_SECONDS:
            self._step(now, Rung(self._rung + 1))
        elif self._good >= GOOD_SECONDS:
            self._step(now, Rung(self._rung - 1))
        return self._rung

    def _step(self, now: float, rung: Rung) -> None:
        self._rung, self._changed_at = rung, now
        self._bad = self._good = 0
