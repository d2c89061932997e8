"""Selection: selected plus reserve is the input, a full slate before a spread one, no slot twice."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Diversity, SlateItem
from orchestrator.core.selection import CATEGORY_SHARE, POPULAR, fill, ordered, select, slots
from tests.support.builders import a_slate, candidates_of, keys_of, some_candidates, some_facts

shelves = st.lists(st.integers(-1, 4), max_size=40)


def chosen_from(categories, count, diversity):
    candidates = some_candidates(*range(len(categories)))
    return select(candidates, some_facts(len(categories), category=categories), count, diversity)


@given(categories=shelves, count=st.integers(1, 50), diversity=st.sampled_from(Diversity))
def test_selected_and_reserve_are_the_input(categories, count, diversity):
    selected, reserve = chosen_from(categories, count, diversity)

    assert len(selected) == min(count, len(categories))
    assert sorted(keys_of(selected) + keys_of(reserve)) == list(range(len(categories)))
    assert keys_of(reserve) == sorted(keys_of(reserve)), "the reserve keeps its order"


@given(categories=shelves, count=st.integers(1, 50), diversity=st.sampled_from(list(CATEGORY_SHARE)))
def test_a_category_takes_more_than_its_share_only_when_nothing_else_is_left(categories, count, diversity):
    selected, reserve = chosen_from(categories, count, diversity)

    most = max(1, int(np.ceil(count * CATEGORY_SHARE[diversity])))
    filled = Counter(categories[key] for key in keys_of(selected))
    over = {category for category, n in filled.items() if category >= 0 and n > most}
    waiting = {categories[key] for key in keys_of(reserve)}
    if over:
        assert all(category >= 0 and filled[category] >= most for category in waiting)


@given(categories=shelves, count=st.integers(1, 50), diversity=st.sampled_from(Diversity))
def test_the_best_candidate_is_always_first(categories, count, diversity):
    selected, _ = chosen_from(categories, count, diversity)

    assert keys_of(selected)[:1] == ([0] if categories else [])


def test_without_diversity_the_top_of_the_list_is_the_slate():
    selected, reserve = chosen_from([0] * 6, 4, Diversity.OFF)

    assert keys_of(selected) == [0, 1, 2, 3]
    assert keys_of(reserve) == [4, 5]


@pytest.mark.parametrize(("diversity", "at_most"), [(Diversity.LOW, 6), (Diversity.MEDIUM, 4), (Diversity.HIGH, 2)])
def test_a_spread_slate_holds_at_most_the_share_of_one_category(diversity, at_most):
    categories = [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10

    selected, _ = chosen_from(categories, 8, diversity)

    assert max(Counter(categories[key] for key in keys_of(selected)).values()) == at_most


def test_a_full_slate_is_worth_more_than_a_spread_one():
    selected, reserve = chosen_from([0, 0, 0, 1, 0], 4, Diversity.HIGH)

    assert keys_of(selected) == [0, 3, 1, 2]
    assert keys_of(reserve) == [4]


def test_items_of_unknown_category_are_not_one_category():
    selected, _ = chosen_from([-1] * 8, 8, Diversity.HIGH)

    assert keys_of(selected) == list(range(8))


def test_the_best_score_comes_first_and_ties_keep_the_order_they_came_in():
    candidates = some_candidates(1, 2, 3, 4, scores=[0.1, 0.9, 0.1, 0.9])

    assert keys_of(ordered(candidates)) == [2, 4, 1, 3]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20), st.integers(0, 25))
def test_ordering_loses_nothing_and_leaves_what_is_behind_the_limit(scores, limit):
    candidates = some_candidates(*range(len(scores)), scores=scores)

    result = ordered(candidates, limit)

    assert sorted(keys_of(result)) == list(range(len(scores)))
    assert keys_of(result)[limit:] == list(range(len(scores)))[limit:]
    head = result.scores[:limit]
    finite = np.isfinite(head)
    assert (np.diff(head[finite]) <= 0).all()
    assert not (np.diff(finite.astype(int)) > 0).any(), "scores that are not finite sink to the bottom"


def test_slots_tell_score_sources_and_a_propensity_of_one():
    candidates = candidates_of({"a": [5, 7], "b": [7]})

    assert slots(candidates) == (
        SlateItem(7, round(1 / 62 + 1 / 61, 6), ("b", "a"), 1.0),
        SlateItem(5, round(1 / 61, 6), ("a",), 1.0),
    )


@given(
    have=st.lists(st.integers(0, 30), unique=True, max_size=10),
    popular=st.permutations(range(31)),
    forbidden=st.lists(st.integers(0, 30), unique=True, max_size=15),
    count=st.integers(0, 40),
)
def test_filling_adds_no_item_twice_none_forbidden_and_as_many_as_there_are(have, popular, forbidden, count):
    items = a_slate(*have).items

    filled = fill(items, np.asarray(popular, np.int32), np.asarray(forbidden, np.int32), count)

    keys = keys_of(filled)
    assert filled[: len(items)] == items, "what was there stays in its place"
    assert len(set(keys)) == len(keys)
    added = keys[len(items) :]
    available = [key for key in popular if key not in {*have, *forbidden}]
    assert added == available[: max(0, count - len(items))]


def test_filled_slots_say_that_they_are_popular_and_claim_no_score():
    filled = fill((), np.asarray([4], np.int32), np.asarray([], np.int32), 3)

    assert filled == (SlateItem(4, 0.0, (POPULAR,)),)
