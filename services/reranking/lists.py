"""
Lists to learn from: lessons turned into rows of numbers, query after query.

The rule: a shopper is either learnt from or judged, in every window alike; the same shopper's other window would give
the answer away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32
from services.chassis.model import RerankQueries
from services.chassis.signals import owners
from services.reranking.items import ItemTable
from services.reranking.model import Features
from services.training.lessons import Lesson

_BATCH = 256
"""Queries encoded at once. Derived: 256 lists of 400 rows and 120 columns are 50 MB."""


@dataclass(frozen=True, slots=True)
class Lists:
    """
    q lists, flat: offsets (q + 1,), dense (n, F) float32, codes (n, C), gains (n,) float32, 0 for not wanted.

    weights: (q,) float32 how much each list counts; None: all alike
    """

    offsets: NDArray[np.int64]
    dense: Float32
    codes: NDArray[np.int64]
    gains: Float32
    weights: Float32 | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def only(self, chosen: NDArray[np.bool_]) -> Lists:
        """The *chosen* (q,) lists, in their order."""
        rows = np.repeat(chosen, self.lengths)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[chosen])])
        weights = None if self.weights is None else self.weights[chosen]
        return Lists(offsets, self.dense[rows], self.codes[rows], self.gains[rows], weights)


def judged(users: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """(q,) whether these shoppers are judged and not learnt from: a hash, so that it is the same in every window."""
    return (users * 2_654_435_761 % 1000) < share * 1000


def of_lesson(
    features: Features,
    items: ItemTable,
    lesson: Lesson,
    chosen: NDArray[np.int64],
    negatives: int | None,
    rng: np.random.Generator,
) -> Lists | None:
    """
    Lists of the *chosen* queries that have something wanted among their candidates; None when there are none.

    Of a lesson that says what was seen, only that, and gains by how likely it was (`Lesson.seen`).

    negatives: candidates not wanted kept a query, drawn by chance; None keeps all.
    """
    rows, seen = lesson.queries.candidates, lesson.seen
    gained = lesson.gains if seen is None else lesson.gains * seen
    hits = np.add.reduceat(np.append(gained > 0, False), rows.offsets[:-1]) * (np.diff(rows.offsets) > 0)
    chosen = chosen[hits[chosen] > 0] if len(chosen) else chosen
    parts: list[tuple[Float32, NDArray[np.int64], Float32]] = []
    lengths: list[NDArray[np.int64]] = []
    weights: list[Float32] = []
    for start in range(0, len(chosen), _BATCH):
        queries, places = subset(lesson.queries, chosen[start : start + _BATCH])
        at = None if lesson.item_rows is None else lesson.item_rows[places]
        encoded, gains = features.rows(queries, items, at), gained[places]
        owner, offsets = owners(queries.candidates), queries.candidates.offsets
        if seen is not None:
            # Encoded among all candidates, as it was served; learnt from where somebody could have wanted it.
            kept = np.flatnonzero(seen[places] > 0)
            encoded, gains, owner = encoded.take(kept), gains[kept], owner[kept]
            offsets = np.searchsorted(owner, np.arange(len(offsets)))
            weights.append(_said(gains, lesson.gains[places][kept], owner, len(queries.candidates)))
        if negatives is not None:
            kept = _thinned(gains, owner, offsets, negatives, rng)
            encoded, gains, owner = encoded.take(kept), gains[kept], owner[kept]
        parts.append((encoded.dense, encoded.codes, gains))
        lengths.append(np.bincount(owner, minlength=len(queries.candidates)))
    if not parts:
        return None
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    dense, codes, all_gains = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Lists(offsets, dense, codes, all_gains, np.concatenate(weights) if weights else None)


def joined(parts: Sequence[Lists | None]) -> Lists | None:
    """One after the other; None when there is none at all."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return Lists(
        np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in known]))]),
        np.concatenate([part.dense for part in known]),
        np.concatenate([part.codes for part in known]),
        np.concatenate([part.gains for part in known]),
        np.concatenate([_weights(part) for part in known]) if any(p.weights is not None for p in known) else None,
    )


def _weights(part: Lists) -> Float32:
    return np.ones(len(part), np.float32) if part.weights is None else part.weights


def _said(gained: Float32, gains: Float32, owner: NDArray[np.int64], q: int) -> Float32:
    """(q,) how much more is said by a list than was done to it: what stood where few look counts for those few."""
    said = np.bincount(owner, gained, q) / np.maximum(np.bincount(owner, gains, q), 1e-9)
    return said.astype(np.float32)


def subset(queries: RerankQueries, chosen: NDArray[np.int64]) -> tuple[RerankQueries, NDArray[np.int64]]:
    """These queries alone, and where their candidates stood."""
    candidates, where = queries.candidates.take(chosen)
    return (
        RerankQueries(
            queries.shoppers.take(chosen),
            candidates,
            queries.sources,
            queries.source_scores[where],
            queries.source_ranks[where],
            queries.user_numeric[chosen],
            queries.user_categorical[chosen],
            queries.feature_digest,
        ),
        where,
    )


def _thinned(
    gains: Float32, owner: NDArray[np.int64], offsets: NDArray[np.int64], negatives: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Rows kept: all that was wanted, and the first few of each query's rest in a random order."""
    lot = np.where(gains > 0, -1.0, rng.random(len(gains)))
    order = np.lexsort((lot, owner))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - offsets[owner[order]]
    wanted = np.bincount(owner, gains > 0, len(offsets) - 1)
    return np.flatnonzero(place < wanted[owner] + negatives)
