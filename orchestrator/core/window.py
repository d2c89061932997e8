"""
Calls of the last seconds, counted in buckets: how many, how many failed, how many were slow.

Time moves by the caller's `now` only. A bucket that has left the window is forgotten whole, so a count may be up to one
bucket young; that is Hystrix' shape, and the resolution a 10 s window needs.
"""

from __future__ import annotations

from typing import NamedTuple

SPAN_S, BUCKETS = 10.0, 10
"""Borrowed: Hystrix' window (resilience specification §1.2)."""


class Counts(NamedTuple):
    """What a window holds now."""

    calls: int
    failures: int
    slow: int


class Window:
    """Counts of the last *span_s* seconds; `add` and `counts` cost the same however many calls there were."""

    __slots__ = ("_buckets", "_epoch", "_width_s", "calls", "failures", "slow")

    def __init__(self, span_s: float = SPAN_S, buckets: int = BUCKETS) -> None:
        self._width_s = span_s / buckets
        self._buckets = [[0, 0, 0] for _ in range(buckets)]
        self._epoch = 0
        self.calls = self.failures = self.slow = 0

    def add(self, now: float, *, failed: bool = False, slow: bool = False) -> None:
        """Count one call that ended at *now*; a moment before the newest bucket counts into that one."""
        self._advance(now)
        bucket = self._buckets[self._epoch % len(self._buckets)]
        bucket[0] += 1
        self.calls += 1
        if failed:
            bucket[1] += 1
            self.failures += 1
        if slow:
            bucket[2] += 1
            self.slow += 1

    def counts(self, now: float) -> Counts:
        """What is in the window at *now*."""
        self._advance(now)
        return Counts(self.calls, self.failures, self.slow)

    def clear(self) -> None:
        """Forget everything."""
        for bucket in self._buckets:
            bucket[0] = bucket[1] = bucket[2] = 0
        self.calls = self.failures = self.slow = 0

    def _advance(self, now: float) -> None:
        epoch = int(now / self._width_s)
        if epoch <= self._epoch:
            return
        n = len(self._buckets)
        for past in range(max(self._epoch + 1, epoch - n + 1), epoch + 1):
            bucket = self._buckets[past % n]
            self.calls -= bucket[0]
            self.failures -= bucket[1]
            self.slow -= bucket[2]
            bucket[0] = bucket[1] = bucket[2] = 0
        self._epoch = epoch
