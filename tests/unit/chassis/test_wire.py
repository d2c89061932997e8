import numpy as np
import pytest

from protos.arrays import Rows, WireError, pack_rows
from protos.tutti.v1 import candidate_generation_pb2, common_pb2, reranking_pb2
from services.chassis import wire
from services.chassis.model import Candidates


def some_shoppers(q: int = 2, **changes: object) -> common_pb2.Shoppers:
    fields = {
        "history": pack_rows(Rows.of([[3, 1], *[[]] * (q - 1)])),
        "history_types": bytes([1, 6]),
        "history_ages_s": np.array([60, 1.5], "<f4").tobytes(),
        "placements": bytes([1] * q),
    }
    return common_pb2.Shoppers(**{**fields, **changes})


def a_generate(q: int = 2, **changes: object) -> candidate_generation_pb2.GenerateRequest:
    fields = {"queries": q, "counts": np.full(q, 10, "<i4").tobytes(), "shoppers": some_shoppers(q)}
    return candidate_generation_pb2.GenerateRequest(**{**fields, **changes})


def a_rerank(**changes: object) -> reranking_pb2.RerankRequest:
    fields = {
        "queries": 2,
        "shoppers": some_shoppers(),
        "candidates": pack_rows(Rows.of([[5, 6], [7]])),
        "sources": ["a", "b"],
        "source_scores": np.arange(6, dtype="<f4").tobytes(),
        "source_ranks": np.arange(6, dtype="<u2").tobytes(),
        "user_numeric": np.arange(6, dtype="<f4").tobytes(),
        "user_categorical": ["x", "y"],
        "feature_digest": "d",
    }
    return reranking_pb2.RerankRequest(**{**fields, **changes})


def test_a_generate_request_becomes_columnar_arrays():
    queries = wire.read_generate(a_generate(exclude=pack_rows(Rows.of([[9], []]))))

    assert queries.counts.tolist() == [10, 10]
    assert [queries.shoppers.history.row(i).tolist() for i in range(2)] == [[3, 1], []]
    assert queries.shoppers.history_types.tolist() == [1, 6]
    assert queries.shoppers.history_ages_s.tolist() == [60, 1.5]
    assert queries.exclude.row(0).tolist() == [9]
    assert len(queries.within) == 2
    assert queries.within.values.size == 0


def test_a_rerank_request_becomes_matrices_of_the_given_widths():
    queries = wire.read_rerank(a_rerank())

    assert queries.source_scores.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert queries.source_ranks.shape == (3, 2)
    assert queries.user_numeric.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert queries.user_categorical.tolist() == [["x"], ["y"]]
    assert queries.sources == ("a", "b")


def test_a_rerank_request_without_candidates_sources_or_columns_is_legal():
    queries = wire.read_rerank(reranking_pb2.RerankRequest(queries=1, shoppers=common_pb2.Shoppers(placements=b"\x01")))

    assert queries.source_scores.shape == (0, 0)
    assert queries.user_numeric.shape == (1, 0)
    assert queries.user_categorical.shape == (1, 0)


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (a_generate(queries=0), "queries"),
        (a_generate(queries=4_000_000_000), "counts"),
        (a_generate(counts=np.array([0, 5], "<i4").tobytes()), "counts"),
        (a_generate(counts=np.array([1001, 5], "<i4").tobytes()), "counts"),
        (a_generate(shoppers=some_shoppers(history_types=b"\x01")), "history_types"),
        (a_generate(shoppers=some_shoppers(placements=b"\x01")), "placements"),
        (a_generate(shoppers=some_shoppers(history_ages_s=np.array([-1, 0], "<f4").tobytes())), "history_ages_s"),
        (a_generate(shoppers=some_shoppers(history_ages_s=np.array([np.nan, 0], "<f4").tobytes())), "history_ages_s"),
        (a_generate(exclude=pack_rows(Rows.of([[1]]))), "exclude"),
    ],
)
def test_a_contradictory_generate_request_is_refused_and_the_field_named(request_, named):
    with pytest.raises(WireError, match=named):
        wire.read_generate(request_)


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (a_rerank(queries=0), "queries"),
        (a_rerank(queries=4_000_000_000), "placements"),
        (a_rerank(source_scores=b"1234"), "source_scores"),
        (a_rerank(source_ranks=b"12"), "source_ranks"),
        (a_rerank(user_numeric=b"1234"), "user_numeric"),
        (a_rerank(user_categorical=["x"]), "user_categorical"),
    ],
)
def test_a_contradictory_rerank_request_is_refused_and_the_field_named(request_, named):
    with pytest.raises(WireError, match=named):
        wire.read_rerank(request_)


def test_an_answer_keeps_its_rows_scores_and_version():
    answer = Candidates(Rows.of([[4, 2], []]), np.array([0.5, 0.25], np.float32))

    reply = wire.write_candidates(answer, [2, 1], "v1")

    assert np.frombuffer(reply.candidates.values, "<i4").tolist() == [4, 2]
    assert np.frombuffer(reply.scores, "<f4").tolist() == [0.5, 0.25]
    assert reply.model_version == "v1"


@pytest.mark.parametrize(
    "answer",
    [
        Candidates(Rows.of([[4, 2]]), np.array([0.5, 0.25], np.float32)),
        Candidates(Rows.of([[4, 2, 3], []]), np.array([3, 2, 1], np.float32)),
        Candidates(Rows.of([[4, 2], []]), np.array([0.5], np.float32)),
        Candidates(Rows.of([[4, 2], []]), np.array([np.nan, 0.5], np.float32)),
    ],
    ids=["a row missing", "more than asked for", "a score missing", "not a number"],
)
def test_a_model_that_breaks_its_promise_is_caught_before_the_wire(answer):
    with pytest.raises(wire.ModelFault):
        wire.write_candidates(answer, [2, 1], "v1")


def test_scores_that_are_not_finite_are_the_models_fault():
    with pytest.raises(wire.ModelFault):
        wire.write_scores(np.array([1, np.inf], np.float32), Rows.of([[1, 2]]), "v1")
