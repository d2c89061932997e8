"""Which slates may stand on one page, and what becomes of those that repeat an item."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Placement, SlateItem
from orchestrator.core.page import apart, beneath, longest, marks, without
from tests.support.builders import a_query, a_slate, keys_of, some_candidates

KEYS = st.lists(st.integers(0, 30), max_size=12, unique=True)


def test_a_query_beneath_others_excludes_what_they_show_and_what_the_caller_excluded():
    assert beneath(a_query(exclude_keys=(7,)), [1, 2]).exclude_keys == (7, 1, 2)


def test_the_first_query_of_a_page_is_the_query_itself():
    query = a_query()

    assert beneath(query, []) is query


@given(candidates=KEYS, shown=KEYS)
def test_candidates_that_are_shown_are_taken_out_and_counted_and_the_others_keep_their_order(candidates, shown):
    left, gone = without(some_candidates(*candidates), shown)

    assert keys_of(left) == [key for key in candidates if key not in shown]
    assert len(left) + gone == len(candidates)


@given(items=KEYS, shown=KEYS, pinned_at=st.integers(1, 12))
def test_a_slate_apart_keeps_everything_else_in_its_order_and_says_where_the_pinned_stand(items, shown, pinned_at):
    pinned = (pinned_at,) if pinned_at <= len(items) else ()
    slate = a_slate(*items, pinned=pinned)

    found = apart(slate, shown)

    left = [key for key in items if key not in shown]
    assert sorted(keys_of(found)) == sorted(left)
    loose = {items[at - 1] for at in pinned}
    assert [key for key in keys_of(found) if key not in loose] == [key for key in left if key not in loose]
    assert {keys_of(found)[at - 1] for at in found.pinned} == loose & set(left)


def test_a_pinned_item_keeps_its_place_when_one_above_it_goes():
    found = apart(a_slate(1, 2, 3, 4, pinned=(3,)), [1])

    assert (keys_of(found), found.pinned) == ([2, 4, 3], (3,))


def test_chance_cannot_bring_back_what_is_shown_above():
    pool = (SlateItem(8, 0.1, ("s",)), SlateItem(9, 0.1, ("s",)))

    assert keys_of(apart(a_slate(1, 2, pool=pool), [8]).pool) == [9]


def test_a_slate_that_repeats_nothing_is_the_slate_itself():
    slate = a_slate(1, 2)

    assert apart(slate, [3]) is slate
    assert apart(slate, []) is slate


def test_the_first_shelf_has_the_name_it_has_alone_and_the_others_know_what_is_asked_above_them():
    home, item, cart = (a_query(placement=place) for place in (Placement.HOME, Placement.ITEM, Placement.CART))

    first, second, third = marks([home, item, cart])

    assert first == ""
    assert len({first, second, third}) == 3
    assert marks([home, item])[1] == second
    assert marks([cart, item])[1] != second


def test_names_do_not_depend_on_who_asks():
    ours, theirs = ([a_query(user_id=user), a_query(user_id=user, count=3)] for user in ("u1", "u2"))

    assert marks(ours) == marks(theirs)


def test_what_slates_did_at_once_took_the_time_of_the_slowest():
    slates = [
        a_slate(1, stages_ms=(("user", 1.0), ("retrieve", 12.0))),
        a_slate(2, stages_ms=(("user", 1.0), ("retrieve", 9.0), ("rerank", 5.0))),
    ]

    assert longest(slates) == (("user", 1.0), ("retrieve", 12.0), ("rerank", 5.0))
