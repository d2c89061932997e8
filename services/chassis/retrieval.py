"""
Inner-product retrieval over item vectors, for every generator that has them: FAISS in, candidates out.

The rule: whatever the index proposes, `exclude` and `within` are obeyed here, once, for all generators.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.artefacts import Artefact
from services.chassis.index_choice import Cells, Index, choose
from services.chassis.model import Candidates, GenerateQueries

VECTORS_FILE = "item_vectors.npy"
KEYS_FILE = "item_keys.npy"
CELLS_FILE = "cells.npz"


def write_index(
    out: Path,
    vectors: Float32,
    keys: NDArray[np.int32],
    prefix: str = "",
    towers: Float32 | None = None,
    seed: int = 7,
) -> dict[str, float]:
    """
    Write item *vectors* (n, d) and the item *keys* (n,) they belong to; the cells they are searched by where that pays.

    Args:
        prefix: goes before the files' names, for an artefact with more than one index.
        towers: (q, d) queries as serving will make them, to measure with; None: made of items.

    Returns:
        What was chosen and measured, for the manifest: `index_choice.choose`.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    np.save(out / f"{prefix}{VECTORS_FILE}", vectors, allow_pickle=False)
    np.save(out / f"{prefix}{KEYS_FILE}", keys.astype(np.int32), allow_pickle=False)
    cells, figures = choose(vectors, towers, seed)
    if cells is not None:
        cells.save(out / f"{prefix}{CELLS_FILE}")
    return {f"{prefix}{name}": figure for name, figure in figures.items()}


class VectorIndex:
    """
    Item vectors by key, and the search over them.

    vectors  (n, d) float32; keys (n,) int32, the items that can be found; d may be 0 only when n is 0
    """

    def __init__(self, vectors: Float32, keys: NDArray[np.int32], cells: Cells | None = None) -> None:
        """*cells*: what `index_choice.choose` chose; None searches exactly."""
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self.keys = keys
        self._index = Index(self.vectors, cells)
        # key → row of `vectors`, -1 for a key that has none
        self._row_of = np.full(int(keys.max()) + 1 if len(keys) else 0, -1, np.int64)
        self._row_of[keys] = np.arange(len(keys))

    @classmethod
    def load(cls, artefact: Artefact, prefix: str = "") -> VectorIndex:
        """Read what `write_index` wrote under the same *prefix*."""
        cells = None
        if (name := f"{prefix}{CELLS_FILE}") in artefact.manifest.files:
            cells = Cells.of_arrays(artefact.arrays(name))
        return cls(artefact.array(f"{prefix}{VECTORS_FILE}"), artefact.array(f"{prefix}{KEYS_FILE}"), cells)

    def __len__(self) -> int:
        return len(self.keys)

    def rows_of(self, keys: NDArray[np.integer]) -> NDArray[np.int64]:
        """Row of `vectors` for each key, -1 where a key is unknown here."""
        known = (keys >= 0) & (keys < len(self._row_of))
        return (
            np.where(known, self._row_of[np.where(known, keys, 0)], -1) if len(self._row_of) else np.full(len(keys), -1)
        )

    def candidates(
        self,
        queries: GenerateQueries,
        towers: Float32,
        speaks: NDArray[np.bool_],
        alive: NDArray[np.bool_] | None = None,
    ) -> Candidates:
        """
        The best items for each user vector.

        Args:
            towers: (q, d) user vectors.
            speaks: (q,) whether the model can say anything about this shopper; otherwise the row is empty.
            alive: (n,) which rows of `vectors` may be found; None: all.
        """
        found: list[tuple[NDArray[np.int32], Float32]] = []
        excluded = np.diff(queries.exclude.offsets)
        bounded = np.diff(queries.within.offsets) > 0
        searched = speaks & ~bounded & (len(self) > 0)
        rows = np.flatnonzero(searched)
        if len(rows):
            wanted = int((queries.counts[rows] + excluded[rows]).max())
            scores, places = self._index.search(towers[rows], wanted, alive)
            # An index finds them in order; more is to do only where equals stand side by side or too few were found.
            in_order = (places[:, -1] >= 0) & (scores[:, 1:] < scores[:, :-1]).all(1) & np.isfinite(scores).all(1)
        place = {row: i for i, row in enumerate(rows.tolist())}
        for i in range(len(queries.shoppers)):
            if i in place:
                at, score = places[place[i]], scores[place[i]]
                exclude, count = queries.exclude.row(i), int(queries.counts[i])
                if in_order[place[i]] and not len(exclude):
                    found.append((self.keys[at[:count]], score[:count]))
                    continue
                at, score = at[at >= 0], score[at >= 0]
                found.append(self._finish(self.keys[at], score, exclude, count))
            elif speaks[i] and bounded[i]:
                keys = np.unique(queries.within.row(i))
                at = self.rows_of(keys)
                stays = at >= 0 if alive is None else (at >= 0) & alive[at]
                keys, at = keys[stays], at[stays]
                score = self.vectors[at] @ towers[i]
                found.append(self._finish(keys, score, queries.exclude.row(i), int(queries.counts[i])))
            else:
                found.append((np.empty(0, np.int32), np.empty(0, np.float32)))
        return Candidates(
            Rows.of([keys for keys, _ in found]), np.concatenate([s for _, s in found] or [np.empty(0, np.float32)])
        )

    @staticmethod
    def _finish(
        keys: NDArray[np.int32], scores: Float32, exclude: NDArray[np.int32], count: int
    ) -> tuple[NDArray[np.int32], Float32]:
        kept = np.isfinite(scores)
        if len(exclude):
            kept &= ~np.isin(keys, exclude)
        keys, scores = keys[kept], scores[kept]
        # Ties by key, so that neither the batch nor the index decides an order that scores leave open.
        order = np.lexsort((keys, -scores))[:count]
        return keys[order].astype(np.int32), scores[order].astype(np.float32)
