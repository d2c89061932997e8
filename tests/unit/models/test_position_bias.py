"""Clicks by position, where the truth is known: what stood low and was wanted is put first by weights alone."""

import numpy as np
import pytest
import torch

from services.reranking import lists, trees
from services.reranking.lists import Lists
from services.reranking.model import ItemTable
from services.reranking.network import CrossNetwork
from services.reranking.train import _loss
from services.training.examination import HARVEST, Examination
from services.training.lessons import Lesson
from tests.support.small_dataset import a_dataset
from tests.unit.models.test_reranking import FEATURES, ITEMS, N_ITEMS, some_queries

EXAMINED = np.array([1.0, 0.5, 0.25, 0.12, 0.1, 0.1])
"""How six positions are looked at."""

WANTED, PUSHED = 0.6, 0.25
"""How often an item is clicked that is seen: of the kind shoppers want, and of the kind the old ranker put first."""


def clicked_lists(n=4000, seed=5):
    """
    n lists of six: the old ranker put the pushed kind into the first places, four times in five.

    Column 0 says whether an item is of the wanted kind, column 1 is noise.
    """
    rng = np.random.default_rng(seed)
    kinds = np.where(rng.random((n, 1)) < 0.8, [0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    clicks = rng.random((n, 6)) < EXAMINED * np.where(kinds == 1, WANTED, PUSHED)
    dense = np.stack([kinds, rng.random((n, 6))], 2).astype(np.float32)
    some = clicks.any(1)
    return dense[some], clicks[some].astype(np.float32)


def as_lists(dense, clicks, weights=None):
    """As `lists.Shelf` makes them: gains by weight, lists by how much more they say than was done."""
    q, k = clicks.shape
    gains = clicks if weights is None else clicks * weights
    by_list = None if weights is None else (gains.sum(1) / clicks.sum(1)).astype(np.float32)
    return Lists(
        np.arange(q + 1) * k,
        dense.reshape(q * k, -1),
        np.zeros((q * k, 0), np.int64),
        gains.reshape(-1).astype(np.float32),
        by_list,
    )


def weights_of_positions():
    return Examination(EXAMINED, HARVEST, 1000).weights(np.arange(1, 7))


def by_trees(rows):
    used = trees.Parameters(trees=30, leaves=4, column_share=1.0)
    booster = trees.learn(rows.dense, rows.gains, rows.lengths, used, 3, rows.weights)
    wanted, pushed = booster.predict(np.array([[1, 0.5], [0, 0.5]], np.float32))
    return float(wanted - pushed)


def by_network(rows):
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    network = CrossNetwork(rows.dense.mean(0), np.ones(2, np.float32), (), 2, 1, 2, (4,), 0.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(150):
        loss = _loss(network, rows, rng.integers(0, len(rows), 256))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        wanted, pushed = network(torch.tensor([[1, 0.5], [0, 0.5]]), torch.zeros((2, 0), dtype=torch.int64))
    return float(wanted - pushed)


@pytest.mark.parametrize("margin", [by_trees, by_network])
def test_weights_put_first_what_was_wanted_where_plain_clicks_repeat_the_old_order(margin):
    dense, clicks = clicked_lists()

    assert margin(as_lists(dense, clicks)) < 0
    assert margin(as_lists(dense, clicks, weights_of_positions())) > 0


def a_lesson(candidates, gains, seen, **about):
    queries = some_queries(candidates)
    return Lesson(
        queries,
        np.array(gains, np.float32),
        np.arange(len(candidates)),
        np.arange(N_ITEMS, dtype=np.float32)[:, None],
        np.array([["a"], ["b"]] * 4, object),
        a_dataset(),
        **({"seen": np.array(seen, np.float32)} if seen is not None else {}) | about,
    )


def rows_of(*lessons, negatives=None, items=ITEMS):
    taken = [lists.Taken(one, np.arange(len(one.queries.candidates)), negatives) for one in lessons]
    shelf, rng = lists.Shelf(sum(one.most_rows() for one in taken)), np.random.default_rng(1)
    for one in taken:
        shelf.put(one, FEATURES, items, rng)
    return shelf.lists()


def test_what_nobody_can_have_seen_is_no_row_and_the_rest_is_encoded_among_it():
    whole = rows_of(a_lesson([[0, 1, 2, 3]], [0, 1, 0, 0], None))
    seen = rows_of(a_lesson([[0, 1, 2, 3]], [0, 1, 0, 0], [1, 1, 0, 0]))

    assert seen.lengths.tolist() == [2]
    np.testing.assert_array_equal(seen.dense, whole.dense[:2])


def test_a_list_counts_for_as_many_as_looked_there():
    rows = rows_of(a_lesson([[0, 1], [2, 3], [4, 5]], [1, 0, 0, 1, 0, 0], [1, 2, 1, 4, 1, 2]))

    assert rows.lengths.tolist() == [2, 2]
    assert rows.gains.tolist() == [1, 0, 0, 4]
    assert rows.weights.tolist() == [1, 4]


def test_thinning_keeps_all_that_was_wanted_of_what_was_seen():
    rows = rows_of(a_lesson([[0, 1, 2, 3, 4, 5]], [0, 1, 0, 0, 0, 1], [1, 2, 0, 1, 1, 4]), negatives=1)

    assert sorted(rows.gains.tolist()) == [0, 2, 4]


def test_an_item_is_read_as_it_was_served():
    numeric = np.array([[7.0], [3.0]], np.float32)
    lesson = a_lesson([[0, 1]], [1, 0], [1, 1], item_rows=np.array([1, 0]), affinities=FEATURES.affinities)
    items = ItemTable.of(FEATURES.layout, numeric, np.array([["a"], ["b"]], object))
    turned = ItemTable.of(FEATURES.layout, numeric[::-1], np.array([["b"], ["a"]], object))

    served = rows_of(lesson, items=items)

    np.testing.assert_array_equal(served.dense, FEATURES.rows(some_queries([[0, 1]]), turned).dense)


def test_lessons_with_and_without_weights_go_together():
    plain, weighted = a_lesson([[0, 1]], [1, 0], None), a_lesson([[2, 3]], [0, 1], [1, 3])
    nothing = a_lesson([[4, 5]], [0, 0], [1, 1])

    both = rows_of(plain, nothing, weighted)

    assert both.weights.tolist() == [1, 3]
    assert both.only(np.array([False, True])).weights.tolist() == [3]
    assert rows_of(plain, nothing).weights is None
    assert rows_of(nothing) is None


@pytest.mark.parametrize("negatives", [None, 1])
def test_lists_made_batch_by_batch_are_those_of_one_batch(monkeypatch, negatives):
    lessons = [
        a_lesson([[0, 1, 2], [3, 4], [5], [], [6, 7, 0]], [1, 0, 0, 0, 0, 1, 0, 1, 1], None),
        a_lesson([[0, 1], [2, 3]], [1, 0, 0, 2], None),
    ]
    whole = rows_of(*lessons, negatives=negatives)
    monkeypatch.setattr(lists, "_BATCH", 2)

    parts = rows_of(*lessons, negatives=negatives)

    for column in ("offsets", "dense", "codes", "gains"):
        np.testing.assert_array_equal(getattr(parts, column), getattr(whole, column))
    assert sorted(parts.gains[parts.gains > 0].tolist()) == [1, 1, 1, 1, 1, 2]


def test_a_shelf_has_room_for_exactly_what_is_put():
    lesson = a_lesson([[0, 1, 2, 3, 4], [5, 6], [7]], [0, 1, 0, 0, 1, 0, 0, 1], None)

    for negatives in (None, 1, 2, 80):
        taken = lists.Taken(lesson, np.arange(3), negatives)

        assert taken.most_rows() == len(rows_of(lesson, negatives=negatives).gains)
