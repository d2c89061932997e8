"""
Whether one more attempt may be made, and whether the first may: retry rule, retry budget, adaptive throttling.

At most one retry, in this layer only, and only of what never reached the dependency. Retries and hedges draw on one
budget, so that extra load is bounded once. Source: resilience specification §1.4.
"""

from __future__ import annotations

import random

from orchestrator.core.model import Loss
from orchestrator.core.tokens import SpoilingTokens

RETRY_RATIO = 0.1
"""Extra attempts for each first one (specification §1.4; Finagle allows 20 %, the SRE book 10 %)."""

TOKEN_LIFE_S = 10.0
"""After this a first attempt no longer earns anything (specification §1.4, as Finagle)."""

RESERVE_PER_S = 1.0
"""Retries a second without any budget, so that a quiet dependency gets one too (specification §1.4)."""

MAX_ELAPSED_S = 0.010
"""A call that failed later has used up the time for another (specification §1.4)."""

ROOM_S = 0.005
"""Time beyond the median that must be left for a retry: the longest wait before it (specification §1.4)."""

K = 2.0
"""Requests sent for each accepted one before rejecting begins (SRE book, "Handling Overload")."""

THROTTLE_SLICES = 24
"""Of 5 s: the two minutes of the SRE book, forgotten in steps of 4 %."""

THROTTLE_SLICE_S = 5.0

MAX_REJECT = 0.8
"""One in five goes through, so that recovery is seen (specification §1.4; Envoy's cap)."""

MIN_RATE_PER_S = 5.0
"""Below it chance looks like overload, and there is nothing worth throttling (specification §1.4)."""


def may_retry(loss: Loss, elapsed_s: float, remaining_s: float, p50_s: float, breaker_is_closed: bool) -> bool:
    """
    Whether a lost first attempt is worth a second; the budget is asked last, by the caller.

    Only for nobody-there: every other loss has reached the dependency, or would be the same again. A cancellation is
    no loss and never comes here.

    Args:
        elapsed_s: since the first attempt began.
        remaining_s: what a second attempt may take: reserves of later stages and the timer's grace are off already.
        p50_s: the dependency's median.
    """
    return (
        loss is Loss.UNAVAILABLE and elapsed_s <= MAX_ELAPSED_S and remaining_s >= p50_s + ROOM_S and breaker_is_closed
    )


def retry_wait_s(rng: random.Random) -> float:
    """Seconds before the second attempt: full jitter, so that callers that failed together do not return together."""
    return rng.uniform(0.0, ROOM_S)


class RetryBudget:
    """
    Extra attempts that first ones have paid for: each deposits 1, an extra attempt costs 1 / ratio.

    So extra ≤ ratio × first + reserve × seconds + 1. The reserve is for retries alone and is not banked: one at most.
    """

    __slots__ = ("_price", "_reserve", "_reserve_at", "_tokens")

    def __init__(self, ratio: float = RETRY_RATIO, life_s: float = TOKEN_LIFE_S) -> None:
        self._price = 1.0 / ratio
        self._tokens = SpoilingTokens(life_s)
        self._reserve = 1.0
        self._reserve_at = 0.0

    def deposit(self, now: float) -> None:
        """A first attempt was sent."""
        self._tokens.put(now)

    def try_withdraw(self, now: float, *, reserve: bool) -> bool:
        """
        Pay for an extra attempt; False when it may not be made.

        Args:
            reserve: whether the reserve may pay when the deposits cannot: yes for a retry, no for a hedge.
        """
        return self._tokens.try_take(now, self._price) or (reserve and self._try_reserve(now))

    def _try_reserve(self, now: float) -> bool:
        self._reserve = min(1.0, self._reserve + max(0.0, now - self._reserve_at) * RESERVE_PER_S)
        self._reserve_at = now
        if self._reserve < 1.0:
            return False
        self._reserve -= 1.0
        return True

    def __repr__(self) -> str:
        return f"<RetryBudget {self._tokens!r}, {self._price:g} for an extra attempt>"


class Throttle:
    """
    Client-side adaptive throttling: rejects with P = max(0, (requests - K · accepts) / (requests + 1)), at most 0.8.

    Requests are counted when they are sent, not when they return: during a hang nothing returns, and a throttle that
    counts returns would see no overload at all. A rejected request counts as sent too; the caller says so.
    Source: SRE book, "Handling Overload"; resilience specification §1.4.
    """

    __slots__ = ("_accepts", "_n_accepts", "_n_requests", "_requests", "_slice")

    def __init__(self) -> None:
        self._requests = [0] * THROTTLE_SLICES
        self._accepts = [0] * THROTTLE_SLICES
        self._n_requests = 0
        self._n_accepts = 0
        self._slice = 0

    def sent(self, now: float) -> None:
        """A request was wanted: sent, or rejected here."""
        self._forget(now)
        self._requests[self._slice % THROTTLE_SLICES] += 1
        self._n_requests += 1

    def accepted(self, now: float) -> None:
        """The dependency took a request on, whatever came of it."""
        self._forget(now)
        self._accepts[self._slice % THROTTLE_SLICES] += 1
        self._n_accepts += 1

    def reject_share(self, now: float, pending: int = 0) -> float:
        """
        Probability with which a request is rejected now, in [0, 0.8].

        pending: requests sent of which nobody knows yet; a burst at once is no overload.
        """
        self._forget(now)
        known = self._n_requests - pending
        if known < MIN_RATE_PER_S * THROTTLE_SLICES * THROTTLE_SLICE_S:
            return 0.0
        return min(MAX_REJECT, max(0.0, (known - K * self._n_accepts) / (known + 1)))

    def should_reject(self, now: float, rng: random.Random, pending: int = 0) -> bool:
        """Whether this request had better not be sent."""
        share = self.reject_share(now, pending)
        return share > 0.0 and rng.random() < share

    def _forget(self, now: float) -> None:
        current = int(now / THROTTLE_SLICE_S)
        n_passed = current - self._slice
        if n_passed <= 0:
            return
        for i in range(self._slice + 1, self._slice + 1 + min(n_passed, THROTTLE_SLICES)):
            oldest = i % THROTTLE_SLICES
            self._n_requests -= self._requests[oldest]
            self._n_accepts -= self._accepts[oldest]
            self._requests[oldest] = self._accepts[oldest] = 0
        self._slice = current

    def __repr__(self) -> str:
        return f"<Throttle {self._n_accepts}/{self._n_requests} accepted>"
