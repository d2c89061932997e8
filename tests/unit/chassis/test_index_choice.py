"""The choice of an index: cells by measured recall, exact where cells are no gain, and the same bytes twice."""

import numpy as np
import pytest

from protos import artefacts
from protos.arrays import Rows
from protos.artefacts import Artefact, Manifest
from services.chassis import index_choice
from services.chassis.index_choice import Index, choose, recall
from services.chassis.model import GenerateQueries, Shoppers
from services.chassis.retrieval import CELLS_FILE, VectorIndex, write_index

N, D = 12_000, 16


def in_groups(n: int = N, d: int = D, groups: int = 60, seed: int = 3) -> np.ndarray:
    """Vectors as a catalogue has them: around centres, and longer for what is popular."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, d))
    near = centres[rng.integers(0, groups, n)] + 0.3 * rng.normal(size=(n, d))
    return (near * rng.lognormal(0, 0.3, (n, 1))).astype(np.float32)


def of_shoppers(vectors: np.ndarray, n: int = 256, seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(vectors[rng.integers(0, len(vectors), (n, 2))].mean(1), np.float32)


def everywhere(n: int = N, d: int = 64) -> np.ndarray:
    """Vectors without any neighbourhood: no cell says anything about what is in it."""
    drawn = np.random.default_rng(1).normal(size=(n, d))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def best(vectors: np.ndarray, tower: np.ndarray, wanted: int, alive: np.ndarray | None = None) -> np.ndarray:
    scores = vectors @ tower
    if alive is not None:
        scores = np.where(alive, scores, -np.inf)
    return np.argsort(-scores, kind="stable")[:wanted]


VECTORS = in_groups()
CELLS, FIGURES = choose(VECTORS, of_shoppers(VECTORS))


def test_cells_find_what_an_exact_search_finds_for_shoppers_that_did_not_choose():
    others = of_shoppers(VECTORS, 100, seed=99)
    index = Index(VECTORS, CELLS)

    for wanted in (20, 100, 300, 1_000):
        truth = np.array([best(VECTORS, tower, wanted) for tower in others])
        assert recall(index.search(others, wanted)[1], truth) >= 0.99, wanted


def test_the_figures_say_what_was_chosen_and_what_it_costs():
    assert CELLS is not None
    assert FIGURES["index_cells"] == len(CELLS.centres) == int(2 * N**0.5)
    assert FIGURES["index_recall"] >= 0.99
    assert FIGURES["index_probes"] == CELLS.visited(300)
    assert 0 < FIGURES["index_scanned_share"] < 0.5
    assert FIGURES["index_bytes_an_item"] == 8 * D + 24
    assert FIGURES["index_us"] > 0
    assert FIGURES["index_exact_us"] > 0


def test_more_candidates_never_visit_fewer_cells_and_more_than_was_measured_visits_all():
    visited = [CELLS.visited(k) for k in (1, 100, 101, 300, 1_000, 1_001)]

    assert visited == sorted(visited)
    assert visited[-1] == len(CELLS.centres)


def test_scores_of_cells_are_exact():
    tower = of_shoppers(VECTORS, 1)
    scores, rows = Index(VECTORS, CELLS).search(tower, 50)

    np.testing.assert_allclose(scores[0], VECTORS[rows[0]] @ tower[0], rtol=1e-4, atol=1e-5)


def test_vectors_without_neighbourhoods_are_searched_exactly():
    cells, figures = choose(everywhere())

    assert cells is None
    assert figures["index_cells"] == 0
    assert figures["index_scanned_share"] > 0.5


def test_a_small_catalogue_is_searched_exactly_and_not_measured():
    cells, figures = choose(VECTORS[:5_000])

    assert cells is None
    assert figures == {"index_cells": 0.0, "index_bytes_an_item": 8 * D + 12}


def test_the_same_vectors_give_the_same_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_index(tmp_path / name, VECTORS, np.arange(N, dtype=np.int32), towers=of_shoppers(VECTORS))

    assert artefacts.hash_files(tmp_path / "one") == artefacts.hash_files(tmp_path / "two")
    assert CELLS_FILE in artefacts.hash_files(tmp_path / "one")


def test_a_small_catalogue_has_no_file_of_cells(tmp_path):
    write_index(tmp_path, VECTORS[:100], np.arange(100, dtype=np.int32), "sequence_")

    assert set(artefacts.hash_files(tmp_path)) == {"sequence_item_vectors.npy", "sequence_item_keys.npy"}


@pytest.mark.parametrize("share", [0.6, 0.05, 0.001])
def test_what_is_left_of_a_catalogue_is_found_in_cells_as_well(share):
    alive = np.random.default_rng(2).random(N) < share
    others = of_shoppers(VECTORS, 40, seed=98)
    wanted = min(100, int(alive.sum()))

    _, rows = Index(VECTORS, CELLS).search(others, wanted, alive)

    assert alive[rows].all()
    truth = np.array([best(VECTORS, tower, wanted, alive) for tower in others])
    assert recall(rows, truth) >= 0.99


def test_a_mask_that_changes_is_obeyed_at_once():
    tower, index = of_shoppers(VECTORS, 1), Index(VECTORS, CELLS)
    first = int(index.search(tower, 1, np.ones(N, bool))[1][0, 0])
    gone = np.ones(N, bool)
    gone[first] = False

    assert index.search(tower, 10, gone)[1][0].tolist() == best(VECTORS, tower[0], 10, gone).tolist()


def test_an_answer_is_full_even_where_the_nearest_cells_hold_too_little():
    lonely = np.vstack([VECTORS, np.full((1, D), 50, np.float32)])
    cells, _ = choose(lonely, of_shoppers(VECTORS))

    _, rows = Index(lonely, cells).search(np.ones((1, D), np.float32), 100)

    assert (rows >= 0).all()
    assert rows[0, 0] == N


def test_recall_counts_every_row_and_takes_no_gap_for_a_find():
    truth = np.array([[0, 1], [2, 3]])

    assert recall(truth, truth) == 1.0
    assert recall(np.array([[1, 0], [-1, -1]]), truth) == 0.5
    assert recall(np.array([[2, 3], [0, 1]]), truth) == 0.0


def loaded(folder, vectors: np.ndarray, keys: np.ndarray) -> VectorIndex:
    """What a service reads of what training wrote."""
    write_index(folder, vectors, keys)
    files = artefacts.hash_files(folder)
    manifest = Manifest("m", "generator", "v", "", {}, {}, {}, 7, {}, None, files)
    return VectorIndex.load(Artefact(folder, manifest))


def asked(exclude: list[list[int]], within: list[list[int]], count: int) -> GenerateQueries:
    q = len(exclude)
    nobody = Shoppers(
        Rows.empty(q), np.empty(0, np.uint8), np.empty(0, np.float32), Rows.empty(q), np.zeros(q, np.uint8)
    )
    return GenerateQueries(
        np.full(q, count, np.int32),
        nobody,
        Rows.of([np.array(row, np.int32) for row in exclude]),
        Rows.of([np.array(row, np.int32) for row in within]),
    )


def test_a_loaded_index_of_cells_excludes_keeps_within_and_leaves_out_what_is_gone(tmp_path):
    keys = np.arange(N, dtype=np.int32) * 2 + 1
    index = loaded(tmp_path, VECTORS, keys)
    tower = of_shoppers(VECTORS, 1)[0]
    order = best(VECTORS, tower, 60)
    alive = np.ones(N, bool)
    alive[order[0]] = False
    queries = asked([[], keys[order[1:4]].tolist(), []], [[], [], keys[order[:5]].tolist()], 20)

    found = index.candidates(queries, np.array([tower] * 3), np.ones(3, bool), alive).rows

    assert set(found.row(0)) <= set(keys[order[1:60]].tolist())
    assert len(np.intersect1d(found.row(0), keys[order[1:21]])) >= 19
    assert not np.isin(found.row(1), keys[order[:4]]).any()
    assert len(found.row(1)) == 20
    assert found.row(2).tolist() == keys[order[1:5]].tolist()


def test_an_aim_that_is_not_reached_visits_every_cell(monkeypatch):
    monkeypatch.setattr(index_choice, "AIM", 1.1)
    cells = index_choice._measured(VECTORS, index_choice._cells(VECTORS, 7), of_shoppers(VECTORS, 20), Index(VECTORS))

    assert set(cells.probes.tolist()) == {len(cells.centres)}
