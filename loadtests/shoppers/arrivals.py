"""
Who makes the next page view: a shopper who has thought long enough, or else somebody new.

Page views arrive by a schedule that asks nobody how the system does (open loop), at exactly the rate that is wanted;
sessions are hung onto them. So a rate that jumps brings new shoppers at once, as a campaign does, and one that falls
leaves some to wait: nobody's next page is ever early.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count

from loadtests.shoppers.session import Session

PATIENCE_S = 60.0
"""Judged: who was ready for so long and was not called has gone to another shop."""


class Arrivals:
    """The shoppers who are in and think, by when they are ready."""

    def __init__(self, new: Callable[[], Session]) -> None:
        self._new = new
        self._thinking: list[tuple[float, int, Session]] = []
        self._order = count()
        self.n_sessions = self.n_lost = 0

    def who(self, now: float) -> Session:
        """Whose page view is due at *now*, seconds on any clock that `think` was told in."""
        while self._thinking and self._thinking[0][0] <= now:
            ready_at, _, session = heappop(self._thinking)
            if now - ready_at <= PATIENCE_S:
                return session
            self.n_lost += 1
        self.n_sessions += 1
        return self._new()

    def think(self, session: Session, until: float) -> None:
        """*session* looks at nothing more before *until*."""
        heappush(self._thinking, (until, next(self._order), session))

    def __repr__(self) -> str:
        return f"<Arrivals {self.n_sessions} sessions, {len(self._thinking)} think>"


def poisson(rate: float, rng: random.Random, begins_at: float) -> Iterator[float]:
    """
    Moments at which page views are due, for ever: independent shoppers, *rate* a second on average.

    Several such streams side by side are one of the sum of their rates.
    """
    at = begins_at
    while True:
        at += rng.expovariate(rate)
        yield at
