"""Feeds that broke are told from shops that live."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.training.dataset import DAY_US
from services.training.validation import Limits, Profile, faults, profile
from tests.support.small_dataset import PURCHASE, START_US, VIEW, a_dataset

NOW_US = START_US + 100 * DAY_US
BUSY = Limits(least_week=10)


def found(dataset, last=None, now_us=NOW_US):
    return faults(profile(dataset), last, now_us, BUSY)


def only(dataset, keep):
    return replace(dataset, **{c: getattr(dataset, c)[keep] for c in ("users", "keys", "types", "at_us", "sessions")})


def twice(dataset):
    again = np.repeat(np.arange(len(dataset)), 2)
    return only(dataset, again)


def test_a_shop_that_lives_has_no_fault_alone_or_against_its_last_run():
    dataset = a_dataset()
    earlier = profile(dataset.before(NOW_US - 7 * DAY_US))

    assert found(dataset) == ()
    assert found(dataset, earlier) == ()


def test_the_profile_counts_what_is_there():
    dataset = a_dataset()

    counted = profile(dataset)

    assert (counted.events, counted.shoppers, counted.items) == (1_200, 60, 40)
    assert counted.duplicate_share == 0.0
    assert counted.week_before == pytest.approx(84, abs=20)
    assert sum(counted.types_last.values()) == pytest.approx(1.0)
    assert Profile.from_json(counted.as_json()) == counted
    assert Profile.from_json({"of": "another version"}) is None


def starved(dataset):
    """An eighth of the events arrives since a week and a day."""
    return only(dataset, (dataset.at_us < NOW_US - 8 * DAY_US) | (np.arange(len(dataset)) % 8 == 0))


def without_purchases(dataset):
    """The tracking of purchases is lost since a week and a day."""
    return only(dataset, (dataset.at_us < NOW_US - 8 * DAY_US) | (dataset.types != PURCHASE))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (twice, "50% of the events repeat another one"),
        (starved, "does the feed still arrive"),
        (without_purchases, "no purchase event in the last week"),
        (lambda dataset: replace(dataset, at_us=dataset.at_us + 30 * DAY_US), "is yet to come"),
    ],
)
def test_a_broken_feed_is_named_with_what_was_expected(broken, words):
    said = found(broken(a_dataset()))

    assert len(said) == 1
    assert words in said[0]


def test_a_funnel_that_shifts_far_is_a_fault_and_one_that_drifts_is_not():
    dataset = a_dataset()
    last = dataset.at_us >= NOW_US - 7 * DAY_US
    mostly_bought = replace(dataset, types=np.where(last & (np.arange(len(dataset)) % 8 > 0), PURCHASE, dataset.types))
    a_little = replace(dataset, types=np.where(last & (np.arange(len(dataset)) % 10 == 0), PURCHASE, dataset.types))

    assert "mix of event types moved" in found(mostly_bought)[0]
    assert found(a_little) == ()
    assert set(np.unique(dataset.types)) == {VIEW, PURCHASE}


def test_items_the_catalogue_does_not_describe_are_another_shops():
    dataset = a_dataset()
    strange = replace(
        dataset.items,
        titles=np.where(np.arange(40) < 20, "", dataset.items.titles),
        categories=np.where(np.arange(40) < 20, "", dataset.items.categories),
    )

    assert "the catalogue does not describe" in found(replace(dataset, items=strange))[0]


def test_a_history_that_shrank_or_went_back_in_time_is_an_old_copy():
    dataset = a_dataset()
    last = profile(dataset)

    said = found(dataset.before(START_US + 40 * DAY_US), last)

    assert any("events, the last run had 1,200" in fault for fault in said)
    assert any("is it an old copy?" in fault for fault in said)


def test_a_shop_of_ten_events_is_no_fault():
    assert faults(profile(a_dataset().before(START_US + DAY_US)), None, NOW_US) == ()
