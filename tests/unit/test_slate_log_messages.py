"""Messages of the slate log and their rows: what was asked comes back as it was, what is no slate is refused."""

import numpy as np
import pytest

from protos import slate_log
from protos.slate_log import NoSlate, made_row, served_row
from protos.tutti.v1 import reranking_pb2, slate_log_pb2
from services.chassis.wire import read_rerank
from tests.contract.slate_log import asked_about
from tests.support.builders import a_user, changed
from tests.support.slate_log import a_made, a_served


def test_what_the_reranker_was_asked_is_read_back_to_the_bit():
    user = changed(a_user((1, 2), numeric=(0.5, np.nan), categorical=("a",)), as_of_us=5_000_000)
    asked = asked_about(5, 9, 2, user=user)

    row = made_row(a_made(keys=(5, 9, 2), user=user))
    queries = read_rerank(reranking_pb2.RerankRequest.FromString(row["asked"]))

    assert queries.candidates.row(0).tolist() == asked.candidates.keys.tolist()
    assert queries.sources == asked.candidates.sources
    np.testing.assert_array_equal(queries.source_scores, asked.candidates.source_scores)
    np.testing.assert_array_equal(queries.source_ranks, asked.candidates.source_ranks)
    np.testing.assert_array_equal(queries.user_numeric, [[0.5, np.nan]])
    assert queries.user_categorical.tolist() == [["a"]]
    assert queries.shoppers.history.row(0).tolist() == [1, 2]
    assert queries.shoppers.history_ages_s.tolist() == [5.0, 4.0]
    np.testing.assert_array_equal(row["scores"], asked.answer.scores)


def test_rows_fit_their_tables():
    served = slate_log.table([served_row(a_served()), served_row(a_served("r2", made_as=""))], slate_log.SERVED_SCHEMA)
    made = slate_log.table([made_row(a_made())], slate_log.MADE_SCHEMA)

    assert served.column("keys").to_pylist() == [[5, 9], [5, 9]]
    assert served.column("made_as").to_pylist() == ["r1", None]
    assert made.column("item_keys").to_pylist() == [[5, 9]]
    assert np.allclose(made.column("item_numeric").to_pylist(), [[0.5, 0.9]])
    assert made.column("item_categorical").to_pylist() == [["brand1", "brand1"]]


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff not a message",
        b"",
        slate_log_pb2.ServedSlate(recommendation_id="r", keys=b"abc").SerializeToString(),
        slate_log_pb2.ServedSlate(recommendation_id="r", keys=b"\0" * 8, scores=b"\0" * 4).SerializeToString(),
        slate_log_pb2.ServedSlate(recommendation_id="r", keys=b"\0" * 4, scores=b"\0" * 4).SerializeToString(),
    ],
)
def test_what_is_no_served_slate_is_refused(raw):
    with pytest.raises(NoSlate):
        served_row(raw)


@pytest.mark.parametrize(
    "about",
    [
        {"made_as": ""},
        {"scores": b"\0" * 4},
        {"item_keys": b""},
        {"item_numeric": b"\0" * 4},
        {"item_categorical": ["one"]},
        {"asked": reranking_pb2.RerankRequest(queries=2)},
    ],
)
def test_what_is_no_made_slate_is_refused(about):
    message = slate_log_pb2.MadeSlate.FromString(a_made())
    for name, value in about.items():
        message.ClearField(name)
        if isinstance(value, list):
            getattr(message, name).extend(value)
        elif isinstance(value, reranking_pb2.RerankRequest):
            message.asked.CopyFrom(value)
        else:
            setattr(message, name, value)

    with pytest.raises(NoSlate):
        made_row(message.SerializeToString())
