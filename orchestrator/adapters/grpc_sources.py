"""A CandidateGenerator service seen as a CandidateSource; what it answers is checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc.aio
import numpy as np

from orchestrator.adapters.grpc_channel import unary
from orchestrator.adapters.wire import shoppers_of
from orchestrator.core.model import Ask, Loss, Query, Retrieved, UserContext
from orchestrator.ports import DependencyError
from protos.arrays import Rows, WireError, pack_rows, unpack, unpack_rows
from protos.tutti.v1 import candidate_generation_pb2, candidate_generation_pb2_grpc


class GrpcSource:
    """
    One generator with a replica behind each of *channels*.

    size: tells the number of interned keys this process knows.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[grpc.aio.Channel],
        size: Callable[[], int],
        vocabulary_digest: str,
        wall: Callable[[], float],
    ) -> None:
        self._name = name
        self._stubs = [candidate_generation_pb2_grpc.CandidateGeneratorStub(channel) for channel in channels]
        self._size = size
        self._digest = vocabulary_digest
        self._wall = wall

    @property
    def name(self) -> str:
        return self._name

    async def retrieve(
        self, query: Query, user: UserContext, ask: Ask, timeout_s: float, replica: int = 0
    ) -> Retrieved:
        """
        See the port.

        Raises:
            DependencyError: the call failed, or its answer contradicts itself (INVALID_REPLY).
        """
        request = candidate_generation_pb2.GenerateRequest(
            queries=1,
            counts=np.asarray([ask.count], "<i4").tobytes(),
            shoppers=shoppers_of(query, user, self._wall),
            exclude=pack_rows(Rows.of([ask.exclude])),
            within=None if ask.within is None else pack_rows(Rows.of([ask.within])),
            vocabulary_digest=self._digest,
        )
        reply = await unary(self._stubs[replica].Generate, request, timeout_s)
        try:
            keys = unpack_rows(reply.candidates, 1, "candidates").values
            scores = unpack(reply.scores, "<f4", (len(keys),), "scores")
        except WireError as error:
            raise DependencyError(Loss.INVALID_REPLY, f"{self._name}: {error}") from error
        if len(keys) > ask.count:
            found = f"{len(keys)} candidates; {ask.count} were asked for"
            raise DependencyError(Loss.INVALID_REPLY, f"{self._name}: {found}")
        return self._believed(keys, scores, reply.model_version)

    def _believed(self, keys: np.ndarray, scores: np.ndarray, version: str) -> Retrieved:
        """The answer, when every key is known, none comes twice and every score is a number."""
        if not np.isfinite(scores).all():
            raise DependencyError(Loss.INVALID_REPLY, f"{self._name}: scores that are not finite")
        if len(np.unique(keys)) != len(keys):
            raise DependencyError(Loss.INVALID_REPLY, f"{self._name}: an item twice")
        # A model may be newer than this process: items it does not know yet are left out, not an error.
        known = (keys >= 0) & (keys < self._size())
        return Retrieved(keys[known], scores[known], version)
