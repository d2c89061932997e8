"""
The order of what nobody wanted yet: categories take turns, each by the share it has earned.

A new shop's catalogue comes in blocks, and its first twenty items are one category. Here every category counts one
event more than it has, which is all there is to say while it has none, and seats are given as a parliament's are:
the n-th item of a category with weight w stands at (n − ½) / w. So no category is shut out, one that is wanted comes
more often, and with enough events the prior is forgotten. Price plays no part: it would be a policy, not a guess.

Source: Sainte-Laguë's divisors, 1910 (Webster's method).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32

PRIOR_EVENTS = 1.0
"""Strength every category begins with. Judged: one look, the least there is (`signals.STRENGTH`)."""


def order(keys: NDArray[np.integer], categories: NDArray[np.object_], strengths: Float32) -> NDArray[np.int32]:
    """
    *keys* (m,) in the order in which to show them; of one category they stay as they come.

    Args:
        categories: (n_items,) of the whole catalogue, "" where unknown, which is a category too.
        strengths: (n_items,) float32 ≥ 0, what was wanted of each item, decayed or not.
    """
    names, codes = np.unique(categories.astype(np.str_), return_inverse=True)
    weights = PRIOR_EVENTS + np.bincount(codes, strengths, len(names))
    own = codes[keys]
    by_category = np.argsort(own, kind="stable")
    begins = np.searchsorted(own[by_category], own[by_category], side="left")
    place = np.empty(len(keys), np.int64)
    place[by_category] = np.arange(len(keys)) - begins
    quotient = (place + 0.5) / weights[own]
    # Ties go to the category that comes first in the catalogue, not in the alphabet.
    return np.asarray(keys[np.lexsort((np.arange(len(keys)), quotient))], np.int32)
