"""What trials stand on: two windows, one after the other, both before anything an evaluation may judge."""

import numpy as np
import pytest

from services.training.dataset import DAY_US, DatasetUnusable, load
from services.training.split import window
from services.training.tuning import grounds
from tests.support.small_shop import START_US, tastes, write_shop


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop", tastes(days=120))


def test_by_default_nothing_is_seen_that_an_evaluation_may_judge(shop):
    ground = grounds.of(shop, 7)

    whole = load(shop)
    assert ground.until_us == window(whole, "validation").start_us < window(whole, "test").start_us
    assert ground.confirming.window.end_us <= ground.until_us
    assert load(ground.place).at_us.max() < ground.until_us


def test_what_is_chosen_is_confirmed_on_a_later_window(shop):
    ground = grounds.of(shop, 7)

    assert ground.choosing.window.end_us <= ground.confirming.window.start_us
    for sitting in (ground.choosing, ground.confirming):
        assert sitting.past.at_us.max() < sitting.window.start_us
        assert {task.name for task in sitting.tasks} >= {"discovery", "rebuy"}


def test_a_shop_too_young_for_an_evaluation_is_seen_whole(tmp_path):
    shop = write_shop(tmp_path / "shop", tastes(days=20))

    ground = grounds.of(shop, 7)

    assert ground.until_us == load(shop).until_us


def test_what_comes_after_the_moment_changes_nothing(tmp_path):
    rows = tastes(days=120)
    turned = [(user, item if day < 70 else "i0", kind, day) for user, item, kind, day in rows]
    one, other = write_shop(tmp_path / "one", rows), write_shop(tmp_path / "other", turned)
    until = START_US + 60 * DAY_US

    assert grounds.of(one, 7, until).digest == grounds.of(other, 7, until).digest
    assert grounds.of(one, 7, until).digest != grounds.of(one, 8, until).digest
    assert grounds.of(one, 7, until).digest != grounds.of(one, 7, until - DAY_US).digest


@pytest.mark.parametrize("until_d", [-1, 0.5])
def test_a_past_that_is_too_short_is_refused_in_a_sentence(shop, until_d):
    with pytest.raises(DatasetUnusable):
        grounds.of(shop, 7, START_US + round(until_d * DAY_US))


def test_queries_hold_what_was_known_and_what_the_page_shows(shop):
    sitting = grounds.of(shop, 7).confirming
    task = next(task for task in sitting.tasks if task.name == "discovery")

    asked = sitting.queries(task, 50, np.array([1]))

    assert asked.counts.tolist() == [50]
    assert asked.exclude.row(0).tolist() == task.gone.row(1).tolist()
    assert set(asked.shoppers.history.row(0)) <= set(asked.exclude.row(0))
    assert (asked.shoppers.history_ages_s > 0).all()
