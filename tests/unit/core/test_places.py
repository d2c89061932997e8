"""Places: what they are worth, and that everybody gets the one they want as nearly as possible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.places import HALF_AT, moved, wanted, worth

KEYS = np.asarray([5, 3], np.int32)


def test_the_first_place_is_worth_twice_the_eleventh():
    found = worth(200)

    assert found[0] == 1.0
    assert found[HALF_AT] == pytest.approx(0.5)
    assert (np.diff(found) < 0).all()


def test_who_is_not_moved_wants_its_own_place():
    assert wanted(KEYS, None, None, None).tolist() == [1, 2]


def test_rules_multiply_the_place_and_then_shift_it():
    factor, shift = np.ones(10, np.float32), np.zeros(10, np.float32)
    factor[3], shift[3] = 0.5, -0.5

    assert wanted(KEYS, factor, shift, None).tolist() == [1.0, 0.5]


@given(place=st.integers(0, 150), weary=st.floats(1, 8))
def test_who_is_weary_wants_the_place_that_is_worth_so_much_less(place, weary):
    value = worth(5000)

    there = wanted(np.arange(place + 1, dtype=np.int32), None, None, np.full(place + 1, weary))[place]

    assert np.interp(there - 1, np.arange(5000), value) == pytest.approx(value[place] / weary, rel=0.01)


@given(st.integers(0, 30))
def test_who_stays_stays(n):
    assert moved(np.arange(1, n + 1, dtype=float)).tolist() == list(range(n))


@given(n=st.integers(1, 20), row=st.integers(0, 19), to=st.integers(1, 20))
def test_one_who_wants_a_place_gets_it(n, row, to):
    row, to = row % n, min(to, n)
    wanted = np.arange(1, n + 1, dtype=float)
    wanted[row] = to

    order = moved(wanted).tolist()

    assert order.index(row) == to - 1
    assert [other for other in order if other != row] == [other for other in range(n) if other != row]


@given(st.lists(st.floats(0.1, 40), min_size=1, max_size=20))
def test_nobody_is_lost(wanted):
    assert sorted(moved(np.asarray(wanted)).tolist()) == list(range(len(wanted)))


def test_items_that_are_lifted_alike_keep_their_order():
    wanted = np.arange(1, 9, dtype=float)
    wanted[4:] /= 4

    assert moved(wanted).tolist() == [4, 5, 0, 6, 1, 7, 2, 3] or moved(wanted).tolist()[0] == 4
    lifted = [row for row in moved(wanted).tolist() if row >= 4]
    assert lifted == sorted(lifted)
