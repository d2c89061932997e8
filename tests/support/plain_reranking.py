"""
The re-ranker's rows in plain words, query by query and column by column: what the fast ones are compared with.

The rule: written for reading and kept as the formula was when it was decided. It is slow, and nothing imports it but
tests.
"""

import numpy as np

from protos.tutti.v1 import common_pb2
from services.chassis.affinity import NAMES, standardised
from services.chassis.signals import DAY_S, owners
from services.reranking.encoding import Encoded, signed_log
from tests.support.dense_closeness import closeness

_RRF_K = 60.0
_NEVER_D = 730.0
_HALF_LIVES_D = (30.0, 180.0)
_CONTEXT_STRENGTH = 10.0
_PLACEMENTS = (
    common_pb2.PLACEMENT_HOME,
    common_pb2.PLACEMENT_ITEM,
    common_pb2.PLACEMENT_CART,
    common_pb2.PLACEMENT_CATEGORY,
)
_LOOKED = (common_pb2.EVENT_TYPE_VIEW, common_pb2.EVENT_TYPE_CLICK)
_BOUGHT = (common_pb2.EVENT_TYPE_PURCHASE,)


class PlainItems:
    """Items as columns (n_items, k) and (n_items, c), and a last one of which nothing is known."""

    def __init__(self, layout, numeric, categorical):
        self.numeric = np.vstack([numeric, np.full((1, numeric.shape[1]), np.nan, np.float32)]).astype(np.float32)
        self.categorical = np.vstack([categorical, np.full((1, categorical.shape[1]), "", object)])
        self.encoded = layout.item.encode(self.numeric, self.categorical)

    def rows_of(self, keys):
        last = len(self.numeric) - 1
        return np.where((keys >= 0) & (keys < last), keys, last).astype(np.int64)


class PlainFeatures:
    """`services.reranking.model.Features`, the slow way."""

    def __init__(self, layout, affinities):
        self.layout, self.affinities = layout, affinities

    def rows(self, queries, items, at=None):
        """
        dense (n, F) float32 and codes (n, C) int64 for the n candidates of q queries.

        Column order depends on the layout alone.

        at: (n,) rows of *items* that candidates read in place of their keys' own: items as they once were.
        """
        row = owners(queries.candidates)
        at = items.rows_of(queries.candidates.values) if at is None else at
        user = self.layout.user.encode(queries.user_numeric, queries.user_categorical)
        item = items.encoded.take(at)
        user_rows = user.take(row)
        same, near = self._crosses(queries, items, row, at)
        pairs = _pairs(queries.shoppers, row, queries.candidates.values)
        dense = [
            _sources(self.layout.sources, queries, row),
            user_rows.dense,
            item.dense,
            same,
            near,
            pairs,
            self._closeness(queries),
            _query(queries.shoppers)[row],
            _known_share(pairs, row, len(queries.candidates))[row],
        ]
        return Encoded(np.hstack(dense).astype(np.float32), np.hstack([user_rows.codes, item.codes]).astype(np.int64))

    def _crosses(self, queries, items, row, at):
        same = np.zeros((len(row), len(self.layout.same)), np.float32)
        for i, (u, v) in enumerate(self.layout.same):
            words = queries.user_categorical[:, u][row]
            same[:, i] = (words == items.categorical[:, v][at]) & (words != "")
        near = np.zeros((len(row), 2 * len(self.layout.near)), np.float32)
        for i, (u, v) in enumerate(self.layout.near):
            gap = signed_log(items.numeric[:, v][at]) - signed_log(queries.user_numeric[:, u][row])
            near[:, 2 * i] = np.nan_to_num(gap, nan=0.0)
            near[:, 2 * i + 1] = np.nan_to_num(np.abs(gap), nan=0.0)
        return same, near

    def _closeness(self, queries):
        """
        For each method its closeness, standardised within the query, and the logarithm of the rank there; then the sum
        and the largest of the standardised ones.
        """
        keys, offsets = queries.candidates.values, queries.candidates.offsets
        methods = len(NAMES)
        out = np.zeros((len(keys), 3 * methods + 2), np.float32)
        for i in range(len(queries.shoppers)):
            values = closeness(self.affinities, queries.shoppers, _CONTEXT_STRENGTH, i).astype(np.float32)
            own = slice(offsets[i], offsets[i + 1])
            known = (keys[own] >= 0) & (keys[own] < self.affinities.n_items)
            if not known.any():
                continue
            value = values[:, np.where(known, keys[own], 0)] * known
            z = standardised(value)
            order = np.argsort(-value, axis=1, kind="stable")
            rank = np.empty_like(order)
            np.put_along_axis(rank, order, np.arange(value.shape[1])[None], axis=1)
            # What a method knows nothing of shares the last place.
            rank = np.where(value > 0, rank, value.shape[1])
            summary = np.vstack([z.sum(0), z.max(0)])
            out[own] = np.vstack([signed_log(value), z, np.log1p(rank), summary]).T
        return out


def _sources(names, queries, row):
    """A source's score, z-score within the query, reciprocal rank and whether it found the item; then all together."""
    n, q = len(row), len(queries.candidates)
    found_by = np.zeros(n, np.float32)
    fused, total_z = np.zeros(n, np.float32), np.zeros(n, np.float32)
    columns = []
    for name in names:
        if name in queries.sources:
            place = queries.sources.index(name)
            score, rank = queries.source_scores[:, place], queries.source_ranks[:, place].astype(np.float32)
        else:
            score, rank = np.full(n, np.nan, np.float32), np.zeros(n, np.float32)
        found = np.isfinite(score)
        value = np.where(found, score, 0.0)
        count = np.maximum(np.bincount(row, found, q), 1)
        mean = np.bincount(row, value, q) / count
        variance = np.bincount(row, np.where(found, (value - mean[row]) ** 2, 0), q) / count
        # What a source did not find is worse than the worst it found: two deviations under its mean.
        z = np.where(found, (value - mean[row]) / np.sqrt(variance[row] + 1e-9), -2.0)
        reciprocal = np.where(rank > 0, _RRF_K / (_RRF_K + rank), 0.0)
        columns += [value, np.clip(z, -5, 5), reciprocal, found]
        found_by += found
        fused += reciprocal
        total_z += np.clip(z, -5, 5)
    return np.column_stack([*columns, found_by, fused, total_z]).astype(np.float32)


def _pairs(shoppers, row, keys):
    """
    For each candidate: log counts of looks, carts and purchases of this very item by this shopper, decayed sums,
    days since the last of each (as a nearness in (0, 1]), the due ratio of a repeated purchase, and whether it is in
    the context.
    """
    history = shoppers.history
    who = owners(history)
    ids, where = np.unique((row << 32) + keys.astype(np.int64), return_inverse=True)
    own = (who << 32) + history.values.astype(np.int64)
    at = np.minimum(np.searchsorted(ids, own), max(len(ids) - 1, 0))
    met = (ids[at] == own) if len(ids) else np.zeros(len(own), bool)
    at, days = at[met], np.maximum(shoppers.history_ages_s[met], 0) / np.float32(DAY_S)
    types, m = shoppers.history_types[met], len(ids)
    columns = []
    for group in (_LOOKED, (common_pb2.EVENT_TYPE_ADD_TO_CART,), _BOUGHT, (common_pb2.EVENT_TYPE_IMPRESSION,)):
        chosen = np.isin(types, group)
        count = np.bincount(at[chosen], minlength=m)
        last = np.full(m, _NEVER_D, np.float32)
        np.minimum.at(last, at[chosen], days[chosen])
        columns += [np.log1p(count), 1 / (1 + last / 7), 1 / (1 + last / 60)]
    bought = np.isin(types, _BOUGHT)
    for half_life_d in _HALF_LIVES_D:
        columns.append(np.log1p(np.bincount(at[bought], np.exp2(-days[bought] / half_life_d), m)))
    # Due: days since the last purchase over the mean days between purchases; 1 means "about now", 0 means no rhythm.
    first, last = np.zeros(m, np.float32), np.full(m, _NEVER_D, np.float32)
    np.maximum.at(first, at[bought], days[bought])
    np.minimum.at(last, at[bought], days[bought])
    count = np.bincount(at[bought], minlength=m)
    gap = np.where(count > 1, (first - last) / np.maximum(count - 1, 1), 0)
    columns.append(np.where(gap > 0.5, np.minimum(last / np.maximum(gap, 0.5), 4), 0))
    context = shoppers.context
    looked_at = np.isin(ids, (owners(context) << 32) + context.values.astype(np.int64))
    columns.append(looked_at)
    return np.column_stack(columns).astype(np.float32)[where]


def _query(shoppers):
    """What is the same for all candidates of a query (q, …): placement, size of history and context, time away."""
    placements = np.column_stack([shoppers.placements == placement for placement in _PLACEMENTS])
    events = np.diff(shoppers.history.offsets)
    away = np.full(len(shoppers), _NEVER_D, np.float32)
    np.minimum.at(away, owners(shoppers.history), np.maximum(shoppers.history_ages_s, 0) / np.float32(DAY_S))
    looked_at = np.diff(shoppers.context.offsets)
    return np.column_stack([placements, np.log1p(events), np.log1p(away), np.log1p(looked_at)]).astype(np.float32)


def _known_share(pairs, row, n_queries):
    """
    Part of a query's candidates that the shopper touched before (q, 1): none where what was seen is left out, and then
    all that counts is how well new things are ordered.
    """
    touched = (pairs[:, :9:3] > 0).any(1)
    share = np.bincount(row, touched, n_queries) / np.maximum(np.bincount(row, minlength=n_queries), 1)
    return share[:, None].astype(np.float32)
