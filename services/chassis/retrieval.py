"""
Inner-product retrieval over item vectors, for every generator that has them: FAISS in, candidates out.

The rule: whatever the index proposes, `exclude` and `within` are obeyed here, once, for all generators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.artefacts import Artefact
from services.chassis.model import Candidates, GenerateQueries

VECTORS_FILE = "item_vectors.npy"
KEYS_FILE = "item_keys.npy"
INDEX_FILE = "index.faiss"

# Exact up to here, HNSW above. Derived: one thread streams a flat index of 100 k × 64 float32 (25 MB) in a few
# milliseconds, a tenth of a 100 ms budget; beyond that it would grow with the catalogue, and HNSW does not.
EXACT_UP_TO = 100_000
# Borrowed from FAISS's own guidance for recall above 0.95: 32 links, construction 200, search 128.
_HNSW_LINKS, _HNSW_CONSTRUCTION, _HNSW_SEARCH = 32, 200, 128


def write_index(out: Path, vectors: Float32, keys: NDArray[np.int32], prefix: str = "") -> None:
    """
    Write item *vectors* (n, d) and the item *keys* (n,) they belong to; above EXACT_UP_TO items the index too.

    *prefix* goes before the files' names, for an artefact with more than one index.

    A flat index is its vectors, so only HNSW, which is slow to build, is a file of its own.
    """
    np.save(out / f"{prefix}{VECTORS_FILE}", np.ascontiguousarray(vectors, np.float32), allow_pickle=False)
    np.save(out / f"{prefix}{KEYS_FILE}", keys.astype(np.int32), allow_pickle=False)
    if len(keys) > EXACT_UP_TO:
        # One thread: insertion order decides the graph, and an artefact must come out the same twice.
        faiss.omp_set_num_threads(1)
        index = faiss.IndexHNSWFlat(vectors.shape[1], _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _HNSW_CONSTRUCTION
        index.add(np.ascontiguousarray(vectors, np.float32))
        faiss.write_index(index, str(out / f"{prefix}{INDEX_FILE}"))


class VectorIndex:
    """
    Item vectors by key, and the search over them.

    vectors  (n, d) float32; keys (n,) int32, the items that can be found; d may be 0 only when n is 0
    """

    def __init__(self, vectors: Float32, keys: NDArray[np.int32], index: faiss.Index | None = None) -> None:
        faiss.omp_set_num_threads(1)
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self.keys = keys
        if index is None:
            index = faiss.IndexFlatIP(max(self.vectors.shape[1], 1))
            if len(keys):
                index.add(self.vectors)
        else:
            faiss.ParameterSpace().set_index_parameter(index, "efSearch", _HNSW_SEARCH)
        self._index = index
        # key → row of `vectors`, -1 for a key that has none
        self._row_of = np.full(int(keys.max()) + 1 if len(keys) else 0, -1, np.int64)
        self._row_of[keys] = np.arange(len(keys))

    @classmethod
    def load(cls, artefact: Artefact, prefix: str = "") -> VectorIndex:
        """Read what `write_index` wrote under the same *prefix*."""
        index = None
        if f"{prefix}{INDEX_FILE}" in artefact.manifest.files:
            index = faiss.read_index(str(artefact.file(f"{prefix}{INDEX_FILE}")))
        return cls(artefact.array(f"{prefix}{VECTORS_FILE}"), artefact.array(f"{prefix}{KEYS_FILE}"), index)

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
            scores, places = self._index.search(
                np.ascontiguousarray(towers[rows], np.float32), min(wanted, len(self)), params=self._only(alive)
            )
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

    def _only(self, alive: NDArray[np.bool_] | None) -> Any:
        """What tells the index to leave the other rows out; nothing in most cases, which is free."""
        if alive is None:
            return None
        # Its types are those of C++; Python's wrappers take arrays and names.
        library: Any = faiss
        among = library.IDSelectorBitmap(np.packbits(alive, bitorder="little"))
        if isinstance(self._index, library.IndexHNSW):
            return library.SearchParametersHNSW(sel=among, efSearch=_HNSW_SEARCH)
        return library.SearchParameters(sel=among)

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
