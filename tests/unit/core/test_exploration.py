"""Exploration: the propensity that is claimed is the probability with which it happens, to the last fraction."""

import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.exploration import explored, pairs, propensities, propensity


class Loaded(random.Random):
    """Dice that fall as told: whether chance has a say, and which pair."""

    def __init__(self, has_a_say, number=0):
        super().__init__(0)
        self.has_a_say, self.number = has_a_say, number

    def random(self):
        return 0.0 if self.has_a_say else 0.999999

    def randrange(self, n):
        return self.number


sizes = st.integers(0, 7).flatmap(lambda slots: st.tuples(st.just(slots), st.integers(slots, slots + 6)))


def outcomes(slots, line, share):
    """Every slate the policy can show, and its probability, by walking through every draw it can make."""
    share = Fraction(share)
    stands = explored(range(line), slots, float(share), Loaded(False))
    found = Counter({tuple(item for item, _ in stands): 1 - share})
    n = pairs(slots, line)
    for number in range(n):
        shown = explored(range(line), slots, float(share), Loaded(True, number))
        found[tuple(item for item, _ in shown)] += share / n
    if not n:
        found[tuple(range(slots))] += share
    return found


@given(sizes, st.sampled_from(["0", "1/20", "1/2", "1"]))
def test_claimed_propensities_are_those_of_every_draw_together(size, share):
    slots, line = size
    found = outcomes(slots, line, share)

    assert sum(found.values()) == 1
    for slot in range(slots):
        for place in range(line):
            really = sum(p for slate, p in found.items() if slate[slot] == place)
            assert propensity(slot, place, slots, line, float(Fraction(share))) == pytest.approx(float(really))


@given(sizes, st.floats(0, 1))
def test_something_is_shown_in_every_slot_and_the_table_says_the_same(size, share):
    slots, line = size

    table = propensities(slots, line, share)

    assert table.shape == (slots, line)
    np.testing.assert_allclose(table.sum(1), 1.0)
    assert all(
        table[slot, place] == pytest.approx(propensity(slot, place, slots, line, share))
        for slot in range(slots)
        for place in range(line)
    )


@given(sizes, st.floats(0, 1), st.integers(0, 2**32))
def test_no_item_comes_twice_at_most_two_slots_change_and_each_tells_its_own_propensity(size, share, seed):
    slots, line = size

    shown = explored(range(line), slots, share, random.Random(seed))

    items = [item for item, _ in shown]
    assert len(set(items)) == len(items) == slots
    assert sum(item != slot for slot, item in enumerate(items)) <= 2
    assert [p for _, p in shown] == [propensity(slot, item, slots, line, share) for slot, item in enumerate(items)]


@given(sizes, st.integers(0, 2**32))
def test_without_exploration_the_slate_stands_and_is_certain(size, seed):
    slots, line = size

    assert explored(range(line), slots, 0.0, random.Random(seed)) == [(slot, 1.0) for slot in range(slots)]


def test_every_item_of_the_line_can_come_into_every_slot():
    assert (propensities(5, 12, 0.05) > 0).all()


def test_one_slot_and_nobody_behind_it_leaves_nothing_to_explore():
    assert explored(["a"], 1, 1.0, random.Random(1)) == [("a", 1.0)]


def test_the_same_dice_give_the_same_slate():
    first, again = (explored(range(30), 10, 0.5, random.Random(8)) for _ in range(2))

    assert first == again


def test_what_is_shown_in_ten_thousand_draws_is_what_was_claimed():
    rng, slots, line, share, n = random.Random(4), 3, 6, 0.6, 10_000
    seen = np.zeros((slots, line))
    for _ in range(n):
        for slot, (item, _) in enumerate(explored(range(line), slots, share, rng)):
            seen[slot, item] += 1

    claimed = propensities(slots, line, share)

    standard = np.sqrt(claimed * (1 - claimed) / n)
    assert (np.abs(seen / n - claimed) < 4 * standard).all()
