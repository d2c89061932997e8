"""
Whether a difference between methods is more than chance: bootstrap intervals and paired tests over queries.

The rule: methods are compared on the same queries, in pairs. Everything is drawn from one seed, so a report made twice
says the same.

Sources: Smucker, Allan and Carterette, CIKM 2007 (randomisation test); Holm, 1979 (many comparisons at once).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

SAMPLES = 2_000
"""Draws of the bootstrap: an end of a 95 % interval then moves by about 2 % of its width from seed to seed."""

TURNS = 20_000
"""Draws of the test. Fifteen methods are 105 pairs, and Holm multiplies the smallest p, 1 / 20,001, by as many."""

_AT_ONCE = 4_000_000
"""Cells of a block of draws: 16 to 32 MB whatever the number of queries."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    Every method against every other on one metric; m methods.

    means        (m,) and low, high (m,): 95 % bootstrap interval of each mean
    differences  (m, m) mean of row − column; difference_low, difference_high: its 95 % paired interval
    p            (m, m) two-sided randomisation test of "no difference", Holm-corrected over all pairs; diagonal 1
    """

    means: Float64
    low: Float64
    high: Float64
    differences: Float64
    difference_low: Float64
    difference_high: Float64
    p: Float64


def compare(values: Float64, seed: int) -> Comparison:
    """Compare the columns of *values* (q, m): one row a query, one column a method."""
    q, m = values.shape
    if q == 0:
        nothing, none = np.zeros(m), np.zeros((m, m))
        return Comparison(nothing, nothing, nothing, none, none, none, np.ones((m, m)))
    means = values.mean(0)
    drawn = _resampled_means(values, seed)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    first, second = np.triu_indices(m, 1)
    pair_low, pair_high = np.zeros((m, m)), np.zeros((m, m))
    if len(first):
        # Row − column above the diagonal, mirrored with the sign turned below it.
        bounds = np.quantile(drawn[:, first] - drawn[:, second], [0.025, 0.975], axis=0)
        pair_low[first, second], pair_high[first, second] = bounds
        pair_low[second, first], pair_high[second, first] = -bounds[1], -bounds[0]
    p = np.ones((m, m))
    p[first, second] = p[second, first] = holm(randomisation(values[:, first] - values[:, second], seed))
    return Comparison(means, low, high, means[:, None] - means[None, :], pair_low, pair_high, p)


def interval(values: Float64, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the mean of *values* (q,); for a comparison give the paired differences."""
    if not len(values):
        return 0.0, 0.0
    low, high = np.quantile(_resampled_means(values[:, None], seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p: Float64) -> Float64:
    """p values corrected for being many, so that the chance of one false alarm among them stays what was asked."""
    n = len(p)
    order = np.argsort(p, kind="stable")
    corrected = np.minimum(np.maximum.accumulate((n - np.arange(n)) * p[order]), 1.0)
    back = np.empty(n)
    back[order] = corrected
    return back


def _resampled_means(values: Float64, seed: int) -> Float64:
    """(SAMPLES, m) means over queries drawn with replacement, the same draw for every method."""
    rng = np.random.default_rng(seed)
    q = len(values)
    step = max(1, _AT_ONCE // q)
    blocks = []
    for start in range(0, SAMPLES, step):
        n = min(step, SAMPLES - start)
        drawn = rng.integers(0, q, (n, q)) + (np.arange(n) * q)[:, None]
        blocks.append(np.bincount(drawn.ravel(), minlength=n * q).reshape(n, q) @ values / q)
    return np.concatenate(blocks)


def randomisation(differences: Float64, seed: int) -> Float64:
    """Two-sided p (pairs,) of the mean of *differences* (q, pairs) under signs turned by chance; not corrected."""
    rng = np.random.default_rng(seed + 1)
    q = len(differences)
    if not q:
        return np.ones(differences.shape[1])
    values = differences.astype(np.float32)
    # A hair below: a draw that turns nothing must count as extreme as what was seen, whatever the order of the sum.
    seen = np.abs(values.sum(0, dtype=np.float64)) - 1e-4
    step = max(1, _AT_ONCE // q)
    extreme = np.zeros(differences.shape[1])
    for start in range(0, TURNS, step):
        signs = rng.integers(0, 2, (min(step, TURNS - start), q), dtype=np.int8).astype(np.float32)
        signs = 2 * signs - 1
        extreme += (np.abs(signs @ values) >= seen).sum(0)
    return np.asarray((1 + extreme) / (1 + TURNS))
