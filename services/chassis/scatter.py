"""
Adds up a few rows of a large sparse matrix, and picks the best of the sum: cost by what is in those rows, not by width.

Sums lie in one vector as wide as the matrix that is kept from call to call, all zeros in between. The rule: nobody
walks over the whole vector where the rows that were added say less than it is wide; at a million items that would be
the larger part of a request.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protos.arrays import Float32

# Entries times this reach over the vector: then walking it is cheaper than finding out where something was added.
# Measured: 50,000 floats are compared and searched in the time in which 6,000 scattered entries are made distinct.
_WALK = 8

_NOTHING: NDArray[np.int64] = np.empty(0, np.int64)


def _plain(pointers: NDArray[np.int32], columns: NDArray[np.int32], values: Float32, x: Float32, out: Float32) -> None:
    """The kernel below in numpy: five passes over index arrays in place of one over the matrix."""
    starts, ends, own = pointers[0::2], pointers[1::2], x[0::2]
    lengths = (ends - starts).astype(np.int64)
    upto = np.cumsum(lengths)
    at = np.repeat(starts - (upto - lengths), lengths) + np.arange(int(upto[-1]) if len(upto) else 0)
    out += np.bincount(columns[at], np.repeat(own, lengths) * values[at], len(out)).astype(np.float32)


def _of_scipy() -> Any:
    """
    scipy's `out += A x` over the columns of A between consecutive pointers, without the copies that its public face
    makes; None where there is no such function. It is private, so a test compares it with `_plain`.
    """
    tools = getattr(sparse, "_sparsetools", None)
    return getattr(tools, "csc_matvec", None)


_csc_matvec = _of_scipy()


class Rows32:
    """
    A sparse matrix by rows; `Sums` adds rows of it.

    offsets  (n_rows + 1,) into columns (m,) int32 and values (m,) float32; m below 2³¹
    """

    def __init__(self, offsets: NDArray[np.integer], columns: NDArray[np.int32], values: Float32) -> None:
        if len(columns) > np.iinfo(np.int32).max:
            raise ValueError(f"a table of {len(columns)} entries; 2³¹ - 1 at most, so keep fewer a row")
        self.offsets = np.ascontiguousarray(offsets, np.int32)
        self.columns = np.ascontiguousarray(columns, np.int32)
        self.values = np.ascontiguousarray(values, np.float32)

    def chosen(self, rows: NDArray[np.integer], weights: Float32) -> Chosen:
        """Rows (m,) with their *weights* (m,), where rows of one sum are ascending and sums follow each other."""
        pointers = np.empty(2 * len(rows), np.int32)
        factors = np.zeros(2 * len(rows), np.float32)
        # Backwards: the kernel walks from each pointer to the next one, so from the end of one row to the start of the
        # following, which is an empty way only if that lies before it.
        backwards = rows[::-1]
        pointers[0::2], pointers[1::2] = self.offsets[backwards], self.offsets[backwards + 1]
        factors[0::2] = weights[::-1]
        return Chosen(self, pointers, factors)


class Chosen:
    """Rows of one matrix with weights: those of every query of a batch, one query after the other."""

    __slots__ = ("factors", "matrix", "pointers")

    def __init__(self, matrix: Rows32, pointers: NDArray[np.int32], factors: Float32) -> None:
        self.matrix, self.pointers, self.factors = matrix, pointers, factors

    def part(self, start: int, end: int) -> Chosen:
        """Rows *start* to *end*, as they were given to `Rows32.chosen`."""
        n = len(self.pointers)
        own = slice(n - 2 * end, n - 2 * start)
        return Chosen(self.matrix, self.pointers[own], self.factors[own])

    def columns(self) -> NDArray[np.int32]:
        """Columns of all entries, row after row; one that several rows have comes several times."""
        columns, bounds = self.matrix.columns, self.pointers.tolist()
        parts = [columns[bounds[i] : bounds[i + 1]] for i in range(0, len(bounds), 2)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)


class Sums:
    """
    A vector (n,) float32 to which rows are added.

    values  the sums; whoever reads them is done before `clear`
    """

    def __init__(self, n: int) -> None:
        self.values: Float32 = np.zeros(n, np.float32)
        # Where in the list of columns each was written last; what lies there from earlier calls is never believed.
        self._mark: NDArray[np.int32] | None = None
        self._added: Chosen | None = None
        self._is_walked = True
        self._filled: NDArray[np.integer] | None = None

    def add(self, chosen: Chosen) -> None:
        """Add weight times row for all *chosen* rows to the zeros that are here."""
        pointers, matrix = chosen.pointers, chosen.matrix
        if not len(pointers):
            return
        n = len(self.values)
        entries = int((pointers[1::2] - pointers[0::2]).sum(dtype=np.int64))
        self._added, self._filled, self._is_walked = chosen, None, entries * _WALK > n
        if _csc_matvec is None:
            _plain(pointers, matrix.columns, matrix.values, chosen.factors, self.values)
        else:
            _csc_matvec(n, len(pointers) - 1, pointers, matrix.columns, matrix.values, chosen.factors, self.values)

    def filled(self) -> NDArray[np.integer]:
        """Places (m,) that the added rows reach, each once, in no particular order; some may hold 0."""
        if self._added is None:
            return _NOTHING
        if self._filled is None:
            self._filled = np.flatnonzero(self.values > 0) if self._is_walked else self._distinct(self._added.columns())
        return self._filled

    def clear(self) -> None:
        """Zeros again."""
        if self._added is None:
            return
        if self._is_walked:
            self.values.fill(0)
        else:
            self.values[self.filled()] = 0
        self._added = self._filled = None

    def _distinct(self, columns: NDArray[np.int32]) -> NDArray[np.int32]:
        if self._mark is None:
            self._mark = np.zeros(len(self.values), np.int32)
        places = np.arange(len(columns), dtype=np.int32)
        wide = columns.astype(np.int64)
        self._mark[wide] = places
        distinct: NDArray[np.int32] = columns[self._mark[wide] == places]
        return distinct


def best(values: Float32, keys: NDArray[np.integer], most: int) -> NDArray[np.integer]:
    """
    Those of *keys* (n,) whose *values* (n,) are above 0 and among the *most* largest; ties by the smaller key.

    In no particular order.
    """
    if len(values) > most:
        least = np.partition(values, len(values) - most)[len(values) - most]
        if least > 0:
            above = values >= least
            if np.count_nonzero(above) == most:
                return np.asarray(keys[above])
            level = np.sort(keys[values == least])
            larger = keys[values > least]
            return np.concatenate([larger, level[: most - len(larger)]])
    return np.asarray(keys[values > 0])
