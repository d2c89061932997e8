"""A Reranker service seen as a Reranker; scores that do not fit the question are not believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import grpc.aio
import numpy as np

from orchestrator.adapters.coalescer import Asks, Joining, Method, alone
from orchestrator.adapters.grpc_channel import unary
from orchestrator.adapters.wire import shoppers_of
from orchestrator.core.model import Candidates, Loss, Query, Reranked, UserContext
from orchestrator.ports import DependencyError
from protos.arrays import WireError, pack_lists, unpack
from protos.tutti.v1 import reranking_pb2, reranking_pb2_grpc


class Question(NamedTuple):
    """What is asked for one request."""

    query: Query
    user: UserContext
    candidates: Candidates


class GrpcReranker:
    """
    The re-ranker with a replica behind each of *channels*.

    feature_digest: names the feature service the user's columns come from.
    joining: makes of a method who is asked; `alone` makes each question a call of its own.
    """

    def __init__(
        self,
        channels: Sequence[grpc.aio.Channel],
        feature_digest: str,
        wall: Callable[[], float],
        joining: Joining[Question, Reranked] = alone,
    ) -> None:
        self._stubs = [reranking_pb2_grpc.RerankerStub(channel) for channel in channels]
        self._feature_digest = feature_digest
        self._wall = wall
        self._joining = joining
        # A request names its columns once, so only questions about the same sources share one.
        self._asks: dict[tuple[int, tuple[str, ...]], Asks[Question, Reranked]] = {}

    async def rerank(
        self, query: Query, user: UserContext, candidates: Candidates, timeout_s: float, replica: int = 0
    ) -> Reranked:
        """
        See the port.

        Raises:
            DependencyError: the call failed, or its answer has another length or is not all numbers.
        """
        key = replica, candidates.sources
        asks = self._asks.get(key)
        if asks is None:
            method: Method[Question, Reranked] = _Rerank(self._stubs[replica], self._feature_digest, self._wall)
            asks = self._asks[key] = self._joining(method)
        return await asks.ask(Question(query, user, candidates), timeout_s)


class _Rerank:
    """`Reranker.Rerank` of one replica, for questions about the same sources."""

    def __init__(self, stub: reranking_pb2_grpc.RerankerStub, feature_digest: str, wall: Callable[[], float]) -> None:
        self._stub = stub
        self._feature_digest = feature_digest
        self._wall = wall

    def encode(self, queries: Sequence[Question]) -> reranking_pb2.RerankRequest:
        return request_of(queries, self._feature_digest, self._wall())

    async def call(self, request: reranking_pb2.RerankRequest, timeout_s: float) -> reranking_pb2.RerankReply:
        return await unary(self._stub.Rerank, request, timeout_s)

    def decode(
        self, queries: Sequence[Question], reply: reranking_pb2.RerankReply
    ) -> Sequence[Reranked | DependencyError]:
        try:
            scores = unpack(reply.scores, "<f4", (sum(len(asked.candidates) for asked in queries),), "scores")
        except WireError as error:
            raise DependencyError(Loss.INVALID_REPLY, f"reranking: {error}") from error
        answers: list[Reranked | DependencyError] = []
        end, are_numbers = 0, bool(np.isfinite(scores).all())
        for asked in queries:
            own = scores[end : (end := end + len(asked.candidates))]
            if are_numbers or np.isfinite(own).all():
                answers.append(Reranked(own, reply.model_version))
            else:
                answers.append(DependencyError(Loss.INVALID_REPLY, "reranking: scores that are not finite"))
        return answers


def request_of(asked: Sequence[Question], feature_digest: str, now_s: float) -> reranking_pb2.RerankRequest:
    """What the re-ranker is asked about these queries; from *now_s*, seconds since the epoch, ages of events count."""
    candidates = [question.candidates for question in asked]
    users = [question.user for question in asked]
    return reranking_pb2.RerankRequest(
        queries=len(asked),
        shoppers=shoppers_of([(question.query, question.user) for question in asked], now_s),
        candidates=pack_lists([of_one.keys for of_one in candidates]),
        sources=candidates[0].sources,
        source_scores=b"".join([of_one.source_scores.astype("<f4", copy=False).tobytes() for of_one in candidates]),
        source_ranks=b"".join([of_one.source_ranks.astype("<u2", copy=False).tobytes() for of_one in candidates]),
        user_numeric=b"".join([user.numeric.astype("<f4", copy=False).tobytes() for user in users]),
        user_categorical=[word for user in users for word in user.categorical],
        feature_digest=feature_digest,
    )
