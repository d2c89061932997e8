"""
Lists to learn from: lessons turned into rows of numbers, query after query.

The rule: a shopper is either learnt from or judged, in every window alike; the same shopper's other window would give
the answer away.

Memory: a list has up to 80 candidates that were not wanted beside those that were, and a window 6,000 queries
(`training.lessons`), so four windows are 2 M rows at most; of 150 columns of float32 these are 1.2 GB, made once and in
their place. Judged lists keep all candidates: a tenth of the shoppers, 1 M rows, 0.6 GB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32
from services.chassis.model import RerankQueries
from services.chassis.signals import owners
from services.reranking.encoding import Encoded
from services.reranking.items import ItemTable
from services.reranking.model import Features
from services.training import headway
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


@dataclass(frozen=True, slots=True)
class Taken:
    """
    Queries of one lesson that become lists: of *chosen* (q,) those with something wanted among their candidates.

    negatives: candidates not wanted kept a query, drawn by chance; None keeps all.
    """

    lesson: Lesson
    chosen: NDArray[np.int64]
    negatives: int | None

    @property
    def gained(self) -> Float32:
        """(n,) gains of the lesson's candidates; by how likely each was seen, where the lesson says so."""
        lesson = self.lesson
        return lesson.gains if lesson.seen is None else lesson.gains * lesson.seen

    @property
    def queries(self) -> NDArray[np.int64]:
        """Of the chosen those that become lists."""
        return self.chosen[self._hits()[self.chosen] > 0]

    def most_rows(self) -> int:
        """Rows the lists have at most; exactly, where the lesson does not say what was seen."""
        queries = self.queries
        sizes = np.diff(self.lesson.queries.candidates.offsets)[queries]
        if self.negatives is not None:
            sizes = np.minimum(sizes, self._hits()[queries] + self.negatives)
        return int(sizes.sum())

    def _hits(self) -> NDArray[np.int64]:
        offsets = self.lesson.queries.candidates.offsets
        hits = np.add.reduceat(np.append(self.gained > 0, False).astype(np.int64), offsets[:-1])
        return hits * (np.diff(offsets) > 0)


class Shelf:
    """
    Where lists are put as they are made: `_BATCH` queries at a time, each row to the place where it stays.

    Held are the rows and one batch; parts that are joined in the end would be held twice.
    """

    def __init__(self, most_rows: int) -> None:
        """*most_rows* of all that will be put. Room that is never used is never touched, and costs nothing."""
        self._most, self._end, self._is_weighted = most_rows, 0, False
        self._dense, self._codes = np.empty((0, 0), np.float32), np.empty((0, 0), np.int64)
        self._gains = np.empty(most_rows, np.float32)
        self._lengths: list[NDArray[np.int64]] = []
        self._weights: list[Float32] = []

    def put(self, taken: Taken, features: Features, items: ItemTable, rng: np.random.Generator) -> None:
        """Make the lists of *taken*. Of a lesson that says what was seen, only that."""
        lesson, gained, chosen = taken.lesson, taken.gained, taken.queries
        self._is_weighted |= lesson.seen is not None and len(chosen) > 0
        for start in range(0, len(chosen), _BATCH):
            queries, places = subset(lesson.queries, chosen[start : start + _BATCH])
            at = None if lesson.item_rows is None else lesson.item_rows[places]
            encoded, gains = features.rows(queries, items, at), gained[places]
            owner, offsets = owners(queries.candidates), queries.candidates.offsets
            weights = np.ones(len(queries.candidates), np.float32)
            if lesson.seen is not None:
                # Encoded among all candidates, as it was served; learnt from where somebody could have wanted it.
                kept = np.flatnonzero(lesson.seen[places] > 0)
                encoded, gains, owner = encoded.take(kept), gains[kept], owner[kept]
                offsets = np.searchsorted(owner, np.arange(len(offsets)))
                weights = _said(gains, lesson.gains[places][kept], owner, len(queries.candidates))
            if taken.negatives is not None:
                kept = _thinned(gains, owner, offsets, taken.negatives, rng)
                encoded, gains, owner = encoded.take(kept), gains[kept], owner[kept]
            self._append(encoded, gains, np.bincount(owner, minlength=len(queries.candidates)), weights)
            headway.told(start + _BATCH, len(chosen))

    def lists(self) -> Lists | None:
        """Everything that was put, in its order; None when there is nothing."""
        if not self._lengths:
            return None
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))])
        weights = np.concatenate(self._weights) if self._is_weighted else None
        return Lists(offsets, self._dense[: self._end], self._codes[: self._end], self._gains[: self._end], weights)

    def _append(self, encoded: Encoded, gains: Float32, lengths: NDArray[np.int64], weights: Float32) -> None:
        if not self._lengths:
            self._dense = np.empty((self._most, encoded.dense.shape[1]), np.float32)
            self._codes = np.empty((self._most, encoded.codes.shape[1]), np.int64)
        own = slice(self._end, self._end + len(gains))
        self._dense[own], self._codes[own], self._gains[own] = encoded.dense, encoded.codes, gains
        self._end = own.stop
        self._lengths.append(lengths)
        self._weights.append(weights)


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
