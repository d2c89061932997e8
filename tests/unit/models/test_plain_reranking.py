"""The re-ranker's rows are those of the plain formula, whatever is asked, alone and in batches."""

import numpy as np
import pytest

from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis.model import RerankQueries, Shoppers
from services.reranking.encoding import Encoder
from services.reranking.items import ItemTable, Layout
from services.reranking.model import Features
from services.training import affinity
from tests.support.plain_reranking import PlainFeatures, PlainItems
from tests.support.small_dataset import N_ITEMS, a_dataset

AFFINITIES = affinity.learn(a_dataset())
COLOURS = np.array(["red", "blue", "green", "", "rare"], object)


def a_shop(rng):
    """Items and their encoders; some numbers and words are missing, some words no encoder has learnt."""
    numeric = np.exp(rng.normal(size=(N_ITEMS, 3)) * 3).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.2] = np.nan
    words = rng.choice(COLOURS, (N_ITEMS, 2))
    item = Encoder.learn(("c__price", "c__age", "c__stock"), ("c__colour", "c__brand"), numeric, words)
    user_numeric = np.exp(rng.normal(size=(30, 2))).astype(np.float32)
    user_numeric[::5] = np.nan
    user = Encoder.learn(
        ("p__mean_price", "p__visits"),
        ("p__favourite_colour", "p__favourite_brand"),
        user_numeric,
        rng.choice(COLOURS, (30, 2)),
    )
    return Layout.of(["cf", "cb", "lost"], user, item), numeric, words


def some_queries(rng, lengths, longest_history=30):
    """One query a length: candidates in and beyond the catalogue, some twice, histories, contexts, lost sources."""
    q, n = len(lengths), sum(lengths)
    history = Rows.of([rng.integers(-1, N_ITEMS + 3, rng.integers(0, longest_history + 1)) for _ in range(q)])
    m = len(history.values)
    scores = rng.normal(size=(n, 3)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.4] = np.nan
    ranks = np.where(np.isfinite(scores), rng.integers(1, 200, scores.shape), 0).astype(np.uint16)
    user_numeric = np.exp(rng.normal(size=(q, 2))).astype(np.float32)
    user_numeric[rng.random((q, 2)) < 0.3] = np.nan
    return RerankQueries(
        Shoppers(
            history,
            rng.integers(0, 8, m).astype(np.uint8),
            (rng.exponential(size=m) * 40 * 86_400).astype(np.float32),
            Rows.of([rng.integers(0, N_ITEMS, rng.integers(0, 3)) for _ in range(q)]),
            rng.choice(common_pb2.Placement.values(), q).astype(np.uint8),
        ),
        Rows.of([rng.integers(-2, N_ITEMS + 4, length) for length in lengths]),
        ("cb", "stranger", "cf"),
        scores,
        ranks,
        user_numeric,
        rng.choice(np.array(["red", "blue", "", "never seen"], object), (q, 2)),
        "digest",
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("lengths", [[40], [25] * 6, [3, 0, 50, 1, 0, 17], [0], [0, 0]], ids=str)
def test_rows_are_those_of_the_plain_formula(seed, lengths):
    rng = np.random.default_rng(seed)
    layout, numeric, words = a_shop(rng)
    queries = some_queries(rng, lengths)

    rows = Features(layout, AFFINITIES).rows(queries, ItemTable.of(layout, numeric, words))

    plain = PlainFeatures(layout, AFFINITIES).rows(queries, PlainItems(layout, numeric, words))
    np.testing.assert_array_equal(rows.codes, plain.codes)
    assert rows.dense.shape == plain.dense.shape
    assert rows.dense.dtype == np.float32
    np.testing.assert_allclose(rows.dense, plain.dense, rtol=2e-5, atol=2e-5)


def test_rows_of_items_as_they_once_were_are_those_of_the_plain_formula():
    rng = np.random.default_rng(5)
    layout, numeric, words = a_shop(rng)
    queries = some_queries(rng, [20, 30])
    at = rng.integers(0, N_ITEMS + 1, 50)

    rows = Features(layout, AFFINITIES).rows(queries, ItemTable.of(layout, numeric, words), at)

    plain = PlainFeatures(layout, AFFINITIES).rows(queries, PlainItems(layout, numeric, words), at)
    np.testing.assert_allclose(rows.dense, plain.dense, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(rows.codes, plain.codes)


def test_a_shopper_without_history_among_others_gets_what_they_get_alone():
    rng = np.random.default_rng(8)
    layout, numeric, words = a_shop(rng)
    features, items = Features(layout, AFFINITIES), ItemTable.of(layout, numeric, words)
    queries = some_queries(rng, [12, 12, 30], longest_history=0)

    rows = features.rows(queries, items)

    plain = PlainFeatures(layout, AFFINITIES).rows(queries, PlainItems(layout, numeric, words))
    np.testing.assert_allclose(rows.dense, plain.dense, rtol=2e-5, atol=2e-5)
