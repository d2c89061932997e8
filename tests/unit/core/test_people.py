"""One person's lists: a late event goes to its place, two lists become one."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.people import put_in_place, together


def moment(entry):
    return entry[0]


def test_the_latest_event_stands_in_front():
    entries = [(5, "a")]

    put_in_place(entries, (7, "b"), moment, 10)

    assert entries == [(7, "b"), (5, "a")]


def test_a_late_event_goes_to_its_place():
    entries = [(9, "c"), (5, "a")]

    put_in_place(entries, (7, "b"), moment, 10)

    assert entries == [(9, "c"), (7, "b"), (5, "a")]


def test_of_one_moment_the_last_to_come_is_newest():
    entries = [(5, "a")]

    put_in_place(entries, (5, "b"), moment, 10)

    assert entries == [(5, "b"), (5, "a")]


def test_a_full_list_has_no_room_for_what_is_older_than_everything():
    entries = [(9, "b"), (8, "a")]

    put_in_place(entries, (1, "late"), moment, 2)

    assert entries == [(9, "b"), (8, "a")]


def test_two_lists_become_one_by_time_and_ones_own_stay_in_front():
    assert together([(9, "u"), (5, "u")], [(9, "v"), (7, "v")], moment, 3) == [(9, "u"), (9, "v"), (7, "v")]


@given(st.lists(st.integers(0, 20)), st.integers(1, 8))
def test_whatever_the_order_of_arrival_the_list_holds_the_newest_in_order(moments, limit):
    entries = []

    for n, at in enumerate(moments):
        put_in_place(entries, (at, n), moment, limit)

    assert [at for at, _ in entries] == sorted(moments, reverse=True)[:limit]
