"""
Zipf's law: the shopper, item or category of rank r comes with a chance of 1 / r^s.

Drawing from half a million takes a microsecond: sums are made once, a draw is a bisection.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from itertools import accumulate

USERS = 1.1
"""Visits a shopper. Judged after Online Retail, whose activity has a Gini of 0.63 (docs/embedded-shop.md)."""

ITEMS = 0.8
"""Looks at an item. Judged: flatter than shoppers, so that the long tail is asked for, too."""


class Zipf:
    """Draws ranks from 0 to n − 1, the lower the likelier."""

    def __init__(self, n: int, exponent: float) -> None:
        """
        Raises:
            ValueError: nothing to draw from, or a negative exponent.
        """
        if n < 1 or exponent < 0:
            raise ValueError(
                f"n = {n} and exponent = {exponent}; expected at least one rank and an exponent of 0 or more"
            )
        self._sums = list(accumulate(rank**-exponent for rank in range(1, n + 1)))

    def draw(self, rng: random.Random) -> int:
        """A rank, counted from 0."""
        return bisect_right(self._sums, rng.random() * self._sums[-1])

    def __repr__(self) -> str:
        return f"<Zipf over {len(self._sums)}>"
