"""What nobody wanted yet: categories take turns, by the share they have earned, and none is shut out."""

import numpy as np

from services.training import popular, prior
from tests.support.small_dataset import a_dataset


def ordered(categories, strengths=None):
    n = len(categories)
    values = np.zeros(n, np.float32) if strengths is None else np.array(strengths, np.float32)
    return prior.order(np.arange(n), np.array(categories, object), values).tolist()


def test_without_an_event_categories_take_turns_in_the_order_of_the_catalogue():
    assert ordered(["mugs", "mugs", "mugs", "lamps", "lamps", ""]) == [0, 3, 5, 1, 4, 2]


def test_a_wanted_category_comes_more_often_and_the_others_still_come():
    # Three events: mugs count 4, lamps 1. Divisors of four mugs: ⅛, ⅜, ⅝, ⅞; of two lamps: ½, 1½.
    assert ordered(["mugs"] * 4 + ["lamps"] * 2, [3, 0, 0, 0, 0, 0]) == [0, 1, 4, 2, 3, 5]


def test_only_the_given_items_are_ordered_and_all_of_them_are_kept():
    keys = prior.order(np.array([5, 1, 4]), np.array(["a", "a", "b", "b", "b", "a"], object), np.zeros(6, np.float32))

    assert keys.tolist() == [5, 4, 1]
    assert keys.dtype == np.int32


def test_nothing_to_order_is_nothing():
    assert prior.order(np.empty(0, np.int64), np.array(["a"], object), np.zeros(1, np.float32)).tolist() == []


def test_a_shop_without_events_has_a_popular_order_that_shows_both_its_shelves(tmp_path):
    opened = a_dataset().before(0)

    fitted = popular.fit(opened, {}, 7, tmp_path)

    with np.load(tmp_path / popular.FILE) as stored:
        keys, scores = stored["keys"], stored["scores"]
    assert sorted(keys.tolist()) == list(range(opened.n_items))
    assert {opened.items.categories[key] for key in keys[:2].tolist()} == {"Home > Light", "Home > Kitchen"}
    assert not scores.any()
    assert fitted.metrics["has_events"] == 0


def test_what_was_wanted_stays_in_front_of_what_was_not(tmp_path):
    dataset = a_dataset()

    popular.fit(dataset, {}, 7, tmp_path)

    with np.load(tmp_path / popular.FILE) as stored:
        keys = stored["keys"]
    expected, _ = popular.ranking(dataset, 7.0)
    wanted = len(np.unique(dataset.keys))
    assert keys[:wanted].tolist() == expected[:wanted].tolist()
    assert sorted(keys.tolist()) == sorted(expected.tolist())
