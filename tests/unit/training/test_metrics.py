"""Ranking metrics against numbers computed by hand, and all lists at once against one list at a time."""

import math

import numpy as np
import pytest

from protos.arrays import Rows
from services.training.metrics import exposure, gini, judge, mrr_at, ndcg_at, recall_at


def padded(rows, k=20):
    lists = np.full((len(rows), k), -1, np.int32)
    for i, row in enumerate(rows):
        lists[i, : len(row)] = row[:k]
    return lists


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


def test_all_lists_at_once_give_what_each_gives_alone():
    rng = np.random.default_rng(4)
    rows = [rng.permutation(60)[: rng.integers(0, 21)] for _ in range(200)]
    truths = [rng.permutation(60)[: rng.integers(1, 40)] for _ in range(200)]

    judged = judge(padded(rows), Rows.of(truths))

    for i, (row, wanted) in enumerate(zip(rows, truths, strict=True)):
        ranked, truth = row.tolist(), set(wanted.tolist())
        assert judged.recall_at_20[i] == pytest.approx(recall_at(ranked, truth, 20))
        assert judged.ndcg_at_10[i] == pytest.approx(ndcg_at(ranked, truth, 10))
        assert judged.mrr_at_10[i] == pytest.approx(mrr_at(ranked, truth, 10))
        assert judged.hit_at_10[i] == float(bool(truth & set(ranked[:10])))


def test_an_empty_list_scores_nothing_and_means_are_over_all_queries():
    judged = judge(padded([[1, 2], []]), Rows.of([[1], [3]]))

    assert judged.mean() == {"recall_at_20": 0.5, "ndcg_at_10": 0.5, "mrr_at_10": 0.5, "hit_at_10": 0.5}
    assert len(judged.only(np.array([True, False]))) == 1


def test_nobody_to_judge_gives_zeros():
    assert judge(padded([]), Rows.empty(0)).mean()["ndcg_at_10"] == 0.0


def test_exposure_counts_the_top_ten_against_what_has_been_seen_before():
    holders = np.array([7, 3, 1, 0])

    same_for_all = exposure(padded([[0, 1], [0, 1]]), holders, shoppers=7)
    all_different = exposure(padded([[0], [1], [2]]), holders, shoppers=7)

    assert same_for_all.coverage == pytest.approx(2 / 3)
    assert all_different.coverage == pytest.approx(1.0)
    assert all_different.gini == pytest.approx(0.0)
    assert same_for_all.gini > 0.3
    # −log₂ of (1 + holders) / (1 + shoppers): item 0 is in every basket, item 1 in half of them.
    assert same_for_all.novelty == pytest.approx((0 + 1) / 2)
    assert exposure(padded([[3]]), holders, shoppers=7).novelty == pytest.approx(3.0)


def test_exposure_of_no_list_is_nothing_at_all():
    shown = exposure(padded([[]]), np.array([1, 1]), shoppers=2)

    assert (shown.coverage, shown.gini, shown.novelty) == (0.0, 0.0, 0.0)


def test_gini_is_zero_for_equals_and_large_for_a_monopoly():
    assert gini(np.array([5, 5, 5, 5])) == pytest.approx(0.0)
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert gini(np.array([1] * 99 + [9_901])) > 0.97
