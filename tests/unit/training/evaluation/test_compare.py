"""Intervals and paired tests: they hold what they should, and noise stays noise."""

import numpy as np
import pytest

from services.training.evaluation.compare import compare, holm, interval


def test_the_interval_holds_the_mean_and_repeats_with_its_seed():
    values = np.random.default_rng(1).normal(0.3, 0.1, 400)

    low, high = interval(values, seed=5)

    assert low < values.mean() < high
    # The standard error is .005, so a 95 % interval is about .02 wide.
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)
    assert (low, high) == interval(values, seed=5)
    assert interval(np.empty(0), seed=5) == (0.0, 0.0)


def test_a_small_gain_for_everybody_is_seen_though_shoppers_differ_widely():
    rng = np.random.default_rng(2)
    base = rng.random(500)
    better = base + rng.normal(0.01, 0.02, 500)

    found = compare(np.column_stack([base, better]), seed=7)

    assert found.differences[1, 0] == pytest.approx(better.mean() - base.mean())
    assert found.difference_low[1, 0] > 0
    assert found.p[1, 0] < 0.01
    # Each mean alone could not tell them apart.
    assert found.low[1] < found.means[0]
    assert (found.difference_low[0, 1], found.difference_high[0, 1]) == (
        -found.difference_high[1, 0],
        -found.difference_low[1, 0],
    )


def test_two_methods_that_differ_by_chance_only_are_not_told_apart():
    rng = np.random.default_rng(3)
    values = rng.random((300, 2))

    found = compare(values, seed=7)

    assert found.p[0, 1] > 0.05
    assert found.difference_low[0, 1] < 0 < found.difference_high[0, 1]


def test_equal_methods_have_no_difference_and_p_one():
    values = np.repeat(np.random.default_rng(4).random((50, 1)), 3, axis=1)

    found = compare(values, seed=7)

    assert (found.differences == 0).all()
    assert (found.p == 1).all()


def test_many_comparisons_ask_for_more_evidence():
    # Holm's own procedure: the smallest p times n, the next times n − 1, never falling.
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_nobody_to_compare_gives_zeros():
    found = compare(np.empty((0, 2)), seed=1)

    assert found.means.tolist() == [0.0, 0.0]
    assert (found.p == 1).all()
