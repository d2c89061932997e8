"""Spreading: chosen plus reserve is the input, caps give way before a slot is empty, off touches nothing."""

import time
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.likeness import marks_of
from orchestrator.core.model import Diversity
from orchestrator.core.spread import PAIN, WEIGHTS, Caps, keeps, spread

NOTHING_TAKEN = np.empty(0, np.int32)
codes = st.integers(-1, 3)
rows = st.lists(st.tuples(codes, codes, codes), max_size=30)
some_caps = st.builds(Caps, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))


def kinds_of(table):
    return np.asarray(table, np.int32).reshape(-1, 3)


def in_categories(*categories):
    return kinds_of([(category, -1, -1) for category in categories])


def marks_named(*titles):
    nothing = [None] * len(titles)
    return marks_of(titles, nothing, nothing, np.full(len(titles), np.nan, np.float32))


@given(table=rows, count=st.integers(0, 35), caps=some_caps, diversity=st.sampled_from(Diversity))
def test_chosen_and_reserve_are_the_input_and_the_slate_is_full(table, count, caps, diversity):
    marks = marks_named(*(f"{a} {b}" for a, b, _ in table))

    found = spread(len(table), count, caps, kinds_of(table), WEIGHTS[diversity], marks)

    assert len(found.chosen) == min(count, len(table))
    assert sorted([*found.chosen, *found.reserve]) == list(range(len(table)))
    assert found.reserve.tolist() == sorted(found.reserve), "the reserve keeps its order"
    assert len(found.fits) == len(found.reserve)


@given(table=rows, count=st.integers(0, 35))
def test_with_nothing_asked_for_the_top_of_the_list_is_the_slate(table, count):
    found = spread(len(table), count, Caps(), kinds_of(table))

    assert found.chosen.tolist() == list(range(min(count, len(table))))


@given(table=rows, count=st.integers(0, 35), caps=some_caps, taken=st.lists(st.integers(0, 3), unique=True, max_size=2))
def test_a_cap_is_broken_only_when_everything_left_breaks_one(table, count, caps, taken):
    kinds, parents = kinds_of(table), np.asarray(taken, np.int32)

    found = spread(len(table), count, caps, kinds, taken=parents)

    counts = [Counter(), Counter(), Counter(taken)]
    left = set(range(len(table)))

    def pain(row):
        broken = (
            most and code >= 0 and counts[column][code] >= most
            for column, (most, code) in enumerate(zip(caps.most, kinds[row].tolist(), strict=True))
        )
        return sum(p for p, is_broken in zip(PAIN, broken, strict=True) if is_broken)

    for row in found.chosen.tolist():
        assert pain(row) == min(pain(other) for other in left)
        assert row == min(other for other in left if pain(other) == pain(row)), "the best of the least painful"
        left.remove(row)
        for column, code in enumerate(kinds[row].tolist()):
            counts[column][code] += 1
    assert [pain(row) == 0 for row in found.reserve.tolist()] == found.fits.tolist()


@given(table=rows, caps=some_caps, taken=st.lists(st.integers(0, 3), unique=True, max_size=2))
def test_what_keeps_every_cap_is_left_as_it_is(table, caps, taken):
    kinds, parents = kinds_of(table), np.asarray(taken, np.int32)

    if keeps(caps, kinds, parents):
        found = spread(len(table), len(table), caps, kinds, taken=parents)
        assert found.chosen.tolist() == list(range(len(table)))


def test_a_category_over_its_cap_waits_until_nothing_else_is_left():
    found = spread(5, 4, Caps(category=1), in_categories(0, 0, 0, 1, 0))

    assert found.chosen.tolist() == [0, 3, 1, 2]


def test_items_of_unknown_kind_are_not_one_kind():
    found = spread(4, 3, Caps(1, 1, 1), kinds_of([(-1, -1, -1)] * 4))

    assert found.chosen.tolist() == [0, 1, 2]


def test_two_variants_of_one_item_are_worse_than_two_items_of_one_shelf():
    table = kinds_of([(0, 0, 0), (1, 1, 0), (0, 2, 1)])

    found = spread(3, 2, Caps(category=1, parent=1), table)

    assert found.chosen.tolist() == [0, 2]


def test_a_variant_of_what_is_on_the_page_does_not_come_before_other_items():
    found = spread(3, 2, Caps(parent=1), kinds_of([(0, 0, 7), (0, 0, 8), (0, 0, 9)]), taken=np.asarray([7], np.int32))

    assert found.chosen.tolist() == [1, 2]


def test_pinned_items_count_for_the_caps_and_are_not_chosen():
    table = in_categories(0, 1, 0)

    found = spread(2, 2, Caps(category=1), table, beside=(2,))

    assert found.chosen.tolist() == [1, 0]


def test_who_could_take_a_slot_without_breaking_a_cap_is_known():
    found = spread(4, 2, Caps(category=1), in_categories(0, 1, 0, 2))

    assert found.reserve.tolist() == [2, 3]
    assert found.fits.tolist() == [False, True]


@given(st.lists(st.sampled_from(["red mug", "blue mug", "hoe", "tin toy"]), min_size=1, max_size=20))
def test_the_best_candidate_is_always_first(titles):
    for diversity in Diversity:
        found = spread(
            len(titles), 5, Caps(), kinds_of([(-1,) * 3] * len(titles)), WEIGHTS[diversity], marks_named(*titles)
        )
        assert found.chosen[0] == 0


def test_of_two_that_are_alike_the_second_waits_and_the_longer_the_higher_the_level():
    titles = ["red mug", "red mug", *(f"thing {n}" for n in range(10))]
    marks, kinds = marks_named(*titles), kinds_of([(-1,) * 3] * 12)

    places = [
        spread(12, 12, Caps(), kinds, WEIGHTS[diversity], marks).chosen.tolist().index(1) for diversity in Diversity
    ]

    assert places[0] == 1
    assert places == sorted(places)
    assert places[1] > 1
    assert places[3] > places[1]


def test_what_is_like_a_pinned_item_waits_too():
    marks, kinds = marks_named("red mug", "hoe", "red mug"), kinds_of([(-1,) * 3] * 3)

    found = spread(2, 2, Caps(), kinds, WEIGHTS[Diversity.HIGH], marks, beside=(2,))

    assert found.chosen.tolist() == [1, 0]


def test_each_level_makes_the_slate_less_alike():
    titles = [f"style{n // 10} range{n // 10} line{n // 10} thing{n}" for n in range(100)]
    marks, kinds = marks_named(*titles), kinds_of([(-1,) * 3] * 100)

    alike = []
    for diversity in Diversity:
        chosen = spread(100, 10, Caps(), kinds, WEIGHTS[diversity], marks).chosen
        own = marks.take(chosen)
        alike.append(sum(own.likeness(row).sum() - 1 for row in range(10)))

    assert alike == sorted(alike, reverse=True)
    assert alike[-1] < alike[0] / 2


def test_spreading_200_candidates_over_20_slots_is_cheap():
    """Under a millisecond on an idle core (docs/rules.md); here only that it is no matter of tens of them."""
    rng = np.random.default_rng(5)
    titles = [" ".join(rng.choice([f"w{n}" for n in range(300)], 5)) for _ in range(200)]
    marks, kinds = marks_named(*titles), rng.integers(-1, 9, (200, 3)).astype(np.int32)

    fastest = min(_seconds(lambda: spread(200, 20, Caps(5, 5, 1), kinds, 0.5, marks)) for _ in range(5))

    assert fastest < 0.02


def _seconds(call):
    started = time.process_time()
    call()
    return time.process_time() - started
