"""The network in weights of eight bits: nearly the same, the same alone and in a batch, and used only where it wins."""

import numpy as np
import pytest
import torch

from services.reranking import quantising, sessions
from services.reranking.lists import Lists
from services.reranking.network import CrossNetwork, write_onnx
from services.reranking.quantising import serves

WIDTH, LENGTHS = 40, np.array([30, 1, 0, 70])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """A network as it was trained and in int8."""
    torch.manual_seed(0)
    network = CrossNetwork(
        np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32), (5, 7), 4, 2, 8, (16, 8), dropout=0.0
    )
    network.eval()
    folder = tmp_path_factory.mktemp("graphs")
    write_onnx([network], folder / "network.onnx")
    quantising.write(folder / "network.onnx", folder / "network.int8.onnx")
    return folder / "network.onnx", folder / "network.int8.onnx"


def some_lists():
    """Lists of uneven lengths; the last one's numbers are far larger than the others'."""
    rng = np.random.default_rng(1)
    n = int(LENGTHS.sum())
    dense = rng.normal(size=(n, WIDTH)).astype(np.float32)
    dense[-70:] *= 3
    codes = np.column_stack([rng.integers(0, 5, n), rng.integers(0, 7, n)])
    return Lists(np.concatenate([[0], np.cumsum(LENGTHS)]), dense, codes, np.ones(n, np.float32))


def test_eight_bits_say_nearly_the_same(graphs):
    rows = some_lists()

    scores, time_share = quantising.compared(*graphs, rows)

    exact = sessions.by_network(sessions.opened(graphs[0].read_bytes()), rows.dense, rows.codes, None)
    assert scores.shape == exact.shape
    assert not np.array_equal(scores, exact)
    assert np.corrcoef(scores, exact)[0, 1] > 0.99
    assert time_share > 0


# Activations are scaled by the largest of a run: run together, one list's outlier would move another's scores.
def test_a_list_scores_the_same_whoever_else_is_in_the_call(graphs):
    rows, session = some_lists(), sessions.opened(graphs[1].read_bytes())

    together = sessions.by_network(session, rows.dense, rows.codes, rows.offsets)

    alone = sessions.by_network(session, rows.dense[:30], rows.codes[:30], np.array([0, 30]))
    np.testing.assert_array_equal(together[:30], alone)


def test_rows_are_cut_into_runs_without_changing_a_score(graphs):
    session, rng = sessions.opened(graphs[0].read_bytes()), np.random.default_rng(2)
    dense = rng.normal(size=(2001, WIDTH)).astype(np.float32)
    codes = np.column_stack([rng.integers(0, 5, 2001), rng.integers(0, 7, 2001)])

    scores = sessions.by_network(session, dense, codes, None)

    (whole,) = session.run(None, {"dense": dense, "codes": codes})
    np.testing.assert_allclose(scores, whole, atol=1e-6)
    assert sessions.by_network(session, dense[:0], codes[:0], np.array([0, 0])).shape == (0,)


@pytest.mark.parametrize(
    ("quantise", "ndcg_int8", "time_share", "expected"),
    [
        ("auto", 0.300, 0.6, True),
        ("auto", 0.2986, 0.6, True),
        ("auto", 0.2984, 0.6, False),
        ("auto", 0.310, 0.85, False),
        ("never", 0.310, 0.1, False),
        ("int8", 0.100, 2.0, True),
    ],
)
def test_it_serves_where_it_wins_and_costs_next_to_nothing(quantise, ndcg_int8, time_share, expected):
    assert serves(quantise, 0.3, ndcg_int8, time_share) is expected
