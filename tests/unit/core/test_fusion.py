"""Fusion: nothing lost, nothing invented, provenance kept, the paper's formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fusion import empty, fuse, reciprocal_ranks, z_scores
from orchestrator.core.model import Retrieved
from tests.support.builders import keys_of, retrieved

METHODS = ("reciprocal_rank", "z_score")
NAMES = ("a", "b", "c")

lists = st.lists(st.integers(0, 60), unique=True, max_size=25)
answers = st.dictionaries(st.sampled_from(NAMES), lists)


def scored(keys, draw=None):
    return Retrieved(np.asarray(keys, np.int32), np.linspace(3, -1, len(keys), dtype=np.float32), "v")


@pytest.mark.parametrize("method", METHODS)
@given(given_lists=answers, weights=st.fixed_dictionaries(dict.fromkeys(NAMES, st.floats(0, 5))))
def test_the_fused_items_are_exactly_the_union_each_once(method, given_lists, weights):
    fused = fuse({name: scored(keys) for name, keys in given_lists.items()}, NAMES, weights, method)

    assert sorted(keys_of(fused)) == sorted(set().union(*given_lists.values()))


@pytest.mark.parametrize("method", METHODS)
@given(given_lists=answers)
def test_every_item_keeps_the_rank_and_the_score_each_source_gave_it(method, given_lists):
    by_source = {name: scored(keys) for name, keys in given_lists.items()}

    fused = fuse(by_source, NAMES, dict.fromkeys(NAMES, 1.0), method)

    for row, key in enumerate(keys_of(fused)):
        for column, name in enumerate(NAMES):
            if key in given_lists.get(name, []):
                place = given_lists[name].index(key)
                assert fused.source_ranks[row, column] == place + 1
                assert fused.source_scores[row, column] == by_source[name].scores[place]
            else:
                assert fused.source_ranks[row, column] == 0
                assert np.isnan(fused.source_scores[row, column])


@pytest.mark.parametrize("method", METHODS)
@given(given_lists=answers)
def test_the_best_fused_score_comes_first_and_ties_go_by_key(method, given_lists):
    fused = fuse({n: scored(k) for n, k in given_lists.items()}, NAMES, dict.fromkeys(NAMES, 1.0), method)

    assert np.isfinite(fused.scores).all()
    order = list(zip((-fused.scores).tolist(), keys_of(fused), strict=True))
    assert order == sorted(order)


@given(given_lists=answers)
def test_the_order_in_which_answers_arrived_changes_nothing(given_lists):
    weights = {"a": 1.0, "b": 0.5, "c": 0.25}
    one = fuse({n: scored(k) for n, k in given_lists.items()}, NAMES, weights, "reciprocal_rank")
    other = fuse({n: scored(k) for n, k in reversed(given_lists.items())}, NAMES, weights, "reciprocal_rank")

    assert keys_of(one) == keys_of(other)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_reciprocal_rank_is_the_papers_formula():
    """Cormack, Clarke and Büttcher, SIGIR 2009: score(d) = Σ 1 / (k + r(d)), k = 60, ranks from 1."""
    fused = fuse({"a": retrieved(1, 2), "b": retrieved(2)}, ["a", "b"], {"a": 1.0, "b": 1.0}, "reciprocal_rank")

    assert keys_of(fused) == [2, 1]
    assert fused.scores.tolist() == pytest.approx([1 / 62 + 1 / 61, 1 / 61])


def test_a_weight_scales_its_sources_say():
    fused = fuse({"a": retrieved(1), "b": retrieved(2)}, ["a", "b"], {"a": 1.0, "b": 3.0}, "reciprocal_rank", k=60)

    assert keys_of(fused) == [2, 1]
    assert fused.scores.tolist() == pytest.approx([3 / 61, 1 / 61])


def test_a_source_of_weight_zero_keeps_its_candidates_and_has_no_say():
    fused = fuse({"a": retrieved(1), "b": retrieved(9, 1)}, ["a", "b"], {"a": 1.0, "b": 0.0}, "reciprocal_rank")

    assert keys_of(fused) == [1, 9]
    assert fused.scores[1] == 0.0
    assert fused.found_by(1) == ("b",)


def test_a_small_k_lets_only_first_places_count():
    rows = np.arange(3)

    assert reciprocal_ranks(rows, 3, 1).tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert np.ptp(reciprocal_ranks(rows, 3, 10_000)) < 1e-7


def test_z_scores_compare_lists_of_different_scales():
    fused = fuse(
        {"a": retrieved(1, 2, 3, scores=[300, 200, 100]), "b": retrieved(3, 2, 1, scores=[0.3, 0.2, 0.1])},
        ["a", "b"],
        {"a": 1.0, "b": 1.0},
        "z_score",
    )

    assert sorted(keys_of(fused)) == [1, 2, 3]
    assert fused.scores.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_what_a_list_lacks_gets_its_lowest_standard_score():
    part = z_scores(np.asarray([2, 0]), np.asarray([3.0, 1.0]), 4)

    assert part.tolist() == pytest.approx([-1, -1, 1, -1])


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5, 0.5], []])
def test_a_list_without_spread_says_nothing_about_order(scores):
    assert z_scores(np.arange(len(scores)), np.asarray(scores), 5).tolist() == [0.0] * 5


@pytest.mark.parametrize("method", METHODS)
def test_lost_sources_keep_their_columns(method):
    fused = fuse({"b": retrieved(4)}, ["a", "b"], {"a": 1.0, "b": 1.0}, method)

    assert fused.sources == ("a", "b")
    assert fused.source_ranks.tolist() == [[0, 1]]
    assert np.isnan(fused.source_scores[0, 0])


def test_without_any_answer_there_are_no_candidates_but_all_columns():
    for nothing in (fuse({}, NAMES, {}, "reciprocal_rank"), empty(NAMES)):
        assert len(nothing) == 0
        assert nothing.sources == NAMES
        assert nothing.source_ranks.shape == nothing.source_scores.shape == (0, 3)


def test_a_source_that_found_nothing_is_no_obstacle():
    fused = fuse({"a": retrieved(), "b": retrieved(1)}, ["a", "b"], {"a": 1.0, "b": 1.0}, "z_score")

    assert keys_of(fused) == [1]


def test_a_source_without_weight_is_a_bug_and_loud():
    with pytest.raises(KeyError, match="b"):
        fuse({"b": retrieved(1)}, ["b"], {"a": 1.0}, "reciprocal_rank")
