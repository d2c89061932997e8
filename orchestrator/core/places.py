"""
Places: what one is worth, which one an item wants, and who stands where when all have said it.

Everything that moves items moves them by place. Scores of the re-ranker, of fusion and of the popular list have no
scale in common; places mean the same on every rung of the ladder (docs/adr/0024).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.masks import of
from orchestrator.core.model import Float32, Float64, Int32

HALF_AT = 10
"""Places after which an item is worth half of the first. Measured on Online Retail's validation window, spreading
slates to equal likeness: 1 / log2 cost as much ndcg@10 and 3 to 6 % more recall@20, places as they are half as much
ndcg@10 again (docs/rules.md)."""


def worth(n: int) -> Float64:
    """(n,) what each place is worth: 1 the first, half HALF_AT places behind it, a third after twice as many."""
    return 1.0 / (1.0 + np.arange(n) / HALF_AT)


def wanted(keys: Int32, factor: Float32 | None, shift: Float32 | None, weary: Float64 | None) -> Float64:
    """
    (n,) the place each candidate wants, from 1; its own where nothing moves it.

    Args:
        keys: (n,) in the order that models gave.
        factor, shift: (catalogue size,) of `rules.Applied`: an item at p wants p × factor + shift; one younger than the
            rules stays.
        weary: (n,) of `fatigue.weariness`: an item wants the place that is worth so many times less.
    """
    places = np.arange(1, len(keys) + 1, dtype=np.float64)
    if factor is not None and shift is not None:
        places = places * of(factor, keys, 1.0) + of(shift, keys, 0.0)
    return places if weary is None else (places + HALF_AT - 1) * weary - (HALF_AT - 1)


def moved(wanted: Float64) -> NDArray[np.intp]:
    """
    The order that gives everybody the place they want as nearly as possible, (n,) row numbers.

    Args:
        wanted: (n,) the place row i wants; i + 1 where it does not want to move.

    Who comes up to a place stands before its holder, who goes down behind, so that "to the fifth place" is the fifth.
    """
    here = np.arange(1, len(wanted) + 1)
    nudged = wanted + 0.5 * np.sign(wanted - here)
    return np.argsort(nudged, kind="stable")
