"""
What this very shopper did to this very item: columns of the re-ranker's rows.

The rule: everything is counted over what the shopper touched, which is little, and looked up by the candidates, which
are many; most of them meet nothing and get one constant row.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32
from protos.tutti.v1 import common_pb2
from services.chassis.model import Shoppers
from services.chassis.signals import DAY_S, owners

NEVER_D = 730.0
"""What "never" counts as, in days: beyond every recency that can be told apart."""

# Half-lives at which what a shopper bought of an item is summed, days: this month, this year.
_HALF_LIVES_D = (30.0, 180.0)

# Groups of events, in column order; what is in none says nothing here.
_GROUPS = (
    (common_pb2.EVENT_TYPE_VIEW, common_pb2.EVENT_TYPE_CLICK),
    (common_pb2.EVENT_TYPE_ADD_TO_CART,),
    (common_pb2.EVENT_TYPE_PURCHASE,),
    (common_pb2.EVENT_TYPE_IMPRESSION,),
)
_BOUGHT, _SHOWN = 2, 3
# Places a pair has in the tables of counts: the groups, what is in none of them, and the context.
_OTHER, _CONTEXT, _PLACES = 4, 5, 6
_GROUP_OF = np.full(256, _OTHER, np.int64)
for _group, _types in enumerate(_GROUPS):
    _GROUP_OF[list(_types)] = _group

WIDTH = 3 * len(_GROUPS) + len(_HALF_LIVES_D) + 2
"""Columns that `columns` gives."""


def columns(shoppers: Shoppers, row: NDArray[np.int64], keys: NDArray[np.int32], out: Float32) -> NDArray[np.bool_]:
    """
    For each candidate: log counts of looks, carts, purchases and impressions of this very item by this shopper, each
    with how near its last one is (in (0, 1], by weeks and by months); decayed sums of purchases, the due ratio of a
    repeated one, and whether the item is in the context.

    Args:
        row: (n,) shopper of each candidate; keys: (n,) its item.
        out: (n, WIDTH), filled.

    Returns:
        (n,) whether the shopper looked at, carried or bought it before.
    """
    out[:] = _untouched()
    history, context = shoppers.history, shoppers.context
    entries = np.concatenate([_ids(owners(history), history.values), _ids(owners(context), context.values)])
    if not len(entries):
        return np.zeros(len(row), np.bool_)
    ids, pair = np.unique(entries, return_inverse=True)
    own = _ids(row, keys)
    at = np.searchsorted(ids, own)
    at[at == len(ids)] = 0
    met = np.flatnonzero(ids[at] == own)
    found = at[met]
    rows, is_touched = _of_pairs(shoppers, pair, len(ids))
    out[met] = rows[found]
    touched = np.zeros(len(row), np.bool_)
    touched[met] = is_touched[found]
    return touched


def _of_pairs(shoppers: Shoppers, pair: NDArray[np.int64], m: int) -> tuple[Float32, NDArray[np.bool_]]:
    """Columns (m, WIDTH) of the m pairs that entries of history and context belong to, and whether they were wanted."""
    n_events = len(shoppers.history.values)
    at, in_context = pair[:n_events], pair[n_events:]
    days = np.maximum(shoppers.history_ages_s, 0) / np.float32(DAY_S)
    group = _GROUP_OF[shoppers.history_types]
    place = at * _PLACES + group
    counts = np.bincount(np.concatenate([place, in_context * _PLACES + _CONTEXT]), minlength=m * _PLACES)
    counts = counts.reshape(m, _PLACES)
    last = np.full(m * _PLACES, NEVER_D, np.float32)
    np.minimum.at(last, place, days)
    last = last.reshape(m, _PLACES)[:, : len(_GROUPS)]
    rows = np.empty((m, WIDTH), np.float32)
    rows[:, 0:12:3] = np.log1p(counts[:, : len(_GROUPS)])
    rows[:, 1:12:3] = 1 / (1 + last / 7)
    rows[:, 2:12:3] = 1 / (1 + last / 60)
    bought = np.flatnonzero(group == _BOUGHT)
    at, days = at[bought], days[bought]
    for i, half_life_d in enumerate(_HALF_LIVES_D):
        rows[:, 12 + i] = np.log1p(np.bincount(at, np.exp2(-days / half_life_d), m))
    # Due: days since the last purchase over the mean days between purchases; 1 means "about now", 0 means no rhythm.
    first = np.zeros(m, np.float32)
    np.maximum.at(first, at, days)
    count, newest = counts[:, _BOUGHT], last[:, _BOUGHT]
    gap = np.where(count > 1, (first - newest) / np.maximum(count - 1, 1), 0)
    rows[:, -2] = np.where(gap > 0.5, np.minimum(newest / np.maximum(gap, 0.5), 4), 0)
    rows[:, -1] = counts[:, _CONTEXT] > 0
    return rows, np.asarray((counts[:, :_SHOWN] > 0).any(1), np.bool_)


def _ids(row: NDArray[np.int64], keys: NDArray[np.int32]) -> NDArray[np.int64]:
    """One number for each (shopper, item)."""
    ids: NDArray[np.int64] = (row << 32) + keys.astype(np.int64)
    return ids


@cache
def _untouched() -> Float32:
    """The row of a pair that never met."""
    never = np.float32(NEVER_D)
    row = np.zeros(WIDTH, np.float32)
    row[1:12:3], row[2:12:3] = 1 / (1 + never / 7), 1 / (1 + never / 60)
    return row
