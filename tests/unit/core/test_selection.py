"""Selection: nothing is lost between candidates and slots, no item comes twice, the pinned stand in their places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import SlateItem
from orchestrator.core.rules import Pin
from orchestrator.core.selection import (
    POPULAR,
    fill,
    ordered,
    pins_within,
    placed,
    rearranged,
    slots,
    topped_up,
)
from tests.support.builders import a_slate, candidates_of, keys_of, some_candidates


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


@given(
    have=st.lists(st.integers(0, 30), unique=True, max_size=10),
    popular=st.permutations(range(31)),
    forbidden=st.lists(st.integers(0, 30), unique=True, max_size=15),
    n=st.integers(0, 40),
)
def test_candidates_are_topped_up_with_what_slots_would_be_filled_with(have, popular, forbidden, n):
    candidates = some_candidates(*have)
    order, never = np.asarray(popular, np.int32), np.asarray(forbidden, np.int32)

    line = topped_up(candidates, order, never, n)

    assert slots(line) == fill(slots(candidates), order, never, n)
    assert all(item.sources == (POPULAR,) for item in slots(line)[len(have) :])


def test_candidates_are_rearranged_as_they_want():
    candidates = some_candidates(5, 3, 9)

    assert keys_of(rearranged(candidates, np.asarray([1.0, 2.0, 3.0]))) == [5, 3, 9]
    assert keys_of(rearranged(candidates, np.asarray([3.0, 2.0, 1.0]))) == [9, 3, 5]


@pytest.mark.parametrize(
    ("pins", "count", "may", "held"),
    [
        ([(3, 7), (1, 8)], 5, None, [(1, 8), (3, 7)]),
        ([(1, 7), (1, 8), (1, 9)], 5, None, [(1, 7), (2, 8), (3, 9)]),
        ([(1, 7), (2, 7)], 5, None, [(1, 7)]),
        ([(1, 7), (6, 8)], 5, None, [(1, 7)]),
        ([(5, 7), (5, 8)], 5, None, [(5, 7)]),
        ([(1, 7), (1, 8)], 5, [False, True], [(1, 8)]),
    ],
    ids=["by position", "the next free place", "each item once", "behind the end", "pushed out", "may not be shown"],
)
def test_pins_hold_in_the_order_they_were_written(pins, count, may, held):
    wanted = [Pin(*pin) for pin in pins]

    found = pins_within(wanted, count, np.asarray([True] * len(pins) if may is None else may))

    assert [(pin.position, pin.key) for pin in found] == held


@given(
    free=st.lists(st.integers(0, 99), unique=True, max_size=12),
    positions=st.lists(st.integers(1, 12), unique=True, max_size=5).map(sorted),
)
def test_the_pinned_stand_in_their_places_and_the_others_keep_their_order(free, positions):
    pinned = [(position, 100 + position) for position in positions]

    line, where = placed(free, pinned)

    assert [thing for thing in line if thing < 100] == free
    assert [line[at - 1] for at in where] == [thing for _, thing in pinned]
    for at, position in zip(where, positions, strict=True):
        assert at == position or (at < position and at >= len(line) - len(pinned)), "only a short list ends too early"
