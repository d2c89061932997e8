"""The re-ranker's parts: features that cannot differ between training and serving, and one network in two formats."""

import numpy as np
import onnxruntime
import pytest
import torch

from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis.model import RerankQueries, Shoppers
from services.reranking import trees
from services.reranking.blend import Blend, calibrated, expected_calibration_error, mixed
from services.reranking.encoding import Encoder
from services.reranking.items import ItemTable, Layout
from services.reranking.model import Features
from services.reranking.network import CrossNetwork, write_onnx
from services.training import affinity
from tests.support.small_dataset import a_dataset

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
FEATURES = Features(LAYOUT, affinity.learn(a_dataset()))
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


def test_closeness_is_known_of_a_candidate_whoever_proposed_it():
    some = np.array([[3.0, np.nan], [2.0, 7.0]], np.float32)
    none = np.full((2, 2), np.nan, np.float32)

    found = FEATURES.rows(some_queries([[0, 2]], [[4, 6]], scores=some), ITEMS).dense
    unfound = FEATURES.rows(some_queries([[0, 2]], [[4, 6]], scores=none), ITEMS).dense

    sources = 4 * len(LAYOUT.sources) + 3
    np.testing.assert_array_equal(found[:, sources:], unfound[:, sources:])


def test_the_rows_say_whether_what_was_touched_is_left_out():
    everything = FEATURES.rows(some_queries([[0, 1, 2, 3]], [[0, 1]]), ITEMS).dense[:, -1]
    new_alone = FEATURES.rows(some_queries([[2, 3]], [[0, 1]]), ITEMS).dense[:, -1]

    assert everything.tolist() == [0.5] * 4
    assert new_alone.tolist() == [0.0] * 2


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
    write_onnx([network], tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession((tmp_path / "network.onnx").read_bytes())
    rng = np.random.default_rng(0)

    for n in (1, 33):
        dense = (rng.normal(size=(n, 12)) * 5).astype(np.float32)
        codes = np.column_stack([rng.integers(0, 5, n), rng.integers(0, 7, n)])
        (scores,) = session.run(None, {"dense": dense, "codes": codes})
        with torch.no_grad():
            expected = network(torch.from_numpy(dense), torch.from_numpy(codes)).numpy()
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_several_networks_are_written_as_their_mean(tmp_path):
    torch.manual_seed(0)
    networks = [
        CrossNetwork(np.zeros(3, np.float32), np.ones(3, np.float32), (5,), 4, 1, 2, (4,), dropout=0.0)
        for _ in range(3)
    ]
    for network in networks:
        network.eval()

    write_onnx(networks, tmp_path / "network.onnx")

    session = onnxruntime.InferenceSession((tmp_path / "network.onnx").read_bytes())
    dense, codes = np.ones((2, 3), np.float32), np.array([[1], [4]])
    (scores,) = session.run(None, {"dense": dense, "codes": codes})
    with torch.no_grad():
        each = [network(torch.from_numpy(dense), torch.from_numpy(codes)).numpy() for network in networks]
    np.testing.assert_allclose(scores, np.mean(each, axis=0), atol=1e-6)


def test_a_network_without_categorical_columns_is_exported_too(tmp_path):
    network = CrossNetwork(np.zeros(3, np.float32), np.ones(3, np.float32), (), 4, 1, 2, (4,), dropout=0.0)

    write_onnx([network], tmp_path / "network.onnx")

    session = onnxruntime.InferenceSession((tmp_path / "network.onnx").read_bytes())
    (scores,) = session.run(None, {"dense": np.ones((2, 3), np.float32), "codes": np.zeros((2, 0), np.int64)})
    assert scores.shape == (2,)


def some_lists(seed=0, lists=60, rows=20):
    """Lists in which the first column decides what is wanted, the second is noise."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(lists * rows, 2)).astype(np.float32)
    gains = np.where(dense[:, 0] + 0.3 * rng.normal(size=len(dense)) > 1.2, 2.0, 0.0).astype(np.float32)
    return dense, gains, np.full(lists, rows)


def test_onnx_trees_score_as_lightgbm_does_also_on_its_own_thresholds(tmp_path):
    dense, gains, lengths = some_lists()
    booster = trees.learn(dense, gains, lengths, trees.Parameters(trees=20, min_rows_a_leaf=5), 7)
    trees.write_onnx(booster, tmp_path / "trees.onnx")
    session = onnxruntime.InferenceSession((tmp_path / "trees.onnx").read_bytes())
    splits = booster.trees_to_dataframe()["threshold"].dropna().to_numpy(np.float32)
    on_the_edge = np.column_stack([splits, np.zeros_like(splits)])

    for rows in (dense, on_the_edge):
        (scores,) = session.run(None, {"dense": rows})
        np.testing.assert_allclose(scores, booster.predict(rows), atol=1e-5)


def test_trees_learn_what_decides_and_come_out_the_same_twice():
    dense, gains, lengths = some_lists()
    used = trees.Parameters(trees=30, min_rows_a_leaf=5)

    once, again = (trees.learn(dense, gains, lengths, used, 7) for _ in range(2))

    np.testing.assert_array_equal(once.predict(dense), again.predict(dense))
    unseen, wanted, _ = some_lists(seed=1)
    scores = once.predict(unseen)
    assert scores[wanted > 0].mean() > scores[wanted == 0].mean() + 1


def test_a_blend_is_a_probability_in_the_order_of_its_parts():
    network, by_trees = np.array([0.0, 1.0, 2.0], np.float32), np.array([5.0, 0.0, 9.0], np.float32)

    likely = Blend(1.0, 0.5, 2.0, -3.0).of(network, by_trees)

    assert np.argsort(likely).tolist() == np.argsort(network + 0.5 * by_trees).tolist()
    assert ((likely > 0) & (likely < 1)).all()
    assert np.isfinite(Blend().of(np.array([np.nan, np.inf], np.float32), np.zeros(2, np.float32))).all()


def test_either_learner_has_the_share_of_the_spread_that_it_was_given():
    network, by_trees = np.array([0.0, 2.0], np.float32), np.array([0.0, 20.0], np.float32)

    a, b = mixed(0.25, network, by_trees)

    assert (a * network).std() == pytest.approx(0.75)
    assert (b * by_trees).std() == pytest.approx(0.25)


def test_calibration_finds_the_line_that_made_the_clicks():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=50_000)
    wanted = rng.random(len(scores)) < 1 / (1 + np.exp(-(1.5 * scores - 2)))

    slope, intercept = calibrated(scores, wanted)

    assert slope == pytest.approx(1.5, abs=0.05)
    assert intercept == pytest.approx(-2, abs=0.05)
    likely = Blend(1.0, 0.0, slope, intercept).of(scores.astype(np.float32), np.zeros(len(scores), np.float32))
    assert expected_calibration_error(likely, wanted) < 0.01
    assert expected_calibration_error(likely / 2, wanted) > 0.05


def test_scores_that_say_nothing_are_calibrated_without_turning_the_order():
    slope, _ = calibrated(np.array([3.0, 2.0, 1.0]), np.array([False, False, True]))

    assert slope > 0
