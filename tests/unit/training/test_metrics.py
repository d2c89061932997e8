"""Ranking metrics against numbers computed by hand."""

import math

import numpy as np
import pytest

from services.training.metrics import interval, judge, mrr_at, ndcg_at, recall_at


def test_recall_divides_by_what_could_be_reached():
    assert recall_at([1, 2, 3, 4], {2, 4, 9}, 4) == pytest.approx(2 / 3)
    assert recall_at([1, 2], set(range(1, 11)), 2) == 1.0


def test_ndcg_is_the_discounted_gain_over_the_best_possible_one():
    found = ndcg_at([7, 1, 8, 2], {1, 2, 3}, 10)

    gain = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert found == pytest.approx(gain / ideal)
    assert found == pytest.approx(0.498, abs=5e-4)


def test_the_ideal_is_cut_where_the_list_is_cut():
    assert ndcg_at([1, 2], {1, 2, 3, 4, 5}, 2) == 1.0


def test_mrr_is_the_first_hit_and_zero_beyond_the_cut():
    assert mrr_at([9, 8, 1, 2], {1, 2}, 10) == pytest.approx(1 / 3)
    assert mrr_at([9, 8, 1], {1}, 2) == 0.0


def test_shoppers_without_a_truth_are_not_judged_and_an_empty_list_scores_nothing():
    judged = judge([[1, 2], [], [5]], [[1], [3], []])

    mean = judged.mean(catalogue=10)
    assert mean["shoppers"] == 2
    assert mean["ndcg_at_10"] == pytest.approx(0.5)
    assert mean["hit_at_10"] == pytest.approx(0.5)
    assert mean["recall_at_20"] == pytest.approx(0.5)
    assert mean["coverage_at_10"] == pytest.approx(0.2)


def test_nobody_to_judge_gives_zeros():
    assert judge([[1]], [[]]).mean(0)["ndcg_at_10"] == 0.0


def test_the_interval_holds_the_mean_and_repeats_with_its_seed():
    values = np.random.default_rng(1).normal(0.3, 0.1, 400)

    low, high = interval(values, seed=5)

    assert low < values.mean() < high
    assert (low, high) == interval(values, seed=5)
    assert interval(np.empty(0), seed=5) == (0.0, 0.0)
