"""
When something that failed for a key may be tried for it again: pauses that double, with equal jitter.

Without this, a stale slate whose refresh fails would be refreshed by every request that is served it.
"""

from __future__ import annotations

import random
from collections.abc import Hashable

FIRST_S, LAST_S = 1.0, 30.0
"""Borrowed: the waits of an open breaker (resilience specification §1.2). A refresh leans on the same dependencies."""

MAX_KEYS = 10_000
"""Keys remembered, the longest untouched forgotten first. Derived: 100 bytes each are 1 MB, and a forgotten key costs
one attempt too early."""


class Backoff:
    """Failures in a row by key. *now* is monotonic, in seconds; not for use by several threads."""

    def __init__(self, rng: random.Random, first_s: float = FIRST_S, last_s: float = LAST_S) -> None:
        self._rng = rng
        self._first_s, self._last_s = first_s, last_s
        self._failed: dict[Hashable, tuple[int, float]] = {}

    def may_try(self, key: Hashable, now: float) -> bool:
        """Whether *key* never failed, or its pause is over."""
        return key not in self._failed or now >= self._failed[key][1]

    def failed(self, key: Hashable, now: float) -> int:
        """
        Pause *key* for a time in [w/2, w], w = first·2^(n−1) up to last.

        Returns:
            n, its failures in a row: 1 is the one worth a line in the log.
        """
        n = self._failed.pop(key, (0, 0.0))[0] + 1
        longest_s = min(self._last_s, self._first_s * 2 ** min(n - 1, 30))
        self._failed[key] = (n, now + longest_s * self._rng.uniform(0.5, 1.0))
        if len(self._failed) > MAX_KEYS:
            del self._failed[next(iter(self._failed))]
        return n

    def worked(self, key: Hashable) -> None:
        """Forget the failures of *key*."""
        self._failed.pop(key, None)

    def __repr__(self) -> str:
        return f"<Backoff {len(self._failed)} keys that failed last>"
