"""The sparse way comes to what the plain formulas come to, whoever asks, in whatever company."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis import scatter
from services.chassis.affinity import HALF_LIVES_D, NAMES, TABLES, Affinities, Demand, Peers, Table
from services.chassis.model import GenerateQueries, Shoppers
from services.chassis.retrieval import VectorIndex
from services.collaborative_filtering.model import METHODS, Parameters
from services.collaborative_filtering.serve import CollaborativeFiltering
from tests.support import dense_closeness

DAY_S = 86_400.0
PLACEMENTS = (
    common_pb2.PLACEMENT_HOME,
    common_pb2.PLACEMENT_ITEM,
    common_pb2.PLACEMENT_CART,
    common_pb2.PLACEMENT_CATEGORY,
)


def some_rows(rng, n_rows, n_columns, longest):
    """CSR with distinct columns a row, some rows empty."""
    lengths = rng.integers(0, min(longest, n_columns) + 1, n_rows)
    columns = [np.sort(rng.permutation(n_columns)[:n]) for n in lengths]
    values = rng.random(int(lengths.sum())).astype(np.float32) + np.float32(0.01)
    found = Rows.of(columns)
    return found.offsets, found.values, values


def some_affinities(rng, n_items, n_shoppers=30, longest=20, most=7):
    tables = {name: Table(*some_rows(rng, n_items, n_items, longest)) for name in TABLES}
    rarity = rng.random(n_items).astype(np.float32)
    peers = Peers(rarity, *some_rows(rng, n_items, n_shoppers, 12), *some_rows(rng, n_shoppers, n_items, longest), most)
    wanted = (rng.random(n_items) * (rng.random(n_items) < 0.6)).astype(np.float32)
    category = rng.integers(-1, 5, n_items).astype(np.int32)
    totals = np.bincount(category + 1, wanted, 6)
    share = np.where(category >= 0, wanted / np.maximum(totals[category + 1], 1e-9), 0).astype(np.float32)
    return Affinities(tables, peers, Demand(wanted, category, share), HALF_LIVES_D)


def some_shoppers(rng, q, n_items, longest=12):
    histories = [rng.integers(-1, n_items + 2, rng.integers(0, longest)) for _ in range(q)]
    history = Rows.of(histories)
    n = len(history.values)
    return Shoppers(
        history,
        rng.integers(0, 8, n).astype(np.uint8),
        (rng.random(n) * 200 * DAY_S).astype(np.float32),
        Rows.of([rng.integers(0, n_items, rng.integers(0, 3)) for _ in range(q)]),
        rng.choice(PLACEMENTS, q).astype(np.uint8),
    )


def some_model(rng, affinities, d=6):
    n_items = affinities.n_items
    keys = np.sort(rng.permutation(n_items)[: max(n_items - 3, 0)]).astype(np.int32)
    vectors = rng.normal(size=(len(keys), d)).astype(np.float32)

    def weights():
        drawn = rng.random(len(METHODS)) * (rng.random(len(METHODS)) < 0.7)
        return tuple(float(w) for w in [*drawn[:-1], 0.0])

    parameters = Parameters(dimensions=d, weights=weights(), item_weights=weights(), cart_weights=weights())
    return CollaborativeFiltering("", VectorIndex(vectors, keys), affinities, parameters)


def some_queries(rng, shoppers, n_items, count):
    q = len(shoppers)
    fences = [rng.integers(-1, n_items + 2, rng.integers(1, 40)) if rng.random() < 0.3 else [] for _ in range(q)]
    left_out = [rng.integers(-1, n_items + 2, rng.integers(1, 30)) if rng.random() < 0.5 else [] for _ in range(q)]
    return GenerateQueries(np.full(q, count, np.int32), shoppers, Rows.of(left_out), Rows.of(fences))


@pytest.fixture(params=["scipy", "numpy"])
def kernel(request, monkeypatch):
    """Both ways to add rows up: scipy's, and the one where scipy has none."""
    assert scatter._csc_matvec is not None
    if request.param == "numpy":
        monkeypatch.setattr(scatter, "_csc_matvec", None)


# 30 items: whole vectors are walked; 5,000: only what rows reach.
@pytest.mark.parametrize("n_items", [1, 30, 5_000])
def test_closeness_is_that_of_the_plain_formulas(kernel, n_items):
    rng = np.random.default_rng(n_items)
    affinities, shoppers = some_affinities(rng, n_items), some_shoppers(rng, 12, n_items)

    for i, rows in enumerate(affinities.of(shoppers, 10.0)):
        np.testing.assert_allclose(rows, dense_closeness.closeness(affinities, shoppers, 10.0, i), rtol=2e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_items=st.integers(1, 400), count=st.integers(1, 60))
def test_candidates_and_scores_are_those_of_the_plain_formulas(seed, n_items, count):
    rng = np.random.default_rng(seed)
    affinities, shoppers = some_affinities(rng, n_items), some_shoppers(rng, 6, n_items)
    model, queries = some_model(rng, affinities), some_queries(rng, shoppers, n_items, count)

    answer = model.generate(queries)

    for i in range(len(shoppers)):
        own = slice(answer.rows.offsets[i], answer.rows.offsets[i + 1])
        keys, scores = dense_closeness.candidates(model, queries, i)
        assert_same_order(answer.rows.values[own], answer.scores[own], keys, scores)


def assert_same_order(keys, scores, expected_keys, expected_scores):
    """The same scores, and the same keys but for neighbours that rounding could exchange, the last one included."""
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-3, atol=1e-3)
    expected = dict(zip(expected_keys.tolist(), expected_scores.tolist(), strict=True))
    for key, score in zip(keys.tolist(), scores.tolist(), strict=True):
        assert expected.get(key, expected_scores[-1]) == pytest.approx(score, rel=1e-3, abs=1e-3), key


@pytest.mark.parametrize("n_items", [30, 5_000])
def test_an_answer_does_not_depend_on_who_else_asks(n_items):
    """A page that asks a method let it propose on the other pages of the same batch too."""
    rng = np.random.default_rng(3)
    affinities, shoppers = some_affinities(rng, n_items), some_shoppers(rng, 16, n_items)
    model, queries = some_model(rng, affinities), some_queries(rng, shoppers, n_items, 10)

    together = model.generate(queries)

    for i in range(16):
        own = np.array([i])
        alone = model.generate(
            GenerateQueries(
                queries.counts[own], shoppers.take(own), queries.exclude.take(own)[0], queries.within.take(own)[0]
            )
        )
        assert together.rows.row(i).tolist() == alone.rows.values.tolist()
        of_batch = together.scores[together.rows.offsets[i] : together.rows.offsets[i + 1]]
        np.testing.assert_allclose(of_batch, alone.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_items", [30, 5_000])
def test_closeness_of_candidates_is_that_of_all_items_there(kernel, n_items):
    rng = np.random.default_rng(4)
    affinities, shoppers = some_affinities(rng, n_items), some_shoppers(rng, 9, n_items)
    candidates = Rows.of([rng.integers(-2, n_items + 3, n) for n in (0, 5, 1, 40, 0, 7, 7, 3, 200)])

    found = affinities.at(shoppers, candidates, 10.0)

    everything = np.concatenate([rows[None] for rows in affinities.of(shoppers, 10.0)])
    assert found.shape == (len(NAMES), len(candidates.values))
    assert found.dtype == np.float32
    for i in range(len(shoppers)):
        keys, own = candidates.row(i), slice(candidates.offsets[i], candidates.offsets[i + 1])
        known = (keys >= 0) & (keys < n_items)
        np.testing.assert_array_equal(found[:, own][:, known], everything[i][:, keys[known]])
        assert not found[:, own][:, ~known].any()


def test_two_who_read_at_once_do_not_mix_and_leave_nothing_behind():
    rng = np.random.default_rng(5)
    affinities, shoppers = some_affinities(rng, 500), some_shoppers(rng, 8, 500)
    alone = list(affinities.of(shoppers, 10.0))

    for one, other in zip(affinities.of(shoppers, 10.0), affinities.of(shoppers, 10.0), strict=True):
        np.testing.assert_array_equal(one, other)
    abandoned = affinities.of(shoppers, 10.0)
    next(abandoned)
    abandoned.close()

    for before, after in zip(alone, affinities.of(shoppers, 10.0), strict=True):
        np.testing.assert_array_equal(before, after)


def test_of_equals_the_smaller_key_is_among_the_best():
    values = np.array([2, 5, 2, 0, 2, 7], np.float32)

    assert sorted(scatter.best(values, np.array([9, 1, 4, 3, 6, 8]), 3).tolist()) == [1, 4, 8]
    assert sorted(scatter.best(values, np.arange(6), 5).tolist()) == [0, 1, 2, 4, 5]
    assert sorted(scatter.best(values, np.arange(6), 9).tolist()) == [0, 1, 2, 4, 5]


def test_a_table_too_long_for_its_counters_is_refused(monkeypatch):
    columns = np.lib.stride_tricks.as_strided(np.zeros(1, np.int32), (2**31,), (0,))

    with pytest.raises(ValueError, match="keep fewer a row"):
        scatter.Rows32(np.zeros(2, np.int64), columns, np.empty(0, np.float32))


def test_the_best_are_found_among_a_hundred_thousand_however_they_lie():
    """The guess looks at one value in a hundred: neither a run of large ones nor equals may be lost by it."""
    rng = np.random.default_rng(6)
    scattered = rng.random(100_000).astype(np.float32)
    in_a_run = np.where(np.arange(100_000) // 400 == 77, 1 + scattered, 0).astype(np.float32)
    equals = (scattered > 0.5).astype(np.float32)

    for values in (scattered, in_a_run, equals, np.sort(scattered), np.zeros_like(scattered)):
        places = scatter.promising(values, 300)
        found = scatter.best(values[places], places, 300)
        expected = np.argsort(-values, kind="stable")[:300]
        assert sorted(found.tolist()) == sorted(expected[values[expected] > 0].tolist())


def test_what_the_index_finds_in_order_is_taken_as_it_is_and_equals_go_by_key():
    index = VectorIndex(np.array([[3], [1], [1], [2]], np.float32), np.array([9, 7, 4, 5], np.int32))
    shoppers = some_shoppers(np.random.default_rng(0), 3, 10)
    left_out = Rows.of([[], [5], []])
    queries = GenerateQueries(np.array([2, 2, 4], np.int32), shoppers, left_out, Rows.empty(3))

    found = index.candidates(queries, np.ones((3, 1), np.float32), np.array([True, True, True]))

    assert [found.rows.row(i).tolist() for i in range(3)] == [[9, 5], [9, 4], [9, 5, 4, 7]]
    assert found.scores.tolist() == [3, 2, 3, 1, 3, 2, 1, 1]
