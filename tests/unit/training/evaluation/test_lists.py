"""Cutting scores to lists, choosing settings, and the order of methods on shoppers with two tastes."""

import numpy as np
import pytest

from protos.arrays import Rows
from services.training import baselines
from services.training.baselines import DAY_US, Interactions
from services.training.evaluation import lists as module
from services.training.evaluation.lists import rank
from services.training.evaluation.tuning import tune

NOTHING = np.zeros(5)


def test_a_list_is_the_best_first_without_what_is_gone(monkeypatch):
    scores = np.array([[0.1, 0.9, 0.5, 0.0, 0.7], [0.4, 0.3, 0.2, 0.1, 0.0]], np.float32)
    gone = Rows.of([[1], []])

    found = rank(lambda batch: scores[batch].copy(), 2, 5, gone, NOTHING, k=3)
    monkeypatch.setattr(module, "_AT_ONCE", 5)  # a row at a time
    again = rank(lambda batch: scores[batch].copy(), 2, 5, gone, NOTHING, k=3)

    assert found.tolist() == [[4, 2, 0], [0, 1, 2]]
    assert np.array_equal(found, again)


def test_what_a_method_knows_nothing_about_stands_behind_by_recent_popularity():
    behind = np.array([1.0, 5.0, 3.0, 2.0, 4.0])
    scores = np.array([[0, 0, 0.2, 0, 0]], np.float32)

    assert rank(lambda batch: scores.copy(), 1, 5, Rows.empty(1), behind, k=5).tolist() == [[2, 1, 4, 3, 0]]


def test_only_what_is_allowed_is_listed_and_a_short_list_ends_early():
    allowed = np.array([True, False, True, False, False])

    found = rank(lambda batch: np.ones((1, 5), np.float32), 1, 5, Rows.of([[2]]), NOTHING, lambda query: allowed, k=3)

    assert found.tolist() == [[0, -1, -1]]


def test_a_list_longer_than_the_catalogue_is_the_catalogue():
    assert rank(lambda batch: np.ones((1, 5), np.float32), 1, 5, Rows.empty(1), NOTHING, k=7).tolist() == [
        [0, 1, 2, 3, 4, -1, -1]
    ]


def test_settings_are_sought_one_axis_at_a_time_and_nothing_is_tried_twice():
    tried = []

    def attempt(settings):
        tried.append(dict(settings))
        return {"up": settings["a"] + settings["b"], "down": -settings["a"]}

    found = tune({"a": (1, 2, 3), "b": (0, 5)}, ("up", "down"), attempt)

    assert found["up"].settings == {"a": 3, "b": 5}
    assert found["down"].settings == {"a": 1, "b": 0}
    assert found["up"].reached == 8
    assert len(tried) == len({tuple(one.items()) for one in tried}) == found["up"].tried


def two_tastes(n=60, n_items=20, each=6, seed=3):
    """Even shoppers have even items; the last shopper has one even item only."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n), each)
    items = rng.integers(0, n_items // 2, n * each) * 2 + users % 2
    users, items = np.append(users, n), np.append(items, 0)
    now = 1_000 * DAY_US
    return Interactions(
        users.astype(np.int64),
        items.astype(np.int64),
        np.ones(len(users), np.float32),
        np.full(len(users), now - DAY_US),
        n + 1,
        n_items,
        now,
    )


@pytest.mark.parametrize(
    "method", [baselines.item_knn, baselines.user_knn, baselines.ease, lambda e: baselines.ials(e, factors=2)]
)
def test_every_personal_method_finds_the_taste_of_a_shopper_with_one_event(method):
    events = two_tastes()

    scores = method(events)(np.array([60]))[0]
    scores[0] = -np.inf

    assert (np.argsort(-scores)[:5] % 2 == 0).all()


def test_one_is_not_ones_own_neighbour():
    now = 10 * DAY_US
    alone = Interactions(
        np.array([0, 1]), np.array([0, 1]), np.ones(2, np.float32), np.array([now - 1, now - 1]), 2, 3, now
    )

    assert baselines.user_knn(alone)(np.array([0, 1])).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_items_in_blocks_are_the_same_neighbours(monkeypatch):
    events = two_tastes()
    whole = baselines.similar_items(events.matrix(), 5, 1.0)
    monkeypatch.setattr(baselines, "_CELLS_AT_ONCE", 60)

    assert np.allclose(baselines.similar_items(events.matrix(), 5, 1.0).toarray(), whole.toarray())


def test_implicit_als_repeats_with_its_seed():
    one, again = (baselines.ials(two_tastes(), factors=8, seed=5)(np.arange(10)) for _ in range(2))

    assert np.array_equal(one, again)


def test_what_was_bought_together_comes_first_and_a_context_counts_whole():
    from scipy import sparse

    baskets = sparse.csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]], np.float32))
    score = baselines.co_occurrence(baskets, shrink=0.0)

    alone, both = score(np.array([0, 1, 3]), np.array([0, 0, 2]))

    assert alone.argmax() == 1
    assert alone[3] == 0 < both[3]


def test_what_is_called_alike_comes_first_in_a_context():
    score = baselines.alike(["Fern Teapot", "Fern Mug", "Anchor Mug", "Stag Cushion"])

    assert score(np.array([0, 1]), np.array([0]))[0, 1:].argmax() == 0
