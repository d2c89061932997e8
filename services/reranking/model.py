"""
One row of numbers for each candidate: the only place where the re-ranker's inputs are made, in training and serving.

Pure numpy. The rule: `Features.rows` sees what a request carries and what the artefact holds, nothing else, so
what training taught is what serving asks. Blocks, in order: sources, the shopper, the item, shopper × item, the pair,
closeness, the query. Closeness is computed here for every candidate and not taken from who proposed it, so a lost
source changes which candidates there are, never what is known of one.

One matrix for the whole batch is filled block by block; what belongs to an item is encoded when it changes
(`items.py`), what belongs to a shopper once a call. Nothing is done query by query, nothing in the catalogue's size.
tests/support/plain_reranking.py says the same in plain words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32
from protos.tutti.v1 import common_pb2
from services.chassis.affinity import Affinities
from services.chassis.model import RerankQueries, Shoppers
from services.chassis.signals import DAY_S, owners
from services.reranking import closeness, pairs
from services.reranking.encoding import Encoded, signed_log
from services.reranking.items import ItemTable, Layout

# Reciprocal rank fusion's flattening constant; borrowed from Cormack et al., SIGIR 2009, like the orchestrator's.
_RRF_K = 60.0
# What an item on the page or in the basket counts beside the history; a purchase of now counts 5.
_CONTEXT_STRENGTH = 10.0
_PLACEMENTS = np.array(
    [
        common_pb2.PLACEMENT_HOME,
        common_pb2.PLACEMENT_ITEM,
        common_pb2.PLACEMENT_CART,
        common_pb2.PLACEMENT_CATEGORY,
    ],
    np.uint8,
)
KNOWN_SHARE = -1
"""Column of `Features.rows` that says how much of its list the shopper touched before; 0 for lists of new things."""


@dataclass(frozen=True)
class Features:
    """The feature function with everything it needs: the layout and what is close to what."""

    layout: Layout
    affinities: Affinities

    def rows(self, queries: RerankQueries, items: ItemTable, at: NDArray[np.int64] | None = None) -> Encoded:
        """
        dense (n, F) float32 and codes (n, C) int64 for the n candidates of q queries.

        Column order depends on the layout alone.

        at: (n,) the items that candidates read in place of their own: keys of *items* again, of a table that holds
            items as they once were.
        """
        keys, n = queries.candidates.values, len(queries.candidates.values)
        row = owners(queries.candidates)
        at = np.asarray(items.rows_of(keys if at is None else at), np.int64)
        user = self.layout.user.encode(queries.user_numeric, queries.user_categorical)
        numbers, gaps = items.numbers[at], self._gaps(queries)
        widths = {
            "sources": 4 * len(self.layout.sources) + 3,
            "user": user.dense.shape[1],
            "item": numbers.shape[1] - len(self.layout.near),
            "same": len(self.layout.same),
            "near": 2 * len(self.layout.near),
            "pairs": pairs.WIDTH,
            "closeness": closeness.WIDTH,
            "query": len(_PLACEMENTS) + 3,
            "known": 1,
        }
        ends = np.cumsum(list(widths.values()))
        dense = np.empty((n, int(ends[-1])), np.float32)
        block = {
            name: dense[:, end - width : end] for (name, width), end in zip(widths.items(), ends.tolist(), strict=True)
        }
        _sources(self.layout.sources, queries, row, block["sources"])
        block["user"][:] = user.dense[row]
        block["item"][:] = numbers[:, : widths["item"]]
        block["same"][:] = items.words[at] == items.word_codes(queries.user_categorical, self.layout.same)[row]
        gap = np.nan_to_num(numbers[:, widths["item"] :] - gaps[row], nan=0.0)
        block["near"][:, 0::2], block["near"][:, 1::2] = gap, np.abs(gap)
        touched = pairs.columns(queries.shoppers, row, keys, block["pairs"])
        values = self.affinities.at(queries.shoppers, queries.candidates, _CONTEXT_STRENGTH)
        known = (keys >= 0) & (keys < self.affinities.n_items)
        closeness.columns(values, known, queries.candidates, block["closeness"])
        block["query"][:] = _query(queries.shoppers)[row]
        q = len(queries.candidates)
        share = np.bincount(row, touched, q) / np.maximum(np.diff(queries.candidates.offsets), 1)
        block["known"][:, 0] = share[row]
        codes = np.empty((n, user.codes.shape[1] + items.codes.shape[1]), np.int64)
        codes[:, : user.codes.shape[1]], codes[:, user.codes.shape[1] :] = user.codes[row], items.codes[at]
        return Encoded(dense, codes)

    def _gaps(self, queries: RerankQueries) -> NDArray[Any]:
        """(q, near) the shopper's side of each difference."""
        return signed_log(queries.user_numeric[:, [u for u, _ in self.layout.near]])


def _sources(names: Sequence[str], queries: RerankQueries, row: NDArray[np.int64], out: Float32) -> None:
    """A source's score, z-score within the query, reciprocal rank and whether it found the item; then all together."""
    n, q = len(row), len(queries.candidates)
    found_by, fused, total_z = np.zeros(n), np.zeros(n), np.zeros(n)
    for i, name in enumerate(names):
        columns = out[:, 4 * i : 4 * i + 4]
        if name not in queries.sources:
            columns[:], total_z = (0, -2, 0, 0), total_z - 2
            continue
        place = queries.sources.index(name)
        score, rank = queries.source_scores[:, place], queries.source_ranks[:, place].astype(np.float32)
        found = np.isfinite(score)
        value = np.where(found, score, 0.0)
        count = np.maximum(np.bincount(row, found, q), 1)
        centred = np.where(found, value - (np.bincount(row, value, q) / count)[row], 0)
        scale = 1 / np.sqrt(np.bincount(row, centred * centred, q) / count + 1e-9)
        # What a source did not find is worse than the worst it found: two deviations under its mean.
        z = np.where(found, np.clip(centred * scale[row], -5, 5), -2.0)
        reciprocal = np.where(rank > 0, _RRF_K / (_RRF_K + rank), 0.0)
        columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3] = value, z, reciprocal, found
        found_by += found
        fused += reciprocal
        total_z += z
    out[:, -3], out[:, -2], out[:, -1] = found_by, fused, total_z


def _query(shoppers: Shoppers) -> Float32:
    """What is the same for all candidates of a query (q, …): placement, size of history and context, time away."""
    placements = shoppers.placements[:, None] == _PLACEMENTS
    events = np.diff(shoppers.history.offsets)
    away = np.full(len(shoppers), pairs.NEVER_D, np.float32)
    np.minimum.at(away, owners(shoppers.history), np.maximum(shoppers.history_ages_s, 0) / np.float32(DAY_S))
    looked_at = np.diff(shoppers.context.offsets)
    return np.column_stack([placements, np.log1p(events), np.log1p(away), np.log1p(looked_at)]).astype(np.float32)
