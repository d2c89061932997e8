"""
How close the candidates are to their shopper, as columns: the value, where it stands among the candidates, its rank.

The rule: a number means something only within its list, so lists are laid side by side as one padded block, and
nothing is done list by list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from services.chassis.affinity import NAMES

WIDTH = 3 * len(NAMES) + 2
"""Columns that `columns` gives."""

# Farthest a value may stand from its list's mean, in standard deviations; as `affinity.standardised`.
_FARTHEST = 5.0
# The bits of +∞: a positive float32 lies below it, and is the greater the greater its bits are.
_INFINITE = np.int64(0x7F80_0000)


def columns(values: Float32, known: NDArray[np.bool_], candidates: Rows, out: Float32) -> None:
    """
    Fill *out* (n, WIDTH): for each method its closeness, on a logarithmic scale; standardised within the list; the
    logarithm of the rank there; then the sum and the largest of the standardised ones.

    Args:
        values: (len(NAMES), n) ≥ 0, 0 where a method knows nothing of the candidate.
        known: (n,) whether anything could be known of it; a list of strangers gets zeros.
        candidates: the q lists.
    """
    methods, n = values.shape
    lengths = np.diff(candidates.offsets)
    longest = int(lengths.max(initial=0))
    if not longest:
        return
    is_even = longest * len(lengths) == n
    block, place = values, None
    if not is_even:
        place = np.repeat(np.arange(len(lengths)) * longest - candidates.offsets[:-1], lengths) + np.arange(n)
        block = np.zeros((methods, len(lengths) * longest), np.float32)
        block[:, place] = values
    lists = block.reshape(methods, len(lengths), longest)
    z = _standardised(lists, lengths, is_even).reshape(methods, -1)
    ranks = _log_ranks(lists, lengths).reshape(methods, -1)
    if place is not None:
        z, ranks = z[:, place], ranks[:, place]
    # In double precision log(1 + x) is exact to the last digit that is kept, and faster than log1p.
    out[:, :methods] = np.log(1.0 + values.astype(np.float64)).T
    out[:, methods : 2 * methods] = z.T
    out[:, 2 * methods : 3 * methods] = ranks.T
    out[:, -2], out[:, -1] = z.sum(0), z.max(0)
    if not known.all():
        row = np.repeat(np.arange(len(lengths)), lengths)
        out[np.bincount(row, known, len(lengths))[row] == 0] = 0


def _standardised(lists: Float32, lengths: NDArray[np.int64], is_even: bool) -> NDArray[np.float64]:
    """(a, q, L) → the same: each list less its mean, over its standard deviation, cut; zeros for a list of equals."""
    size = np.maximum(lengths, 1)[None, :, None]
    # In double precision, so that a list of equals comes out as one, and not as its rounding.
    centred = lists.astype(np.float64)
    centred -= centred.sum(2, keepdims=True) / size
    if not is_even:
        centred *= np.arange(lists.shape[2]) < lengths[:, None]
    spread = np.sqrt(np.square(centred).sum(2, keepdims=True) / size)
    centred *= np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9)
    return np.clip(centred, -_FARTHEST, _FARTHEST, out=centred)


def _log_ranks(lists: Float32, lengths: NDArray[np.int64]) -> Float32:
    """
    (a, q, L) → the same: log(1 + rank from 0), the greatest first, equals in their order; what a method knows nothing
    of shares the last place, as many as the list is long.
    """
    longest = lists.shape[2]
    logs = np.log1p(np.arange(longest + 1)).astype(np.float32)
    # One integer that sorts by value and then by place: many times faster than a stable argsort.
    falling = _INFINITE - lists.view(np.int32).astype(np.int64)
    order = ((falling << 32) + np.arange(longest)).reshape(-1, longest)
    order.sort(axis=1)
    at = (order & 0xFFFF_FFFF) + np.arange(len(order))[:, None] * longest
    ranks = np.empty(len(order) * longest, np.float32)
    ranks[at] = logs[:longest]
    return np.where(lists > 0, ranks.reshape(lists.shape), logs[lengths][None, :, None])
