"""
How a catalogue's vectors are searched: all of them, or the few cells nearest to the query, by measured recall.

Cells are k-means regions of the vectors as they are; a query visits those whose centres it has the largest inner
products with. How many is raised until queries find what an exact search finds. The rule: whether and how is decided
by counts (items found, vectors read), never by a clock, so that the same vectors give the same artefact; times are
measured too, and only told. Why no graph of neighbours: docs/adr/0045-cells-by-measured-recall.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32

# Its types are those of C++; Python's wrappers take arrays and names.
_FAISS: Any = faiss

EXACT_UP_TO = 10_000
"""Items that are always searched exactly. Measured: 0.1 ms a query at 64 dimensions, 0.7 ms at 329."""

AIM = 0.995
"""Recall that the queries which choose must reach, so that others find 0.99 of what an exact search does."""

ASKED = (100, 300, 1_000)
"""Candidates for which the cells are counted: both quotas of the default settings, and the most the wire can ask."""

QUERIES = 256
"""Queries to measure with; half choose, the other half judge. Derived: recall is then known to about ±0.002."""

_CELLS_PER_ROOT = 2
"""
Cells are this many times √items. Measured with 1, 2 and 4 at 37,000 to 200,000 items of 64 and 329 dimensions: 2 reads
up to a quarter less than 1, and 4 hardly less than 2, but takes three times as long to make.
"""

_POINTS_A_CELL = 64
"""Vectors that k-means looks at for each of its cells. Borrowed: between FAISS's bounds of 39 and 256."""

_LARGEST_SHARE = 0.5
"""Of the vectors read, above which cells are not worth having: scattered reads of half cost what all cost in a row."""

_JUDGED_AT = ASKED[1]


@dataclass(frozen=True, slots=True)
class Cells:
    """
    Which cell each vector is in, and how many cells a query visits.

    centres  (c, d) float32; cell_of (n,) int32
    asked    (a,) int32 rising: candidates asked for; probes (a,) int32 cells to be visited for so many
    """

    centres: Float32
    cell_of: NDArray[np.int32]
    asked: NDArray[np.int32]
    probes: NDArray[np.int32]

    def visited(self, wanted: float) -> int:
        """Cells to be visited for *wanted* candidates; all of them for more than was measured, which is exact."""
        at = int(np.searchsorted(self.asked, wanted))
        return int(self.probes[at]) if at < len(self.asked) else len(self.centres)

    def save(self, path: Path) -> None:
        """Write *path*, an npz."""
        np.savez(path, centres=self.centres, cell_of=self.cell_of, asked=self.asked, probes=self.probes)

    @classmethod
    def of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Cells:
        """What `save` wrote, read."""
        return cls(arrays["centres"], arrays["cell_of"], arrays["asked"], arrays["probes"])


@dataclass(frozen=True, slots=True, eq=False)
class _Among:
    """Rows that may be found: the mask (n,), FAISS's form of it, and their share of all."""

    alive: NDArray[np.bool_] | None = None
    selector: Any = None
    share: float = 1.0


_EVERYTHING = _Among()


class Index:
    """
    Search by inner product over vectors (n, d) float32, exact without *cells*. One thread.

    It holds a copy of the vectors: 4·d bytes an item, and 8 more with cells.
    """

    def __init__(self, vectors: Float32, cells: Cells | None = None) -> None:
        faiss.omp_set_num_threads(1)
        self.cells = cells
        self._n = len(vectors)
        self._among = _EVERYTHING
        d = max(vectors.shape[1], 1)
        self._index: Any = faiss.IndexFlatIP(d)
        if cells is not None:
            self._centres = faiss.IndexFlatIP(d)
            self._centres.add(cells.centres)
            self._index = _filled(self._centres, vectors, cells.cell_of)
        elif len(vectors):
            self._index.add(vectors)

    def search(
        self, towers: Float32, wanted: int, alive: NDArray[np.bool_] | None = None
    ) -> tuple[Float32, NDArray[np.int64]]:
        """
        The *wanted* nearest vectors of each tower (q, d): scores and rows (q, wanted), best first, row -1 for none.

        Args:
            alive: (n,) which rows may be found; None: all. Who is left out makes the others lie further apart, and more
                cells are visited for as many.
        """
        wanted = min(wanted, self._n)
        towers = np.ascontiguousarray(towers, np.float32)
        among = self._selected(alive)
        if self.cells is None:
            params = _FAISS.SearchParameters(sel=among.selector) if among.selector is not None else None
            return self._index.search(towers, wanted, params=params)  # type: ignore[no-any-return]
        probes, every = self.cells.visited(wanted / among.share), len(self.cells.centres)
        scores, rows = self.visiting(towers, wanted, probes, among.selector)
        # Cells can be smaller than what is asked for: a short answer is no answer while there is more.
        if probes < every and len(short := np.flatnonzero(rows[:, -1] < 0)):
            scores[short], rows[short] = self.visiting(towers[short], wanted, every, among.selector)
        return scores, rows

    def visiting(
        self, towers: Float32, wanted: int, probes: int, selector: Any = None
    ) -> tuple[Float32, NDArray[np.int64]]:
        """What so many cells hold, for an index that has them."""
        params = _FAISS.SearchParametersIVF(nprobe=probes, **({} if selector is None else {"sel": selector}))
        scores, rows = self._index.search(towers, wanted, params=params)
        return scores, rows

    def _selected(self, alive: NDArray[np.bool_] | None) -> _Among:
        if alive is None:
            return _EVERYTHING
        # The catalogue's mask stays the same array for many calls, and packing that of a million items takes 0.2 ms.
        if self._among.alive is not alive:
            selector = _FAISS.IDSelectorBitmap(np.packbits(alive, bitorder="little"))
            self._among = _Among(alive, selector, max(float(alive.mean()), 1 / self._n))
        return self._among


def choose(
    vectors: Float32, towers: Float32 | None = None, seed: int = 7, exact_up_to: int = EXACT_UP_TO
) -> tuple[Cells | None, dict[str, float]]:
    """
    Cells for *vectors* (n, d), or None where an exact search is as good; and the figures that go into the manifest.

    Args:
        towers: (q, d) queries as serving makes them; None: items, and means of a few.

    Returns:
        index_cells            0: searched exactly
        index_bytes_an_item    of memory in every replica, vectors and index
        index_probes, index_scanned_share, index_recall   for 300 candidates, of queries that did not choose
        index_us, index_exact_us   CPU time of such a query, one at a time, on the machine that trained
        The last five only where there was something to choose.
    """
    n, d = vectors.shape
    if n <= exact_up_to:
        return None, {"index_cells": 0.0, "index_bytes_an_item": float(8 * d + 12)}
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(seed)
    towers = _likely(vectors, rng) if towers is None or not len(towers) else towers[rng.permutation(len(towers))]
    towers = np.ascontiguousarray(towers[:QUERIES], np.float32)
    choosing, judging = towers[: max(len(towers) // 2, 1)], towers[len(towers) // 2 :]
    exact = Index(vectors)
    cells = _measured(vectors, _cells(vectors, seed), choosing, exact)
    index = Index(vectors, cells)
    probes = cells.visited(min(_JUDGED_AT, n))
    truth = exact.search(judging, _JUDGED_AT)[1]
    found, read = _counted(lambda: index.search(judging, _JUDGED_AT)[1])
    share = min(read / len(judging) / n + len(cells.centres) / n, 1.0)
    is_worth_it = share <= _LARGEST_SHARE
    figures = {
        "index_cells": float(len(cells.centres)) if is_worth_it else 0.0,
        "index_bytes_an_item": float(8 * d + (24 if is_worth_it else 12)),
        "index_probes": float(probes),
        "index_scanned_share": round(share, 4),
        "index_recall": round(recall(found, truth), 4),
        "index_us": _us_a_query(index, judging),
        "index_exact_us": _us_a_query(exact, judging),
    }
    return (cells if is_worth_it else None), figures


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Share of *truth* (q, k) that is in *found* (q, k), row by row; no row of truth names anything twice."""
    if not truth.size:
        return 1.0
    size = int(max(found.max(initial=0), truth.max())) + 2
    row = np.arange(len(truth))[:, None] * size
    # -1, none, becomes the 0 of its row, which the truth never holds: it asks for no more than there is.
    return float(np.isin(row + truth + 1, row + found + 1).mean())


def _cells(vectors: Float32, seed: int) -> Cells:
    """k-means, on a sample, and each vector's nearest centre."""
    n, d = vectors.shape
    k = max(1, int(_CELLS_PER_ROOT * np.sqrt(n)))
    means = faiss.Kmeans(
        d, k, niter=10, seed=seed, max_points_per_centroid=_POINTS_A_CELL, min_points_per_centroid=1, verbose=False
    )
    means.train(np.ascontiguousarray(vectors, np.float32))
    centres = np.asarray(means.centroids, np.float32)
    nearest = _FAISS.IndexFlatL2(d)
    nearest.add(centres)
    _, cell_of = nearest.search(np.ascontiguousarray(vectors, np.float32), 1)
    nothing = np.empty(0, np.int32)
    return Cells(centres, cell_of[:, 0].astype(np.int32), nothing, nothing)


def _measured(vectors: Float32, cells: Cells, towers: Float32, exact: Index) -> Cells:
    """*cells* with how many of them *towers* (q, d) need to find AIM of what *exact* finds."""
    asked = np.array([k for k in ASKED if k <= len(vectors)] or [len(vectors)], np.int32)
    truth = exact.search(towers, int(asked[-1]))[1]
    index, every = Index(vectors, cells), len(cells.centres)
    probes: list[int] = []
    for k in asked.tolist():
        visited = probes[-1] if probes else 1
        while visited < every and recall(index.visiting(towers, k, visited)[1], truth[:, :k]) < AIM:
            visited = min(every, visited + max(1, visited // 2))
        probes.append(visited)
    return Cells(cells.centres, cells.cell_of, asked, np.array(probes, np.int32))


def _filled(centres: Any, vectors: Float32, cell_of: NDArray[np.int32]) -> Any:
    """FAISS's inverted lists with every vector in the cell that was found for it, whatever its metric would say."""
    index = _FAISS.IndexIVFFlat(centres, vectors.shape[1], centres.ntotal, _FAISS.METRIC_INNER_PRODUCT)
    index.is_trained = True
    vectors = np.ascontiguousarray(vectors, np.float32)
    rows, cells = np.arange(len(vectors), dtype=np.int64), cell_of.astype(np.int64)
    index.add_core(len(vectors), _FAISS.swig_ptr(vectors), _FAISS.swig_ptr(rows), _FAISS.swig_ptr(cells))
    return index


def _counted(search: Callable[[], NDArray[np.int64]]) -> tuple[NDArray[np.int64], int]:
    """What *search* finds, and how many vectors were read for it."""
    statistics = _FAISS.cvar.indexIVF_stats
    statistics.reset()
    found = search()
    return found, int(statistics.ndis)


def _likely(vectors: Float32, rng: np.random.Generator) -> Float32:
    """What shoppers may look like where nobody is known: half of them one item, half the mean of four by chance."""
    half = QUERIES // 2
    single = vectors[rng.integers(0, len(vectors), half)]
    return np.vstack([single, vectors[rng.integers(0, len(vectors), (half, 4))].mean(1)])[rng.permutation(2 * half)]


def _us_a_query(index: Index, towers: Float32) -> float:
    """Microseconds of CPU, the median of searches one by one."""
    times = []
    for tower in towers[:64]:
        began = time.thread_time()
        index.search(tower[None], _JUDGED_AT)
        times.append(time.thread_time() - began)
    return round(float(np.median(times)) * 1e6, 1)
