"""Filters: kept plus removed is the input, the order stands, and what is forbidden never passes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.filters import eligible, forbidden_keys
from orchestrator.core.model import Placement
from tests.support.builders import CLICK, IMPRESSION, a_query, a_user, changed, keys_of, some_candidates, some_facts

N = 30
keys = st.lists(st.integers(0, N - 1), unique=True, max_size=20)
some_keys = st.lists(st.integers(0, N - 1), max_size=8).map(tuple)


@given(
    candidates=keys,
    excluded=some_keys,
    focus=some_keys,
    cart=some_keys,
    history=some_keys,
    exclude_seen=st.booleans(),
    placement=st.sampled_from(Placement),
    sold_out=st.sets(st.integers(0, N - 1)),
    allowed=st.one_of(st.none(), st.lists(st.booleans(), min_size=N, max_size=N)),
)
def test_kept_and_removed_are_the_input_and_nothing_forbidden_passes(
    candidates, excluded, focus, cart, history, exclude_seen, placement, sold_out, allowed
):
    query = a_query(
        placement=placement, exclude_keys=excluded, context_keys=focus, cart_keys=cart, exclude_seen=exclude_seen
    )
    user = a_user(history)
    facts = some_facts(len(candidates), sold_out=[row for row, key in enumerate(candidates) if key in sold_out])
    mask = None if allowed is None else np.asarray(allowed)

    kept, removed = eligible(query, user, some_candidates(*candidates), facts, mask)

    never = {*excluded, *query.focus_keys, *cart, *(history if exclude_seen else ())} | sold_out
    expected = [key for key in candidates if key not in never and (mask is None or mask[key])]
    assert keys_of(kept) == expected
    assert len(kept) + sum(n for _, n in removed) == len(candidates)
    assert all(n > 0 for _, n in removed)


def test_an_item_is_counted_for_the_first_rule_that_removes_it():
    query = a_query(exclude_keys=(1,))
    facts = some_facts(4, sold_out=[0, 1])
    allowed = np.asarray([True, False, False, False, True])

    kept, removed = eligible(query, a_user(), some_candidates(1, 2, 3, 4), facts, allowed)

    assert keys_of(kept) == [4]
    assert removed == (("excluded", 1), ("sold_out", 1), ("not_allowed", 1))


def test_rules_that_remove_nothing_are_not_mentioned():
    kept, removed = eligible(a_query(), a_user(), some_candidates(1, 2), some_facts(2), np.ones(3, np.bool_))

    assert keys_of(kept) == [1, 2]
    assert removed == ()


def test_a_ranking_keeps_sold_out_items_and_what_is_being_looked_at():
    query = a_query(only_keys=(1, 2, 3), context_keys=(2,), cart_keys=(3,))

    kept, removed = eligible(query, a_user(), some_candidates(3, 2, 1), some_facts(3, sold_out=[0]), None)

    assert keys_of(kept) == [3, 2, 1]
    assert removed == ()


def test_without_candidates_there_is_nothing_to_remove():
    kept, removed = eligible(a_query(exclude_keys=(1,)), a_user((2,)), some_candidates(), some_facts(0), None)

    assert len(kept) == 0
    assert removed == ()


def test_the_basket_is_never_recommended_back_wherever_it_is_shown():
    for placement in Placement:
        query = a_query(placement=placement, cart_keys=(4, 5))
        assert set(forbidden_keys(query, a_user()).tolist()) == {4, 5}


def test_history_is_forbidden_only_on_demand():
    user = a_user((7, 8, 7))

    assert forbidden_keys(a_query(), user).tolist() == []
    assert forbidden_keys(a_query(exclude_seen=True), user).tolist() == [7, 8]


def test_what_was_only_shown_was_not_chosen():
    user = changed(a_user((7, 8)), history_types=np.asarray([IMPRESSION, CLICK], np.uint8))

    assert forbidden_keys(a_query(exclude_seen=True), user).tolist() == [8]


def test_what_a_rule_hides_is_counted_apart_from_what_the_caller_does_not_want():
    shown, allowed = np.asarray([True, False, False, True]), np.asarray([True, True, False, False])

    kept, removed = eligible(a_query(), a_user(), some_candidates(0, 1, 2, 3), some_facts(4), allowed, shown)

    assert keys_of(kept) == [0]
    assert removed == (("hidden", 2), ("not_allowed", 1))


def test_forbidden_keys_are_sorted_unique_int32_as_the_wire_wants_them():
    found = forbidden_keys(a_query(exclude_keys=(9, 1, 9), context_keys=(1,)), a_user())

    assert found.tolist() == [1, 9]
    assert found.dtype == np.int32
