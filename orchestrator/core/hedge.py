"""
When a second replica is asked beside a late one, and how often.

The delay must be the (1 - share) percentile of the latency: asked earlier, the budget is spent on calls that were about
to finish (resilience specification §1.5: at p98, p99 falls from 177 to 26 ms; at p93 with the same budget only to 138).
"""

from __future__ import annotations

from typing import Protocol

from orchestrator.core.tokens import SpoilingTokens

HEDGE_SHARE = 0.05
"""Extra load hedges may make (specification §1.5)."""

MIN_DELAY_S = 0.001
"""Sooner than that a hedge is a duplicate (specification §1.5, as Finagle)."""

MIN_SAMPLES = 100
"""Before that many latencies a percentile is a guess (specification §1.5)."""

LATEST_MEDIANS, MOSTLY = 2.0, 0.75
"""Where the percentile comes too late: the last moment that still leaves a second answer twice the median, if three
quarters of the calls have been answered by then. Judged; what it costs is bounded by the budget all the same."""

TOP_S = 1.0
"""A percentile here or above has run out of the histogram. Derived: ten times the promise; no call takes that long."""

TOKEN_LIFE_S = 10.0
"""As the retry budget's (specification §1.4)."""


class Latencies(Protocol):
    """What is asked of the histogram of one method's latencies."""

    def count(self, now: float) -> int:
        """Latencies that the window holds."""
        ...

    def percentile(self, now: float, p: float) -> float | None:
        """Seconds that a share *p* in [0, 1] of them stayed within, None while unknown."""
        ...


def hedge_delay(latencies: Latencies, now: float, timeout_s: float, share: float = HEDGE_SHARE) -> float | None:
    """
    Seconds after which a second replica may be asked; None when this call is not to be hedged.

    The percentile, or where half the second answers would then come after *timeout_s*, the last moment that is early
    enough. That is when more calls than *share* never end: packets get lost, or there was an outage less than a minute
    ago, and the histogram is full of timeouts. Departs from the specification, which then hedges nothing
    (docs/adr/0021-a-hedge-at-the-last-moment.md).

    Not hedged: too little is known, the percentile has run out of the histogram, or most calls take that long.
    """
    if latencies.count(now) < MIN_SAMPLES:
        return None
    delay_s = latencies.percentile(now, 1.0 - share)
    median_s = latencies.percentile(now, 0.5)
    mostly_s = latencies.percentile(now, MOSTLY)
    if delay_s is None or median_s is None or mostly_s is None or delay_s >= TOP_S:
        return None
    delay_s = max(MIN_DELAY_S, delay_s)
    if delay_s + median_s <= timeout_s:
        return delay_s
    latest_s = timeout_s - LATEST_MEDIANS * median_s
    return latest_s if latest_s >= max(MIN_DELAY_S, mostly_s) else None


class HedgeBudget:
    """
    Hedges that calls have paid for: hedges ≤ share × calls, whatever happens; nothing in reserve.

    Without it a dependency that is slow as a whole is asked everything twice.
    """

    __slots__ = ("_price", "_tokens")

    def __init__(self, share: float = HEDGE_SHARE, life_s: float = TOKEN_LIFE_S) -> None:
        self._price = 1.0 / share
        self._tokens = SpoilingTokens(life_s)

    def sent(self, now: float) -> None:
        """A first attempt was sent."""
        self._tokens.put(now)

    def try_withdraw(self, now: float) -> bool:
        """Pay for a hedge; False when it may not be sent."""
        return self._tokens.try_take(now, self._price)

    def __repr__(self) -> str:
        return f"<HedgeBudget {self._tokens!r}, {self._price:g} for a hedge>"
