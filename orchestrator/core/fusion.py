"""
Merging what several sources propose into one order, without forgetting who found what.

Pure array arithmetic; no item is lost and none invented: the fused keys are exactly the union.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.core.model import Candidates, Float64, Retrieved


def fuse(
    retrieved: Mapping[str, Retrieved], sources: Sequence[str], weights: Mapping[str, float], method: str, k: int = 60
) -> Candidates:
    """
    Merge the sources' lists into candidates, best fused score first; ties go by key, so a replay agrees.

    Args:
        retrieved: source → its answer; a source that was lost is absent.
        sources: the names that become the columns, in settings order, lost ones included.
        weights: source → weight ≥ 0, one for every source in *retrieved*.
        method: `reciprocal_rank` or `z_score`.
        k: flattening constant of reciprocal rank.

    Raises:
        KeyError: a source without weight. Settings are checked at start, so this is a bug.
    """
    present = [name for name in sources if name in retrieved]
    if not present:
        return empty(sources)
    keys = np.unique(np.concatenate([retrieved[name].keys for name in present]))
    ranks = np.zeros((len(keys), len(sources)), np.uint16)
    scores = np.full((len(keys), len(sources)), np.nan, np.float32)
    fused = np.zeros(len(keys), np.float64)
    for name in present:
        column, answer = list(sources).index(name), retrieved[name]
        rows = np.searchsorted(keys, answer.keys)
        ranks[rows, column] = np.arange(1, len(rows) + 1)
        scores[rows, column] = answer.scores
        fused += weights[name] * (
            reciprocal_ranks(rows, len(keys), k)
            if method == "reciprocal_rank"
            else z_scores(rows, answer.scores, len(keys))
        )
    order = np.argsort(-fused, kind="stable")
    return Candidates(keys, tuple(sources), ranks, scores, fused).take(order)


def empty(sources: Sequence[str]) -> Candidates:
    """No candidates at all, with the columns that any would have had."""
    n = len(sources)
    return Candidates(
        np.empty(0, np.int32),
        tuple(sources),
        np.empty((0, n), np.uint16),
        np.empty((0, n), np.float32),
        np.empty(0, np.float64),
    )


def reciprocal_ranks(rows: np.ndarray, n: int, k: int) -> Float64:
    """
    1 / (k + rank) at *rows* (best first, ranks from 1), 0 elsewhere; (n,).

    Source: Cormack, Clarke and Büttcher, SIGIR 2009; their k is 60.
    """
    part = np.zeros(n, np.float64)
    part[rows] = 1.0 / (k + np.arange(1, len(rows) + 1))
    return part


def z_scores(rows: np.ndarray, scores: np.ndarray, n: int) -> Float64:
    """
    Scores standardised within their own list, at *rows*; what the list lacks gets its lowest; (n,).

    A list of equal scores says nothing about order and contributes 0 everywhere.
    """
    if not len(scores):
        return np.zeros(n, np.float64)
    # As numpy's own mean and std, to the last bit, without their half dozen layers: 20 µs less a list.
    values = scores.astype(np.float64)
    values -= np.add.reduce(values) / len(values)
    spread = math.sqrt(np.add.reduce(values * values) / len(values))
    if spread == 0.0:
        return np.zeros(n, np.float64)
    values /= spread
    part = np.full(n, values.min(), np.float64)
    part[rows] = values
    return part
