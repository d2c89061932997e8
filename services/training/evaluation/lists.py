"""
From scores to lists: the best twenty of the whole catalogue for every query, in batches that fit the memory.

The rule: no method is helped or hurt by how it is cut. What it knows nothing about stands behind what it knows, by
recent popularity; ties go by key.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Int32, Rows
from services.chassis.signals import owners
from services.training.metrics import DEEP_CUT

BatchScorer = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""(b,) numbers of queries → (b, n_items) float32 scores, a fresh array that may be changed."""

_AT_ONCE = 16_000_000
"""Scores held at once: 64 MB, 256 queries of 50,000 items."""

_NEVER = np.float32(-np.inf)


def rank(
    score: BatchScorer,
    q: int,
    n_items: int,
    gone: Rows,
    behind: NDArray[np.float64],
    allowed: Callable[[int], NDArray[np.bool_] | None] = lambda query: None,
    k: int = DEEP_CUT,
) -> Int32:
    """
    The *k* best items of every query, (q, k) int32, -1 where a list is shorter.

    Args:
        gone: q rows of keys that may not be in the list.
        behind: (n_items,) order of what a method gives equal scores, in particular of what it knows nothing about.
        allowed: query → (n_items,) what alone may be in its list; None allows everything.
    """
    lists = np.full((q, k), -1, np.int32)
    fill = (1e-7 * behind / max(float(behind.max(initial=0.0)), 1e-12)).astype(np.float32)
    for start in range(0, q, max(1, _AT_ONCE // max(n_items, 1))):
        batch = np.arange(start, min(q, start + max(1, _AT_ONCE // max(n_items, 1))))
        scores = score(batch) + fill
        removed = Rows(gone.offsets[batch[0] : batch[-1] + 2] - gone.offsets[batch[0]], _slice(gone, batch))
        scores[owners(removed), removed.values] = _NEVER
        for row, query in enumerate(batch):
            if (mask := allowed(int(query))) is not None:
                scores[row, ~mask] = _NEVER
        best = _best(scores, min(k, n_items))
        lists[batch, : best.shape[1]] = best
    return lists


def _slice(rows: Rows, batch: NDArray[np.int64]) -> Int32:
    return rows.values[rows.offsets[batch[0]] : rows.offsets[batch[-1] + 1]]


def _best(scores: NDArray[np.float32], k: int) -> Int32:
    """Columns of the *k* largest scores of each row, best first; -1 where there is nothing that may be shown."""
    head = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(scores, head, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(head, order, axis=1)
    return np.where(np.take_along_axis(values, order, axis=1) > _NEVER, best, -1).astype(np.int32)
