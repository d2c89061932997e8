"""
Ranking metrics with binary relevance; every definition in one place, first for one list, then for all at once.

The whole catalogue is ranked, no sampled negatives; a figure is a mean over judged queries, those with a truth. The
definitions for one list are the reference: the arithmetic over all lists is tested against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Int32, Rows
from services.chassis.signals import owners

CUT, DEEP_CUT = 10, 20
"""Where lists are cut: what a shopper sees at a glance, and after one swipe. Borrowed: the reference protocol's."""

METRICS = ("recall_at_20", "ndcg_at_10", "mrr_at_10", "hit_at_10")


@dataclass(frozen=True, slots=True)
class Judged:
    """Metrics of every judged query, each (q,) float64, so that two methods can be compared in pairs."""

    recall_at_20: NDArray[np.float64]
    ndcg_at_10: NDArray[np.float64]
    mrr_at_10: NDArray[np.float64]
    hit_at_10: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ndcg_at_10)

    def mean(self) -> dict[str, float]:
        """Means; 0 when nobody was judged."""
        return {name: float(getattr(self, name).mean()) if len(self) else 0.0 for name in METRICS}

    def only(self, keep: NDArray[np.bool_]) -> Judged:
        """The queries where *keep* (q,) holds."""
        return Judged(*(getattr(self, name)[keep] for name in METRICS))


@dataclass(frozen=True, slots=True)
class Exposure:
    """
    What the top tens of all queries show together.

    coverage  distinct items shown / items with an event before the window
    gini      of how often each of those items is shown: 0 all alike, towards 1 the same few for everybody
    novelty   mean surprise in bits, −log₂ of the (smoothed) share of shoppers who had the item already
    """

    coverage: float
    gini: float
    novelty: float


def judge(lists: Int32, truth: Rows) -> Judged:
    """
    Compare each list with its truth.

    Args:
        lists: (q, k) keys, best first, no duplicates; a shorter list ends in -1.
        truth: q rows, none of them empty.
    """
    hit = hits(lists, truth)
    sizes = np.diff(truth.offsets)
    top = hit[:, :CUT]
    discounts = 1 / np.log2(np.arange(2, CUT + 2))
    best = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(sizes, CUT)]
    first = np.where(top.any(1), 1 / (1 + top.argmax(1)), 0.0) if top.shape[1] else np.zeros(len(lists))
    return Judged(
        recall_at_20=hit[:, :DEEP_CUT].sum(1) / np.minimum(sizes, DEEP_CUT),
        ndcg_at_10=(top * discounts[: top.shape[1]]).sum(1) / best,
        mrr_at_10=first,
        hit_at_10=np.asarray(top.any(1), np.float64),
    )


def hits(lists: Int32, truth: Rows) -> NDArray[np.bool_]:
    """Which entries of *lists* (q, k) are in the truth of their row, (q, k)."""
    wanted = (owners(truth) << 32) + truth.values
    found = (np.arange(len(lists))[:, None] << 32) + lists
    return np.isin(found, wanted) & (lists >= 0)


def exposure(lists: Int32, holders: NDArray[np.int64], shoppers: int) -> Exposure:
    """
    Coverage, concentration and novelty of the first ten of *lists* (q, k).

    Args:
        holders: (n_items,) how many shoppers had the item before the window.
        shoppers: how many there were.

    Source of novelty: Zhou et al., PNAS 2010 (mean self-information); of both others: Vargas and Castells, 2011.
    """
    top = lists[:, :CUT]
    shown = np.bincount(top[top >= 0], minlength=len(holders))
    had = holders > 0
    surprise = -np.log2((1 + holders) / (1 + shoppers))
    total = int(shown.sum())
    return Exposure(
        coverage=float((shown > 0).sum() / had.sum()) if had.any() else 0.0,
        gini=gini(shown[had | (shown > 0)]) if total else 0.0,
        novelty=float((shown * surprise).sum() / total) if total else 0.0,
    )


def gini(counts: NDArray[np.int64]) -> float:
    """Gini coefficient of counts ≥ 0: 0 when all are equal, towards 1 when one has everything; NaN of nothing."""
    if not len(counts):
        return float("nan")
    ordered = np.sort(counts).astype(np.float64)
    n = len(ordered)
    return float(2 * (np.arange(1, n + 1) * ordered).sum() / (n * ordered.sum()) - (n + 1) / n)


def recall_at(ranked: Sequence[int], truth: set[int], k: int) -> float:
    """Hits among the first k, over min(k, |truth|): 1 is always reachable."""
    return sum(key in truth for key in ranked[:k]) / min(k, len(truth))


def ndcg_at(ranked: Sequence[int], truth: set[int], k: int) -> float:
    """Σ 1 / log₂(rank + 1) over hits among the first k, over the same sum for min(k, |truth|) leading hits."""
    gain = sum(1 / np.log2(rank + 1) for rank, key in enumerate(ranked[:k], 1) if key in truth)
    ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(k, len(truth)) + 1))
    return float(gain / ideal)


def mrr_at(ranked: Sequence[int], truth: set[int], k: int) -> float:
    """1 / rank of the first hit among the first k, 0 without one."""
    return next((1 / rank for rank, key in enumerate(ranked[:k], 1) if key in truth), 0.0)
