"""
Numpy arrays and the packed `bytes` of the wire, both ways.

Every number on the wire is little-endian. Reading gives views on the message's own memory: read-only,
valid as long as the message is referenced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from protos.tutti.v1 import common_pb2

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


class WireError(ValueError):
    """A message whose arrays contradict each other; the receiver answers INVALID_ARGUMENT."""


@dataclass(frozen=True, slots=True)
class Rows:
    """
    Ragged integer lists in CSR form; row i is `values[offsets[i]:offsets[i + 1]]`.

    offsets  (n_rows + 1,) int64, starts at 0, never falls
    values   (offsets[-1],) int32
    """

    offsets: NDArray[np.int64]
    values: Int32

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> Int32:
        """Row *i*, a view."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def take(self, chosen: NDArray[np.integer]) -> tuple[Rows, NDArray[np.int64]]:
        """These rows, in this order, and where each of their values stood."""
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        at = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Rows(offsets, self.values[at]), at

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | Int32]) -> Rows:
        """Build from one sequence a row."""
        lengths = np.fromiter((len(r) for r in rows), np.int64, len(rows))
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        values = np.concatenate([np.asarray(r, np.int32) for r in rows]) if len(rows) else np.empty(0, np.int32)
        return cls(offsets, values.astype(np.int32, copy=False))

    @classmethod
    def empty(cls, n_rows: int) -> Rows:
        """*n_rows* rows, all empty."""
        return cls(np.zeros(n_rows + 1, np.int64), np.empty(0, np.int32))


def pack_rows(rows: Rows) -> common_pb2.Rows:
    """Encode; an all-empty Rows keeps its offsets, so the receiver can still check the count."""
    return common_pb2.Rows(
        offsets=rows.offsets.astype("<u4").tobytes(),
        values=np.ascontiguousarray(rows.values, "<i4").tobytes(),
    )


def pack_lists(rows: Sequence[Sequence[int] | Int32]) -> common_pb2.Rows:
    """Encode one list of keys a row; the same bytes as `pack_rows(Rows.of(rows))`, for a third of the time."""
    # Joined as bytes: numpy's concatenate and astype cost more than the few numbers themselves.
    offsets = list(accumulate(map(len, rows), initial=0))
    return common_pb2.Rows(
        offsets=np.array(offsets, "<u4").tobytes(),
        values=b"".join([np.asarray(row, "<i4").tobytes() for row in rows]),
    )


def unpack_rows(message: common_pb2.Rows, n_rows: int, name: str) -> Rows:
    """
    Decode *n_rows* rows; an absent message means that every row is empty.

    Raises:
        WireError: offsets of another length, not starting at 0, falling, or not ending at the values.
    """
    if not message.offsets and not message.values:
        return Rows.empty(n_rows)
    offsets = unpack(message.offsets, "<u4", (n_rows + 1,), f"{name}.offsets").astype(np.int64)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise WireError(f"{name}.offsets must start at 0 and never fall; found {offsets[:4].tolist()}…")
    return Rows(offsets, unpack(message.values, "<i4", (int(offsets[-1]),), f"{name}.values"))


def unpack(data: bytes, dtype: DTypeLike, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """
    View *data* as an array of *dtype* and *shape*.

    Raises:
        WireError: the number of bytes does not fit the shape.
    """
    expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if len(data) != expected:
        raise WireError(f"{name} has {len(data)} bytes; {expected} expected for shape {shape} of {np.dtype(dtype)}")
    return np.frombuffer(data, dtype).reshape(shape)
