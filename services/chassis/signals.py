"""
How much an event says: strength by what was done, halved with age.

Shared by every model, in training and in serving alike, so that "a purchase last week" means one thing.
"""

from __future__ import annotations

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


def weighted_items(
    shoppers: Shoppers, n_items: int, half_life_s: float, context_strength: float, strongest: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32]:
    """
    Everything that speaks for a shopper's taste, one entry a (shopper, item) pair.

    History entries of the same item add up, or the *strongest* alone counts; every context item counts
    *context_strength*. Keys outside
    [0, n_items) and entries without strength are left out. Ages count from the shopper's own newest event: who comes
    back after a year is known as well as on the day they left.

    Returns:
        rows (m,), keys (m,), weights (m,) float32 > 0; sorted by row, then key.
    """
    history, context = shoppers.history, shoppers.context
    rows = np.concatenate([owners(history), owners(context)])
    keys = np.concatenate([history.values, context.values]).astype(np.int64)
    weights = np.concatenate(
        [
            strengths(shoppers.history_types, _since_newest(shoppers), half_life_s),
            np.full(len(context.values), context_strength, np.float32),
        ]
    )
    # Below a millionth of a view nothing can change an order, but a solve could lose its footing.
    usable = (keys >= 0) & (keys < n_items) & (weights > 1e-6)
    pairs, inverse = np.unique(rows[usable] * n_items + keys[usable], return_inverse=True)
    if strongest:
        counted = np.zeros(len(pairs), np.float32)
        np.maximum.at(counted, inverse, weights[usable])
    else:
        counted = np.bincount(inverse, weights[usable], len(pairs)).astype(np.float32)
    return pairs // max(n_items, 1), pairs % max(n_items, 1), counted


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
