"""
Which of the ordered candidates share a slate: not too many of one kind, and not too much alike.

One greedy walk over the slots. Caps come before likeness and likeness beside relevance (maximal marginal relevance);
a cap gives way before a slot stays empty, the least painful one first. With neither asked for, the order stands.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.likeness import Marks
from orchestrator.core.model import Diversity, Int32, Mask
from orchestrator.core.places import worth

WEIGHTS = {Diversity.OFF: 0.0, Diversity.LOW: 0.2, Diversity.MEDIUM: 0.35, Diversity.HIGH: 0.5}
"""Say of likeness beside relevance, in [0, 1). Measured on Online Retail's validation window: what each level costs in
NDCG and how much less alike its items are is in docs/rules.md."""

WINDOW = 300
"""Candidates, best first, among which a slate is spread. Derived: as many as are re-ranked at most; what is behind
them has an order of its own, and the walk is to stay under a millisecond."""


@dataclass(frozen=True, slots=True)
class Caps:
    """
    Most items of one kind in a slate; 0: no cap.

    `parent` is the item of which others are variants: sizes, colours.
    """

    category: int = 0
    brand: int = 0
    parent: int = 0

    @property
    def most(self) -> tuple[int, int, int]:
        """In the order of the columns of `Kinds`."""
        return (self.category, self.brand, self.parent)


PARENT_COLUMN = 2

PAIN = (1.0, 2.0, 4.0)
"""What breaking each cap weighs when a slot would stay empty. Judged: two colours of one mug beside each other look
like a mistake, a third shelf-mate does not. Powers of two, so that none is worth more than a heavier one."""

_CAP = 100.0
"""Above any relevance and likeness: a cap that is not broken wins whatever the scores."""


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """
    chosen   (k,) row numbers in the slate's order
    reserve  the other rows, in their order
    fits     (rows of reserve,) bool: could be exchanged for any slot without breaking a cap
    """

    chosen: NDArray[np.intp]
    reserve: NDArray[np.intp]
    fits: Mask


def spread(
    n: int,
    count: int,
    caps: Caps,
    kinds: Int32,
    weight: float = 0.0,
    marks: Marks | None = None,
    beside: tuple[int, ...] = (),
    taken: Int32 | None = None,
) -> Spread:
    """
    Choose *count* of *n* ordered candidates.

    Args:
        kinds: (n + len(beside), 3) int32 codes of category, brand and parent; -1 unknown, which is no kind at all.
        weight: say of likeness, one of WEIGHTS; marks: what the rows of *kinds* are made of, needed with it.
        beside: rows from n on that share the slate already, such as pinned items: they count, they are not chosen.
        taken: parents of which a slot is taken already, such as that of the page's item.

    Source: Carbonell and Goldstein, SIGIR 1998, with places for scores.
    """
    count, window = min(count, n), min(n, max(WINDOW, count))
    capped = _Capped(caps, kinds, n, taken)
    value = (1.0 - weight) * worth(window)
    near = np.zeros(window)

    def joined(row: int) -> None:
        """*row* is in the slate: its kinds count, and what is like it is worth less."""
        capped.count(row)
        if marks is not None and weight:
            np.maximum(near, marks.likeness(row, window), out=near)

    for row in beside:
        joined(row)
    chosen = np.empty(count, np.intp)
    for slot in range(count):
        best = int(np.argmax(value - weight * near - _CAP * capped.pain[:window]))
        chosen[slot], value[best] = best, -np.inf
        joined(best)
    reserve = np.delete(np.arange(n), chosen)
    return Spread(chosen, reserve, capped.pain[reserve] == 0)


def keeps(caps: Caps, kinds: Int32, taken: Int32) -> bool:
    """
    Whether these rows of `kinds` together break no cap, so that nothing needs to be spread for it.

    Cheap: what most requests are asked.
    """
    for column, most in enumerate(caps.most):
        if not most:
            continue
        codes = kinds[:, column]
        codes = codes[codes >= 0]
        if not len(codes):
            continue
        if column == PARENT_COLUMN and len(taken):
            codes = np.concatenate([codes, taken])
        if np.unique(codes, return_counts=True)[1].max() > most:
            return False
    return True


class _Capped:
    """
    Which of n rows would break a cap, kept up as rows are counted in.

    pain  (n,) 0 where a row would break none
    """

    def __init__(self, caps: Caps, kinds: Int32, n: int, taken: Int32 | None) -> None:
        self._caps, self._kinds, self._n = caps.most, kinds, n
        self._counts: tuple[Counter[int], ...] = tuple(Counter() for _ in self._caps)
        self.pain = np.zeros(n)
        for code in () if taken is None else taken.tolist():
            self._one_more(PARENT_COLUMN, code)

    def count(self, row: int) -> None:
        """*row* is in the slate."""
        for column, code in enumerate(self._kinds[row].tolist()):
            self._one_more(column, code)

    def _one_more(self, column: int, code: int) -> None:
        most, counts = self._caps[column], self._counts[column]
        if not most or code < 0:
            return
        counts[code] += 1
        if counts[code] == most:
            self.pain[self._kinds[: self._n, column] == code] += PAIN[column]
