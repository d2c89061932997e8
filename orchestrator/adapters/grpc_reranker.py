"""A Reranker service seen as a Reranker; scores that do not fit the question are not believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc.aio
import numpy as np

from orchestrator.adapters.grpc_channel import unary
from orchestrator.adapters.wire import shoppers_of
from orchestrator.core.model import Candidates, Loss, Query, Reranked, UserContext
from orchestrator.ports import DependencyError
from protos.arrays import Rows, WireError, pack_rows, unpack
from protos.tutti.v1 import reranking_pb2, reranking_pb2_grpc


class GrpcReranker:
    """
    The re-ranker with a replica behind each of *channels*.

    feature_digest: names the feature service the user's columns come from.
    """

    def __init__(self, channels: Sequence[grpc.aio.Channel], feature_digest: str, wall: Callable[[], float]) -> None:
        self._stubs = [reranking_pb2_grpc.RerankerStub(channel) for channel in channels]
        self._feature_digest = feature_digest
        self._wall = wall

    async def rerank(
        self, query: Query, user: UserContext, candidates: Candidates, timeout_s: float, replica: int = 0
    ) -> Reranked:
        """
        See the port.

        Raises:
            DependencyError: the call failed, or its answer has another length or is not all numbers.
        """
        request = question(query, user, candidates, self._feature_digest, self._wall)
        reply = await unary(self._stubs[replica].Rerank, request, timeout_s)
        try:
            scores = unpack(reply.scores, "<f4", (len(candidates),), "scores")
        except WireError as error:
            raise DependencyError(Loss.INVALID_REPLY, f"reranking: {error}") from error
        if not np.isfinite(scores).all():
            raise DependencyError(Loss.INVALID_REPLY, "reranking: scores that are not finite")
        return Reranked(scores, reply.model_version)


def question(
    query: Query, user: UserContext, candidates: Candidates, feature_digest: str, wall: Callable[[], float]
) -> reranking_pb2.RerankRequest:
    """What the re-ranker is asked about one query; *wall* says from when ages of events count."""
    return reranking_pb2.RerankRequest(
        queries=1,
        shoppers=shoppers_of(query, user, wall),
        candidates=pack_rows(Rows.of([candidates.keys])),
        sources=candidates.sources,
        source_scores=np.ascontiguousarray(candidates.source_scores, "<f4").tobytes(),
        source_ranks=np.ascontiguousarray(candidates.source_ranks, "<u2").tobytes(),
        user_numeric=user.numeric.astype("<f4").tobytes(),
        user_categorical=user.categorical,
        feature_digest=feature_digest,
    )
