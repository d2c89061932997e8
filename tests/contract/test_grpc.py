"""The gRPC adapters against a real server on loopback; and what only a wire can do wrong."""

import asyncio

import grpc
import numpy as np
import pytest

from orchestrator.adapters.coalescer import Coalescer
from orchestrator.adapters.grpc_channel import LOSS_OF_STATUS, open_channel
from orchestrator.adapters.grpc_reranker import GrpcReranker
from orchestrator.adapters.grpc_sources import GrpcSource
from orchestrator.adapters.wire import PLACEMENT_CODE
from orchestrator.core.coalescing import Lane
from orchestrator.core.model import Loss, Placement, UserContext
from orchestrator.ports import DependencyError
from protos.arrays import Rows, pack_rows, unpack_rows
from tests.contract.candidate_source import TIMEOUT_S, CandidateSourceContract, an_ask
from tests.contract.reranker import RerankerContract
from tests.support.builders import PURCHASE, VIEW, a_query, a_user, candidates_of
from tests.support.model_server import Toy, serving
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

N_ITEMS = 50
NOW_S = 1_000.0
STATUS_OF = {loss: status for status, loss in reversed(LOSS_OF_STATUS.items())}


@pytest.fixture
async def toy():
    return Toy()


@pytest.fixture
async def channel(toy):
    async with serving(toy) as target, open_channel(target) as channel:
        yield channel


@pytest.fixture
def source(channel):
    return GrpcSource("toy", [channel], lambda: N_ITEMS, "vocabulary-1", lambda: NOW_S)


@pytest.fixture
def reranker(channel):
    return GrpcReranker([channel], "plan-1", lambda: NOW_S)


@pytest.fixture
def fail(toy):
    def fail(loss):
        toy.status = STATUS_OF[loss]

    return fail


class TestGrpcSource(CandidateSourceContract):
    @pytest.fixture
    def hang(self, toy):
        def hang():
            toy.gate.clear()
            return toy.gate.set

        return hang


class TestGrpcReranker(RerankerContract):
    pass


def joined(method):
    return Coalescer(method, Lane())


class TestJoinedGrpcSource(TestGrpcSource):
    @pytest.fixture
    def source(self, channel):
        return GrpcSource("toy", [channel], lambda: N_ITEMS, "vocabulary-1", lambda: NOW_S, joined)


class TestJoinedGrpcReranker(RerankerContract):
    @pytest.fixture
    def reranker(self, channel):
        return GrpcReranker([channel], "plan-1", lambda: NOW_S, joined)


async def the_loss(awaitable):
    with pytest.raises(DependencyError) as failed:
        await awaitable
    return failed.value.loss, str(failed.value)


def retrieve(source, timeout_s=TIMEOUT_S, **about):
    return source.retrieve(a_query(**about), a_user((1,)), an_ask(), timeout_s)


def rerank(reranker, *keys):
    return reranker.rerank(a_query(), a_user((1,)), candidates_of({"a": keys or (1, 2, 3)}), TIMEOUT_S)


def test_every_status_has_a_loss_and_none_is_without_a_name():
    assert LOSS_OF_STATUS.keys() == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert Loss.UNCLASSIFIED not in LOSS_OF_STATUS.values()


@pytest.mark.parametrize("status", LOSS_OF_STATUS, ids=lambda status: status.name)
async def test_a_status_becomes_its_loss_and_says_what_the_server_said(source, toy, status):
    toy.status = status

    loss, message = await the_loss(retrieve(source))

    assert loss is LOSS_OF_STATUS[status]
    assert message == f"{status.name}: as told"


async def test_a_server_that_hangs_is_left_at_the_deadline(source, toy):
    toy.gate.clear()

    loss, _ = await the_loss(retrieve(source, timeout_s=0.05))

    assert loss is Loss.DEADLINE


async def test_a_server_that_is_not_there_is_unavailable():
    async with open_channel(f"127.0.0.1:{free_port()}") as channel:
        loss, _ = await the_loss(retrieve(GrpcSource("toy", [channel], lambda: N_ITEMS, "", lambda: NOW_S)))

    assert loss is Loss.UNAVAILABLE


async def test_something_else_on_the_port_is_unavailable():
    async def greets(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greets, "127.0.0.1", 0)
    async with server, open_channel(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as channel:
        loss, _ = await the_loss(retrieve(GrpcSource("toy", [channel], lambda: N_ITEMS, "", lambda: NOW_S)))

    assert loss is Loss.UNAVAILABLE


def scores(*values):
    return np.asarray(values, "<f4").tobytes()


def a_reply_of(keys, values):
    def bend(reply):
        reply.candidates.CopyFrom(pack_rows(Rows.of([keys])))
        reply.scores = scores(*values)
        return reply

    return bend


@pytest.mark.parametrize(
    ("keys", "values", "says"),
    [
        ([1, 2], [1.0, np.nan], "not finite"),
        ([1, 2], [np.inf, 1.0], "not finite"),
        ([1, 2], [1.0], "scores has 4 bytes; 8 expected"),
        ([1], [1.0, 2.0], "scores has 8 bytes; 4 expected"),
        ([1, 2, 1], [3.0, 2.0, 1.0], "an item twice"),
        (list(range(11)), [1.0] * 11, "11 candidates; 10 were asked for"),
    ],
)
async def test_an_answer_that_contradicts_itself_or_the_question_is_not_believed(source, toy, keys, values, says):
    toy.bend = a_reply_of(keys, values)

    loss, message = await the_loss(retrieve(source))

    assert loss is Loss.INVALID_REPLY
    assert message.startswith("toy: ")
    assert says in message


async def test_an_answer_to_two_queries_is_not_believed_when_one_was_asked(source, toy):
    def bend(reply):
        reply.candidates.CopyFrom(pack_rows(Rows.of([[1], [2]])))
        reply.scores = scores(1, 2)
        return reply

    toy.bend = bend

    assert (await the_loss(retrieve(source)))[0] is Loss.INVALID_REPLY


async def test_items_this_process_does_not_know_yet_are_left_out(source, toy):
    toy.bend = a_reply_of([7, N_ITEMS, -1, 3], [4.0, 3.0, 2.0, 1.0])

    found = await retrieve(source)

    assert found.keys.tolist() == [7, 3]
    assert found.scores.tolist() == [4.0, 1.0]


@pytest.mark.parametrize("placement", Placement)
async def test_the_question_arrives_as_it_was_asked(source, toy, placement):
    user = UserContext(
        np.empty(0, np.float32),
        (),
        np.asarray([4, 5], np.int32),
        np.asarray([VIEW, PURCHASE], np.uint8),
        # The second one is from a clock that is ahead of ours.
        np.asarray([(NOW_S - 60) * 1e6, (NOW_S + 5) * 1e6], np.int64),
    )
    query = a_query(placement=placement, context_keys=(8,), cart_keys=(9, 10))

    await source.retrieve(query, user, an_ask(25, exclude=[8]), TIMEOUT_S)

    (request,) = toy.requests
    assert request.queries == 1
    assert np.frombuffer(request.counts, "<i4").tolist() == [25]
    assert unpack_rows(request.shoppers.history, 1, "").values.tolist() == [4, 5]
    assert list(request.shoppers.history_types) == [VIEW, PURCHASE]
    assert np.frombuffer(request.shoppers.history_ages_s, "<f4").tolist() == [60.0, 0.0]
    assert unpack_rows(request.shoppers.context, 1, "").values.tolist() == list(query.focus_keys)
    assert list(request.shoppers.placements) == [PLACEMENT_CODE[placement]]
    assert unpack_rows(request.exclude, 1, "").values.tolist() == [8]
    assert not request.HasField("within")
    assert request.vocabulary_digest == "vocabulary-1"


def test_every_placement_has_a_code_of_its_own():
    assert PLACEMENT_CODE.keys() == set(Placement)
    assert len(set(PLACEMENT_CODE.values())) == len(Placement)
    assert 0 not in PLACEMENT_CODE.values()


async def test_the_reranker_is_told_who_found_what_and_which_features_these_are(reranker, toy):
    candidates = candidates_of({"a": [5, 6], "b": [6]})
    user = a_user((1,), numeric=(0.5, np.nan), categorical=("x", ""))

    await reranker.rerank(a_query(), user, candidates, TIMEOUT_S)

    (request,) = toy.requests
    assert unpack_rows(request.candidates, 1, "").values.tolist() == [6, 5]
    assert list(request.sources) == ["a", "b"]
    assert np.frombuffer(request.source_ranks, "<u2").reshape(2, 2).tolist() == [[2, 1], [1, 0]]
    by_source = np.frombuffer(request.source_scores, "<f4").reshape(2, 2)
    np.testing.assert_array_equal(by_source, candidates.source_scores)
    assert np.isnan(by_source[1, 1])
    np.testing.assert_array_equal(np.frombuffer(request.user_numeric, "<f4"), [0.5, np.nan])
    assert list(request.user_categorical) == ["x", ""]
    assert request.feature_digest == "plan-1"


@pytest.mark.parametrize(
    ("values", "says"),
    [([1.0, 2.0], "8 bytes; 12 expected"), ([1.0, 2.0, np.nan], "not finite"), ([1.0, -np.inf, 2.0], "not finite")],
)
async def test_scores_that_do_not_fit_the_question_are_not_believed(reranker, toy, values, says):
    def bend(reply):
        reply.scores = scores(*values)
        return reply

    toy.bend = bend

    loss, message = await the_loss(rerank(reranker, 1, 2, 3))

    assert loss is Loss.INVALID_REPLY
    assert says in message


@pytest.fixture
def joined_source(channel):
    return GrpcSource("toy", [channel], lambda: N_ITEMS, "vocabulary-1", lambda: NOW_S, joined)


@pytest.fixture
def joined_reranker(channel):
    return GrpcReranker([channel], "plan-1", lambda: NOW_S, joined)


async def test_what_is_asked_at_once_shares_a_call_and_everybody_gets_their_own(joined_source, toy):
    asks = [
        (a_user((1,)), an_ask(3)),
        (a_user((1, 2)), an_ask(4, exclude=[9, 8])),
        (a_user(()), an_ask(5)),
        (a_user((3,)), an_ask(2, within=[2, 4, 6])),
    ]

    found = await asyncio.gather(*(joined_source.retrieve(a_query(), user, ask, TIMEOUT_S) for user, ask in asks))

    assert [answer.keys.tolist() for answer in found] == [[9, 8, 7], [7, 6, 5, 4], [], [6, 4]]
    assert [request.queries for request in toy.requests] == [4]


async def test_a_row_that_is_not_believed_is_lost_alone(joined_source, toy):
    def bend(reply):
        if len(reply.candidates.offsets) > 8:
            reply.candidates.CopyFrom(pack_rows(Rows.of([[5, 6], [1, 1], [2, 3], [4, N_ITEMS]])))
            reply.scores = scores(2, 1, 2, 1, 2, np.nan, 2, 1)
        return reply

    toy.bend = bend
    answers = await asyncio.gather(*(retrieve(joined_source) for _ in range(4)), return_exceptions=True)

    assert answers[0].keys.tolist() == [5, 6]
    assert "an item twice" in str(answers[1])
    assert "not finite" in str(answers[2])
    assert answers[3].keys.tolist() == [4]


async def test_scores_of_joined_questions_go_back_to_who_asked(joined_reranker, toy):
    answers = await asyncio.gather(*(rerank(joined_reranker, *keys) for keys in [(1, 2), (5,), (7, 3, 4)]))

    assert [sorted(answer.scores.tolist()) for answer in answers] == [[1, 2], [5], [3, 4, 7]]
    assert [request.queries for request in toy.requests] == [3]


async def test_questions_about_other_sources_do_not_share_a_call(joined_reranker, toy):
    asked = [candidates_of({"a": [1]}), candidates_of({"a": [2]}), candidates_of({"a": [3], "b": [3]})]

    await asyncio.gather(*(joined_reranker.rerank(a_query(), a_user((1,)), some, TIMEOUT_S) for some in asked))

    assert sorted((tuple(request.sources), request.queries) for request in toy.requests) == [
        (("a",), 2),
        (("a", "b"), 1),
    ]
