"""
How much an event says: strength by what was done, halved with age.

Shared by every model, in training and in serving alike, so that "a purchase last week" means one thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.tutti.v1 import common_pb2
from services.chassis.model import Shoppers

DAY_S = 86_400.0

# Relative strength of one event. Borrowed: the funnel of the embedded shop is near 100 views : 12 carts : 4 purchases,
# and strengths near the square root of how rare the step is keep a purchase above the views that led to it without
# drowning everything else. Being shown something, or taking it out of the basket, is no sign of liking it.
_STRENGTH = {
    common_pb2.EVENT_TYPE_VIEW: 1.0,
    common_pb2.EVENT_TYPE_CLICK: 1.0,
    common_pb2.EVENT_TYPE_ADD_TO_CART: 3.0,
    common_pb2.EVENT_TYPE_PURCHASE: 5.0,
}
STRENGTH: Float32 = np.zeros(256, np.float32)
for _type, _strength in _STRENGTH.items():
    STRENGTH[_type] = _strength

POSITIVE_TYPES = tuple(int(t) for t in _STRENGTH)
"""Event types that say a shopper wants an item."""

BASKET_TYPES = (common_pb2.EVENT_TYPE_ADD_TO_CART, common_pb2.EVENT_TYPE_PURCHASE)
"""Event types that put an item into the basket."""

FOCUS_PLACEMENTS = (common_pb2.PLACEMENT_ITEM, common_pb2.PLACEMENT_CART)
"""Where what is looked at now decides and the history only breaks ties; elsewhere the history is everything."""

HISTORY_SHARE_IN_FOCUS = 0.1
"""Say of the history there. A first guess, not measured: a tenth."""


def strengths(types: NDArray[np.uint8], ages_s: Float32, half_life_s: float) -> Float32:
    """Strength of each event (n,) float32: by its type, halved every *half_life_s*. Unknown types count 0."""
    ages = np.maximum(np.nan_to_num(ages_s, nan=np.inf, posinf=np.inf), 0.0)
    decayed: Float32 = (STRENGTH[types] * np.exp2(-ages / np.float32(half_life_s))).astype(np.float32)
    return decayed


def owners(rows: Rows) -> NDArray[np.int64]:
    """Row number of every value of *rows* (n,) int64."""
    return np.repeat(np.arange(len(rows)), np.diff(rows.offsets))


@dataclass(frozen=True, slots=True)
class Touched:
    """
    Everything that speaks for a shopper's taste, sorted by (shopper, item) pair: m pairs of n entries.

    rows, keys  (m,) int64 shopper and item of each pair, ascending
    starts      (m,) int64 first entry of each pair
    entries     (n,) float32 what each entry counted when it happened; ages_s (n,) seconds since the shopper's own
                newest event: who comes back after a year is known as well as on the day they left. Context is now
    """

    rows: NDArray[np.int64]
    keys: NDArray[np.int64]
    starts: NDArray[np.int64]
    entries: Float32
    ages_s: Float32

    def weights(self, half_life_s: float) -> tuple[Float32, Float32]:
        """Sum and largest of each pair's entries (m,) float32, halved every *half_life_s*."""
        if not len(self.starts):
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        decayed = self.entries * np.exp2(-self.ages_s / np.float32(half_life_s))
        return np.add.reduceat(decayed, self.starts), np.maximum.reduceat(decayed, self.starts)


def touched(shoppers: Shoppers, n_items: int, context_strength: float) -> Touched:
    """
    What *shoppers* wanted, and what they look at now, each of which counts *context_strength*.

    Keys outside [0, n_items) and events that are no sign of liking are left out.
    """
    history, context = shoppers.history, shoppers.context
    rows = np.concatenate([owners(history), owners(context)])
    keys = np.concatenate([history.values, context.values]).astype(np.int64)
    looked_at = np.full(len(context.values), context_strength, np.float32)
    entries = np.concatenate([STRENGTH[shoppers.history_types], looked_at])
    ages_s = np.concatenate([_since_newest(shoppers), np.zeros(len(looked_at), np.float32)])
    usable = np.flatnonzero((keys >= 0) & (keys < n_items) & (entries > 0))
    pairs = rows[usable] * n_items + keys[usable]
    order = np.argsort(pairs, kind="stable")
    pairs, usable = pairs[order], usable[order]
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    distinct = pairs[starts]
    size = max(n_items, 1)
    return Touched(distinct // size, distinct % size, starts, entries[usable], ages_s[usable])


def weighted_items(
    shoppers: Shoppers, n_items: int, half_life_s: float, context_strength: float, known: Touched | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """
    `touched` as of one half-life: entries of the same item add up, what is too old to matter is left out.

    Args:
        known: what `touched` gave for the very same arguments, where that is known already.

    Returns:
        rows (m,), keys (m,), weights (m,) float32 > 0; sorted by row, then key.
    """
    known = known or touched(shoppers, n_items, context_strength)
    weights, _ = known.weights(half_life_s)
    # Below a millionth of a view nothing can change an order, but a solve could lose its footing.
    counts = weights > 1e-6
    return known.rows[counts], known.keys[counts], weights[counts]


def focused(shoppers: Shoppers, rows: NDArray[np.int64], weights: Float32, context_strength: float) -> Float32:
    """
    *weights* (m,) of `weighted_items` with the history faded where the page's item or the basket decides.

    rows  (m,) shopper of each weight
    """
    decides = np.isin(shoppers.placements, FOCUS_PLACEMENTS) & (np.diff(shoppers.context.offsets) > 0)
    is_history = weights < context_strength
    return np.where(decides[rows] & is_history, weights * HISTORY_SHARE_IN_FOCUS, weights).astype(np.float32)


def _since_newest(shoppers: Shoppers) -> Float32:
    """Seconds between each event and the newest one of its shopper that says anything, (n,) float32."""
    row = owners(shoppers.history)
    newest = np.full(len(shoppers), np.inf, np.float32)
    says = STRENGTH[shoppers.history_types] > 0
    np.minimum.at(newest, row[says], shoppers.history_ages_s[says])
    return np.where(says, shoppers.history_ages_s - newest[row], np.float32(np.inf)).astype(np.float32)
