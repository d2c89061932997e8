"""The re-ranker's parts: features that cannot differ between training and serving, and one network in two formats."""

import numpy as np
import onnxruntime
import pytest
import torch

from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis.model import RerankQueries, Shoppers
from services.reranking.encoding import Encoder
from services.reranking.model import Features, ItemTable, Layout
from services.reranking.neighbours import Neighbours, learn
from services.reranking.network import CrossNetwork, write_onnx

DAY_S = 86_400.0
N_ITEMS = 8

USER = Encoder.learn(
    ["profile__mean_price"],
    ["profile__favourite_brand"],
    np.array([[1.0], [5.0], [np.nan]], np.float32),
    np.array([["a"], ["a"], ["a"]], object),
)
ITEM = Encoder.learn(
    ["catalogue__price"],
    ["catalogue__brand"],
    np.arange(N_ITEMS, dtype=np.float32)[:, None],
    np.array([["a"], ["b"]] * 4, object),
)
LAYOUT = Layout.of(["cf", "cb"], USER, ITEM)
NEIGHBOURS = learn(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 2, 3]), np.ones(6, np.float32), (3, N_ITEMS))
FEATURES = Features(LAYOUT, NEIGHBOURS)
ITEMS = ItemTable.of(LAYOUT, np.arange(N_ITEMS, dtype=np.float32)[:, None], np.array([["a"], ["b"]] * 4, object))


def some_queries(candidates, history=None, types=None, ages_d=None, context=None, sources=("cf", "cb"), scores=None):
    """Queries of one shopper each, with two sources that found everything unless *scores* says otherwise."""
    q = len(candidates)
    rows = Rows.of(candidates)
    history = Rows.of(history if history is not None else [[]] * q)
    n = len(rows.values)
    if scores is None:
        scores = np.tile(-np.arange(n, dtype=np.float32)[:, None], (1, len(sources)))
    ranks = np.where(np.isfinite(scores), np.arange(1, n + 1)[:, None], 0).astype(np.uint16)
    return RerankQueries(
        Shoppers(
            history,
            np.array(types if types is not None else [6] * len(history.values), np.uint8),
            np.array(ages_d if ages_d is not None else [1] * len(history.values), np.float32) * np.float32(DAY_S),
            Rows.of(context if context is not None else [[]] * q),
            np.full(q, common_pb2.PLACEMENT_HOME, np.uint8),
        ),
        rows,
        tuple(sources),
        np.asarray(scores, np.float32),
        ranks,
        np.full((q, 1), 3.0, np.float32),
        np.full((q, 1), "a", object),
        "digest",
    )


def test_crosses_are_found_by_name():
    assert LAYOUT.same == ((0, 0),)
    assert LAYOUT.near == ((0, 0),)


def test_rows_are_finite_and_the_same_alone_and_in_a_batch():
    both = FEATURES.rows(some_queries([[0, 1, 2], [3, 1]], [[0, 1], [2]], context=[[], [4]]), ITEMS)
    first = FEATURES.rows(some_queries([[0, 1, 2]], [[0, 1]]), ITEMS)

    assert np.isfinite(both.dense).all()
    np.testing.assert_allclose(both.dense[:3], first.dense, rtol=1e-5)
    assert (both.codes[:3] == first.codes).all()


def test_sources_are_matched_by_name_not_by_place():
    scores = np.array([[3.0, np.nan], [2.0, 7.0]], np.float32)
    straight = FEATURES.rows(some_queries([[0, 1]], sources=("cf", "cb"), scores=scores), ITEMS)
    turned = FEATURES.rows(some_queries([[0, 1]], sources=("cb", "cf"), scores=scores[:, ::-1]), ITEMS)
    stranger = FEATURES.rows(some_queries([[0, 1]], sources=("cf", "new"), scores=scores), ITEMS)

    np.testing.assert_allclose(straight.dense, turned.dense)
    assert stranger.dense.shape == straight.dense.shape


def test_an_item_the_table_does_not_know_is_all_gaps():
    rows = FEATURES.rows(some_queries([[N_ITEMS + 5, -1]]), ITEMS)

    assert np.isfinite(rows.dense).all()
    assert (rows.codes[:, 1] == 0).all()


def test_a_recent_purchase_of_this_item_is_nearer_than_an_old_one():
    rows = FEATURES.rows(some_queries([[0, 1, 2]], [[0, 1]], ages_d=[1, 300]), ITEMS).dense

    assert not np.allclose(rows[0], rows[2])
    assert not np.allclose(rows[0], rows[1])


def test_neighbours_are_those_wanted_by_the_same_shoppers():
    assert NEIGHBOURS.keys[0, 0] == 1
    assert NEIGHBOURS.similarities[0, 0] == pytest.approx(1.0)
    assert NEIGHBOURS.keys[5, 0] == -1


def test_closeness_adds_up_weight_times_similarity_and_gives_a_repeated_candidate_the_same():
    table = Neighbours(np.array([[1, 2], [0, -1], [0, -1]], np.int32), np.array([[0.5, 0.25], [0.5, 0], [0.25, 0]]))

    close = table.closeness(
        np.array([0, 0, 1]),
        np.array([0, 1, 0]),
        np.array([2.0, 1.0, 4.0], np.float32),
        np.array([0, 0, 0, 1]),
        np.array([1, 2, 1, 2]),
    )

    assert close.tolist() == [1.0, 0.5, 1.0, 1.0]


def test_encoders_name_gaps_and_strangers():
    encoded = USER.encode(np.array([[2.0], [np.nan]], np.float32), np.array([["never seen"], [""]], object))

    assert encoded.codes[:, 0].tolist() == [1, 0]
    assert encoded.dense[:, 1].tolist() == [0.0, 1.0]
    assert np.isfinite(encoded.dense).all()
    assert USER.dense_names == ("profile__mean_price", "profile__mean_price missing")


def test_a_layout_survives_json():
    import json

    assert Layout.from_json(json.loads(json.dumps(LAYOUT.to_json()))) == LAYOUT


def test_onnx_scores_are_the_network_scores(tmp_path):
    torch.manual_seed(0)
    network = CrossNetwork(
        np.linspace(-1, 1, 12).astype(np.float32), np.ones(12, np.float32), (5, 7), 4, 2, 3, (16, 8), dropout=0.5
    )
    network.eval()
    write_onnx(network, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession((tmp_path / "network.onnx").read_bytes())
    rng = np.random.default_rng(0)

    for n in (1, 33):
        dense = (rng.normal(size=(n, 12)) * 5).astype(np.float32)
        codes = np.column_stack([rng.integers(0, 5, n), rng.integers(0, 7, n)])
        (scores,) = session.run(None, {"dense": dense, "codes": codes})
        with torch.no_grad():
            expected = network(torch.from_numpy(dense), torch.from_numpy(codes)).numpy()
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_network_without_categorical_columns_is_exported_too(tmp_path):
    network = CrossNetwork(np.zeros(3, np.float32), np.ones(3, np.float32), (), 4, 1, 2, (4,), dropout=0.0)

    write_onnx(network, tmp_path / "network.onnx")

    session = onnxruntime.InferenceSession((tmp_path / "network.onnx").read_bytes())
    (scores,) = session.run(None, {"dense": np.ones((2, 3), np.float32), "codes": np.zeros((2, 0), np.int64)})
    assert scores.shape == (2,)
