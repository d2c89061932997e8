"""
How long one method of one dependency takes: a histogram of the last 30 to 60 seconds, and its percentiles.

Two halves that take turns: the older one is forgotten whole every 30 s. Buckets grow by 5 %, so a percentile is off by
at most that much; percentiles are computed at most every 3 s, since they change slowly and are asked for at every call.
"""

from __future__ import annotations

import math

HALF_S = 30.0
REFRESH_S = 3.0
LEAST_SAMPLES = 100
"""Borrowed: the resilience specification's window, refresh and least number of samples for a hedge delay (§1.5)."""

SMALLEST_S, GROWTH = 0.0001, 1.05
"""Derived: 0.1 ms is below any remote call of ours; 5 % of a 35 ms cap is under 2 ms, less than timers are late."""

BUCKETS = math.ceil(math.log(4.0 / SMALLEST_S, GROWTH))
"""Up to 4 s; longer calls count as that."""

_LOG_GROWTH = math.log(GROWTH)


class Latencies:
    """Records seconds, answers percentiles."""

    __slots__ = ("_cached", "_counts", "_current", "_half_began_at", "_halves")

    def __init__(self) -> None:
        self._halves = [[0] * BUCKETS, [0] * BUCKETS]
        self._counts = [0, 0]
        self._current = 0
        self._half_began_at: float | None = None
        self._cached: dict[float, tuple[float, float | None]] = {}

    def record(self, now: float, seconds: float) -> None:
        """One call that ended at *now*."""
        self._turn(now)
        self._halves[self._current][_bucket(seconds)] += 1
        self._counts[self._current] += 1

    def count(self, now: float) -> int:
        """Calls in the window."""
        self._turn(now)
        return self._counts[0] + self._counts[1]

    def percentile(self, now: float, p: float, least: int = LEAST_SAMPLES) -> float | None:
        """
        Seconds that a share *p* of the calls does not exceed; None while fewer than *least* are known.

        At most 3 s old, except that a first value is never waited for.
        """
        known = self._cached.get(p)
        if known is not None and known[1] is not None and 0 <= now - known[0] < REFRESH_S:
            return known[1]
        value = self._computed(p) if self.count(now) >= least else None
        self._cached[p] = (now, value)
        return value

    def _computed(self, p: float) -> float:
        wanted, seen = p * (self._counts[0] + self._counts[1]), 0
        for i in range(BUCKETS - 1):
            seen += self._halves[0][i] + self._halves[1][i]
            if seen >= wanted:
                return _middle_of(i)
        return _middle_of(BUCKETS - 1)

    def _turn(self, now: float) -> None:
        if self._half_began_at is None:
            self._half_began_at = now
        halves_over = int((now - self._half_began_at) / HALF_S)
        if halves_over < 1:
            return
        for _ in range(min(2, halves_over)):
            self._current = 1 - self._current
            self._halves[self._current] = [0] * BUCKETS
            self._counts[self._current] = 0
        self._half_began_at += halves_over * HALF_S


def _middle_of(bucket: int) -> float:
    return math.exp((bucket + 0.5) * _LOG_GROWTH) * SMALLEST_S


def _bucket(seconds: float) -> int:
    if seconds <= SMALLEST_S:
        return 0
    return min(BUCKETS - 1, int(math.log(seconds / SMALLEST_S) / _LOG_GROWTH))
