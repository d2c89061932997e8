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
# Measured: 50,000 floats are compared and searched in the time in which 8,000 scattered entries are made distinct.
_WALK = 6

# Values looked at to guess what the best must exceed, and the least distance between them. Derived: the guess and the
# choice among what exceeds it look at about as many values, a thousand each for the 300 best of 50,000.
_SAMPLE, _STEP = 1_000, 8

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

    def columns(self) -> NDArray[np.int64]:
        """Columns of all entries, row after row; one that several rows have comes several times."""
        columns, bounds = self.matrix.columns, self.pointers.tolist()
        parts = [columns[bounds[i] : bounds[i + 1]] for i in range(0, len(bounds), 2)]
        return np.concatenate(parts, dtype=np.int64) if parts else _NOTHING


class Sums:
    """
    A vector (n,) float32 to which rows are added.

    values  the sums; whoever reads them is done before `clear`
    """

    def __init__(self, n: int) -> None:
        self.values: Float32 = np.zeros(n, np.float32)
        self._added: Chosen | None = None
        self._is_walked = True
        self._columns: NDArray[np.int64] | None = None

    def add(self, chosen: Chosen) -> None:
        """Add weight times row for all *chosen* rows to the zeros that are here."""
        pointers, matrix = chosen.pointers, chosen.matrix
        if not len(pointers):
            return
        n = len(self.values)
        entries = int((pointers[1::2] - pointers[0::2]).sum(dtype=np.int64))
        self._added, self._columns, self._is_walked = chosen, None, entries * _WALK > n
        if _csc_matvec is None:
            _plain(pointers, matrix.columns, matrix.values, chosen.factors, self.values)
        else:
            _csc_matvec(n, len(pointers) - 1, pointers, matrix.columns, matrix.values, chosen.factors, self.values)

    def is_above_zero(self) -> bool:
        """Whether any sum is."""
        if self._added is None:
            return False
        return bool((self.values > 0).any() if self._is_walked else (self.values[self._reached()] > 0).any())

    def best(self, most: int) -> NDArray[np.integer]:
        """Places of the *most* largest sums above 0, in no particular order; the smaller place where that is open."""
        if self._added is None:
            return _NOTHING
        if self._is_walked:
            places = promising(self.values, most)
            return best(self.values[places], places, most)
        columns = self._reached()
        values = self.values[columns]
        # Sums are the larger the more rows reach their column, so the best come several times: three is a guess.
        for wanted in (3 * most, len(columns)):
            found = distinct(columns[promising(values, wanted)].astype(np.int32))
            if len(found) >= most:
                break
        return best(self.values[found], found, most)

    def clear(self) -> None:
        """Zeros again."""
        if self._added is None:
            return
        if self._is_walked:
            self.values.fill(0)
        else:
            self.values[self._reached()] = 0
        self._added = self._columns = None

    def _reached(self) -> NDArray[np.int64]:
        if self._columns is None and self._added is not None:
            self._columns = self._added.columns()
        return _NOTHING if self._columns is None else self._columns


def distinct(keys: NDArray[np.integer]) -> NDArray[np.integer]:
    """Every one of *keys* once, ascending."""
    # By hand: np.unique asks first what it was given, which takes as long as sorting two thousand keys.
    keys = np.sort(keys)
    is_new = np.empty(len(keys), np.bool_)
    is_new[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=is_new[1:])
    return np.asarray(keys[is_new])


def promising(values: Float32, most: int) -> NDArray[np.int64]:
    """Places of some of *values* (n,), all above 0, among which the *most* largest that are above 0 must be."""
    step = max(_STEP, len(values) // _SAMPLE)
    # Four deviations more than are expected in the sample: the guess is too high once in thousands of calls.
    of_sample = most // step
    rank = of_sample + 4 * int(of_sample**0.5) + 4
    if len(values) > 4 * step * rank:
        sample = values[::step].copy()
        sample.partition(len(sample) - rank)
        if (level := sample[len(sample) - rank]) > 0:
            places: NDArray[np.int64] = (values >= level).nonzero()[0]
            if len(places) >= most:
                return places
    return np.asarray((values > 0).nonzero()[0])


def best(values: Float32, keys: NDArray[np.integer], most: int) -> NDArray[np.integer]:
    """
    Those of *keys* (n,) whose *values* (n,) are above 0 and among the *most* largest; ties by the smaller key.

    In no particular order.
    """
    if len(values) > most:
        ascending = values.copy()
        ascending.partition(len(values) - most)
        if (least := ascending[len(values) - most]) > 0:
            found: NDArray[np.integer] = keys[values >= least]
            if len(found) == most:
                return found
            level = np.sort(keys[values == least])
            larger = keys[values > least]
            return np.concatenate([larger, level[: most - len(larger)]])
    return np.asarray(keys[values > 0])
