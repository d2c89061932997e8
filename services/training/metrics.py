"""
Ranking metrics with binary relevance, for lists of different lengths; every definition in one place.

The whole catalogue is ranked, no sampled negatives; a figure is a mean over judged shoppers, those with a truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Judged:
    """
    Metrics of every judged shopper, so that two methods can be compared in pairs; `mean()` is what is reported.

    Each is (n,) float64. `shown` are the distinct items in all top tens.
    """

    recall_at_20: NDArray[np.float64]
    ndcg_at_10: NDArray[np.float64]
    mrr_at_10: NDArray[np.float64]
    hit_at_10: NDArray[np.float64]
    shown: frozenset[int]

    def mean(self, catalogue: int) -> dict[str, float]:
        """Means, and coverage@10 = distinct items shown / *catalogue* (items with a training event)."""
        return {
            "recall_at_20": _mean(self.recall_at_20),
            "ndcg_at_10": _mean(self.ndcg_at_10),
            "mrr_at_10": _mean(self.mrr_at_10),
            "hit_at_10": _mean(self.hit_at_10),
            "coverage_at_10": len(self.shown) / catalogue if catalogue else 0.0,
            "shoppers": float(len(self.recall_at_20)),
        }


def judge(ranked: Sequence[Sequence[int]], truth: Sequence[Sequence[int]]) -> Judged:
    """
    Compare each list with its truth; shoppers whose truth is empty are not judged.

    Args:
        ranked: keys, best first, no duplicates; may be shorter than the cut-off or empty.
        truth: the relevant keys, in any order.
    """
    rows = [(list(r), set(t)) for r, t in zip(ranked, truth, strict=True) if len(t)]
    return Judged(
        np.array([recall_at(r, t, 20) for r, t in rows], np.float64),
        np.array([ndcg_at(r, t, 10) for r, t in rows], np.float64),
        np.array([mrr_at(r, t, 10) for r, t in rows], np.float64),
        np.array([float(bool(t.intersection(r[:10]))) for r, t in rows], np.float64),
        frozenset(key for r, _ in rows for key in r[:10]),
    )


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


def interval(values: NDArray[np.float64], seed: int, samples: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over shoppers; for a comparison give the paired differences."""
    if not len(values):
        return 0.0, 0.0
    means = np.random.default_rng(seed).choice(values, (samples, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
