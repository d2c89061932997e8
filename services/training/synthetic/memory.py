"""
What a shopper carries from one day to the next: what is running out, what is owned, what was looked at.

Rule: fixed width a shopper, so that memory is bounded however long the shop runs; the oldest entry gives way.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STAPLES = 10
OWNED = 20
LOOKED = 16
NEVER = 1 << 30
STAPLE_SHARE = 0.72
"""Chance that a consumable that was bought becomes one that is bought again."""


class Memory:
    """Rings of the latest items of *n* shoppers; −1 is empty."""

    def __init__(self, n: int) -> None:
        self.staple = np.full((n, STAPLES), -1, np.int64)
        self.due = np.full((n, STAPLES), NEVER, np.int64)
        self.owned = np.full((n, OWNED), -1, np.int64)
        self.looked = np.full((n, LOOKED), -1, np.int64)
        self.last_item = np.full(n, -1, np.int64)
        self.last_day = np.full(n, -NEVER, np.int64)
        self._owned_at = np.zeros(n, np.int64)
        self._looked_at = np.zeros(n, np.int64)

    def has_due(self, day: int) -> Bools:
        """Whether something of each shopper has run out by *day*, (n,)."""
        return np.asarray((self.due <= day).any(axis=1))

    def due_items(self, who: Ints, day: int) -> tuple[Ints, Bools]:
        """Staples of *who* and whether they are due within three days, both (len(who), STAPLES)."""
        return self.staple[who], self.due[who] <= day + 3

    def owns(self, who: Ints, item: Ints) -> Bools:
        """Whether shopper *who[i]* lately bought *item[i]*."""
        return np.asarray((self.owned[who] == item[:, None]).any(axis=1))

    def tired_of(self, who: Ints, shown: Ints) -> NDArray[np.float32]:
        """Utility lost by having looked at a thing again and again: 0 the first two times, then 0.5 each. (p, k)."""
        times = (self.looked[who][:, None, :] == shown[:, :, None]).sum(axis=2)
        return np.asarray(0.5 * np.maximum(times - 1, 0), np.float32)

    def saw(self, who: Ints, item: Ints) -> None:
        """Append views, in order."""
        for round_ in _rounds(who):
            u = who[round_]
            self.looked[u, self._looked_at[u] % LOOKED] = item[round_]
            self._looked_at[u] += 1

    def bought(
        self, who: Ints, item: Ints, day: int, cycle_days: NDArray[np.float64], rng: np.random.Generator
    ) -> None:
        """Append purchases; a cycle of 0 days marks a thing that lasts."""
        wait = np.maximum(4, np.round(cycle_days * rng.lognormal(0, 0.22, len(who)))).astype(np.int64)
        adopts = (cycle_days > 0) & (rng.random(len(who)) < STAPLE_SHARE)
        for round_ in _rounds(who):
            u, i = who[round_], item[round_]
            self.owned[u, self._owned_at[u] % OWNED] = i
            self._owned_at[u] += 1
            self.last_item[u], self.last_day[u] = i, day
            known = self.staple[u] == i[:, None]
            slot = np.where(known.any(axis=1), known.argmax(axis=1), self._free(u))
            keeps = adopts[round_] | known.any(axis=1)
            self.staple[u[keeps], slot[keeps]] = i[keeps]
            self.due[u[keeps], slot[keeps]] = day + wait[round_][keeps]

    def _free(self, u: Ints) -> Ints:
        """An empty slot, or the one that has been due the longest: nobody came back for it."""
        return np.asarray(np.where(self.staple[u] < 0, -NEVER, self.due[u]).argmin(axis=1), np.int64)


def _rounds(who: Ints) -> list[Ints]:
    """Positions of *who* split so that no shopper comes twice in one round; rounds keep the order of each shopper."""
    if not len(who):
        return []
    by_shopper = np.argsort(who, kind="stable")
    starts = np.nonzero(np.diff(who[by_shopper], prepend=-1))[0]
    turn = np.arange(len(who)) - np.repeat(starts, np.diff(np.append(starts, len(who))))
    by_turn = np.argsort(turn, kind="stable")
    bounds = np.searchsorted(turn[by_turn], np.arange(int(turn.max()) + 2))
    return [by_shopper[by_turn[a:b]] for a, b in pairwise(bounds)]
