"""Windows, truths and lessons: nothing after the split point may be seen before it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from services.chassis.signals import STRENGTH
from services.training import lessons
from services.training.dataset import DAY_US, DatasetUnusable
from services.training.split import Window, truth, window
from tests.support.small_dataset import START_US, a_dataset

VIEW, ADD_TO_CART, PURCHASE = 1, 4, 6
ITEM, CART = 2, 3


def test_the_last_two_windows_are_validation_and_test_and_touch():
    dataset = a_dataset(days=100)

    validation, test = window(dataset, "validation"), window(dataset, "test")

    assert validation.end_us == test.start_us
    assert test.end_us == dataset.until_us
    assert test.end_us - test.start_us == validation.end_us - validation.start_us == 28 * DAY_US


def test_online_retail_keeps_its_published_windows():
    dataset = a_dataset()
    late = dataset.__class__(**{**dataset.__dict__, "at_us": dataset.at_us - START_US + 1_291_000_000_000_000})

    judged = window(late, "test", "online-retail")

    assert np.datetime64(judged.start_us, "us") == np.datetime64("2011-11-12")
    assert np.datetime64(judged.end_us, "us") == np.datetime64("2011-12-10")


def test_data_shorter_than_its_windows_is_refused_with_its_length():
    with pytest.raises(DatasetUnusable, match=r"spans .* days"):
        window(a_dataset(days=20), "test")


def test_the_past_ends_before_the_moment():
    dataset = a_dataset()
    moment = START_US + 40 * DAY_US

    past = dataset.before(moment)

    assert 0 < len(past) < len(dataset)
    assert past.at_us.max() < moment
    assert past.until_us == moment
    assert (past.ages_s > 0).all()


def test_discovery_is_what_is_left_of_rebuy_when_the_touched_are_gone():
    dataset = a_dataset()
    judged = truth(dataset, window(dataset, "test"))

    assert len(judged.users) > 0
    for rebuy, discovery, touched in zip(judged.rebuy, judged.discovery, judged.touched, strict=True):
        assert set(discovery) == set(rebuy) - set(touched)
        assert len(rebuy) > 0


def test_who_is_drawn_is_judged_as_they_are_among_all():
    dataset = a_dataset()
    judged = window(dataset, "test")
    everybody, offered = truth(dataset, judged), []

    def some(n):
        offered.append(n)
        return np.arange(1, n, 2)

    drawn = truth(dataset, judged, some)

    assert offered == [len(everybody.users)]
    assert drawn.users.tolist() == everybody.users[1::2].tolist()
    for name in ("rebuy", "discovery", "touched"):
        assert [keys.tolist() for keys in getattr(drawn, name)] == [
            keys.tolist() for keys in getattr(everybody, name)[1::2]
        ]


def test_histories_end_at_the_moment_and_keep_the_newest():
    dataset = a_dataset()
    moments = np.full(3, START_US + 50 * DAY_US)

    shoppers = dataset.shoppers(np.array([0, 1, 2]), moments, limit=4)

    for i in range(3):
        own = np.flatnonzero((dataset.users == i) & (dataset.at_us < moments[i]))[-4:]
        assert shoppers.history.row(i).tolist() == dataset.keys[own].tolist()
    assert (shoppers.history_ages_s > 0).all()
    lengths = np.diff(shoppers.history.offsets)
    assert (lengths <= 4).all()


def test_lessons_windows_follow_each_other_up_to_now_and_leave_a_past(monkeypatch):
    monkeypatch.setattr(lessons, "OVERLAP_BELOW", 0)
    dataset = a_dataset(days=100)

    taught = lessons.windows(dataset)

    assert len(taught) == lessons.WINDOWS
    assert taught[-1].end_us == dataset.until_us
    assert all(a.end_us == b.start_us for a, b in itertools.pairwise(taught))
    assert taught[0].start_us > dataset.at_us[0]


def test_a_small_shop_is_taught_from_the_same_time_in_windows_that_overlap_by_half(monkeypatch):
    dataset = a_dataset(days=100)

    overlapping = lessons.windows(dataset)

    monkeypatch.setattr(lessons, "OVERLAP_BELOW", 0)
    apart = lessons.windows(dataset)
    assert len(overlapping) == 2 * lessons.WINDOWS - 1
    assert overlapping[0].start_us == pytest.approx(apart[0].start_us, abs=10)
    assert overlapping[-1] == apart[-1]
    assert {b.start_us - a.start_us for a, b in itertools.pairwise(overlapping)} == {
        (apart[0].end_us - apart[0].start_us) // 2
    }


def test_a_shop_with_one_event_has_no_lesson():
    dataset = a_dataset()

    assert lessons.windows(dataset.before(int(dataset.at_us[0]) + 1)) == []


def test_session_queries_never_ask_for_what_is_in_their_context():
    dataset = a_dataset()
    asked = lessons.ask(dataset, lessons.windows(dataset)[-1], seed=1)

    assert (np.diff(asked.shoppers.context.offsets) > 0).any()
    for i in range(len(asked.users)):
        assert not set(asked.shoppers.context.row(i)) & set(asked.wanted.row(i))
    assert (asked.gains > 0).all()


def a_visit(types, n_visits=6):
    """A dataset of visits to keys 0, 1, 2 … with these event types, one shopper each, and the window they are in."""
    n, dataset = len(types), a_dataset()
    visit = np.repeat(np.arange(n_visits), n)
    visits = replace(
        dataset,
        users=visit.astype(np.int32),
        keys=np.tile(np.arange(n), n_visits).astype(np.int32),
        types=np.tile(types, n_visits).astype(np.uint8),
        at_us=START_US + DAY_US + np.arange(n * n_visits),
        sessions=visit.astype(np.int32),
    )
    return visits, Window(START_US + DAY_US, START_US + 2 * DAY_US)


def taught(types, placement):
    """(context, wanted) of every lesson on this page."""
    dataset, window = a_visit(types)
    asked = lessons.ask(dataset, window, seed=1)
    rows = np.flatnonzero(asked.shoppers.placements == placement)
    return [(asked.shoppers.context.row(i).tolist(), asked.wanted.row(i).tolist()) for i in rows]


def test_a_basket_is_what_was_bought_in_a_visit_not_what_was_looked_at():
    visit = [VIEW, PURCHASE, VIEW, ADD_TO_CART, PURCHASE]

    assert taught(visit, CART) == [([1], [3, 4])] * 6
    assert taught(visit, ITEM) == [([0], [1, 2, 3, 4])] * 6


def test_a_visit_that_bought_one_thing_is_no_basket():
    assert taught([VIEW, VIEW, PURCHASE], CART) == []


def test_orders_are_visits_and_baskets_by_turns():
    orders = [PURCHASE] * 4

    assert taught(orders, CART) == [([0, 1], [2, 3])] * 3
    assert taught(orders, ITEM) == [([0], [1, 2, 3])] * 3


def test_where_nobody_buys_baskets_are_guessed_from_what_was_looked_at():
    assert taught([VIEW] * 4, CART) == [([0, 1], [2, 3])] * 3


def test_a_gain_is_that_of_the_strongest_deed_of_the_window():
    dataset = a_dataset()
    last = lessons.windows(dataset)[-1]
    asked = lessons.ask(dataset, last, seed=1)

    inside = (dataset.at_us >= last.start_us) & (dataset.at_us < last.end_us)
    for i, user in enumerate(asked.users):
        own = slice(asked.wanted.offsets[i], asked.wanted.offsets[i + 1])
        for key, gain in zip(asked.wanted.values[own], asked.gains[own], strict=True):
            deeds = dataset.types[inside & (dataset.users == user) & (dataset.keys == key)]
            assert gain == np.float32(np.sqrt(STRENGTH[deeds].max()))


def test_a_lesson_without_sessions_asks_for_the_same_home_pages():
    dataset = a_dataset()
    last = lessons.windows(dataset)[-1]
    every, home = lessons.ask(dataset, last, seed=1), lessons.ask(dataset, last, seed=1, sessions=0)

    n = len(home.users)
    assert 0 < n < len(every.users)
    np.testing.assert_array_equal(every.users[:n], home.users)
    np.testing.assert_array_equal(every.wanted.values[: len(home.gains)], home.wanted.values)
    np.testing.assert_array_equal(every.gains[: len(home.gains)], home.gains)
