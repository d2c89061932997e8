"""
When a request really arrived: how long it waited in front of us, and how far that is to be believed.

A proxy stamps `X-Request-Start` with its wall clock; ours may disagree. A delay that cannot be (from the future,
longer than the whole budget) is not believed at all, and of those that can be, `SkewGuard` lets only a share cost
a request its slate, so that a wrong clock cannot take everybody's (resilience specification §1.1, rule f).
"""

from __future__ import annotations

import re
from collections import deque

_STAMP = re.compile(r"\s*(?:t=)?([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*\Z", re.ASCII)
"""nginx writes `t=1700000000.123`, Heroku bare milliseconds, Apache `t=` and microseconds."""

_MILLISECONDS_FROM, _MICROSECONDS_FROM, _NANOSECONDS_FROM = 1e11, 1e14, 1e17
"""The unit is told by the size, since no two of them overlap between 1973 and 5138: now is 1.7e9 s, e12 ms, e15 µs."""

CUT_SHARE, PERIOD_S = 0.2, 10.0
"""Borrowed: Finagle's DeadlineFilter refuses at most 20 % of the requests of 10 s."""

_SLICES = 10

LEAST_LEFT_SHARE = 0.1
"""With less than this share of its budget left a request can ask nobody. Derived from the usual budget: of 100 ms,
8 are for writing the reply and 2 are the shortest call worth making."""


def stamped_at(header: str) -> float | None:
    """The moment in *header*, wall-clock seconds since the epoch, whatever unit it came in; None: unreadable."""
    match = _STAMP.match(header)
    if match is None:
        return None
    value = float(match.group(1))
    if value >= _NANOSECONDS_FROM:
        return None
    if value >= _MICROSECONDS_FROM:
        return value / 1e6
    return value / 1e3 if value >= _MILLISECONDS_FROM else value


def queue_delay(header: str | None, wall_now: float, most_s: float) -> float | None:
    """
    Seconds the request waited before it reached us.

    Args:
        header: value of X-Request-Start.
        wall_now: wall-clock seconds since the epoch.
        most_s: the usual budget; who claims to have waited longer is wrong, or gone.

    Returns:
        0 to *most_s*; None where nothing is said, or nothing that can be.
    """
    at = None if header is None else stamped_at(header)
    if at is None:
        return None
    delay_s = wall_now - at
    return delay_s if 0.0 <= delay_s <= most_s else None


def has_run_out(budget_s: float, queued_s: float) -> bool:
    """Whether waiting has left a request too little to ask anybody."""
    return budget_s - queued_s < LEAST_LEFT_SHARE * budget_s


class SkewGuard:
    """
    Decides whether a request that looks as if its time had run out is to be treated so.

    A leaky token bucket: every request puts in *share* of a token, a cut takes one, and both are forgotten after
    *period_s*, in tenths of it; so at every cut the cuts of the period are at most *share* of its requests.
    """

    def __init__(self, share: float = CUT_SHARE, period_s: float = PERIOD_S) -> None:
        self._share = share
        self._slice_s = period_s / _SLICES
        # [slice number, requests, cuts], oldest first, at most _SLICES of them.
        self._slices: deque[list[int]] = deque()
        self._requests = 0
        self._cuts = 0

    def __repr__(self) -> str:
        return f"<SkewGuard {self._cuts} of {self._requests} cut, {self._share:.0%} may be>"

    def may_cut(self, now: float, *, looks_expired: bool) -> bool:
        """Called once a request, at monotonic *now*: True when it may be cut for having waited too long."""
        newest = self._turned_to(int(now // self._slice_s))
        newest[1] += 1
        self._requests += 1
        if not looks_expired or self._cuts + 1 > self._share * self._requests:
            return False
        newest[2] += 1
        self._cuts += 1
        return True

    def _turned_to(self, number: int) -> list[int]:
        while self._slices and self._slices[0][0] <= number - _SLICES:
            _, requests, cuts = self._slices.popleft()
            self._requests -= requests
            self._cuts -= cuts
        if not self._slices or self._slices[-1][0] < number:
            self._slices.append([number, 0, 0])
        return self._slices[-1]
