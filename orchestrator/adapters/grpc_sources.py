"""A CandidateGenerator service seen as a CandidateSource; what it answers is checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import grpc.aio
import numpy as np

from orchestrator.adapters.coalescer import Asks, Joining, Method, alone
from orchestrator.adapters.grpc_channel import unary
from orchestrator.adapters.wire import shoppers_of
from orchestrator.core.model import Ask, Loss, Query, Retrieved, UserContext
from orchestrator.ports import DependencyError
from protos.arrays import Int32, WireError, pack_lists, unpack, unpack_rows
from protos.tutti.v1 import candidate_generation_pb2, candidate_generation_pb2_grpc


class Question(NamedTuple):
    """What is asked for one request."""

    query: Query
    user: UserContext
    ask: Ask


class GrpcSource:
    """
    One generator with a replica behind each of *channels*.

    size: tells the number of interned keys this process knows.
    joining: makes of a method who is asked; `alone` makes each question a call of its own.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[grpc.aio.Channel],
        size: Callable[[], int],
        vocabulary_digest: str,
        wall: Callable[[], float],
        joining: Joining[Question, Retrieved] = alone,
    ) -> None:
        self._name = name
        methods: list[Method[Question, Retrieved]] = [
            _Generate(
                name, candidate_generation_pb2_grpc.CandidateGeneratorStub(channel), size, vocabulary_digest, wall
            )
            for channel in channels
        ]
        self._asks: list[Asks[Question, Retrieved]] = [joining(method) for method in methods]

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
        return await self._asks[replica].ask(Question(query, user, ask), timeout_s)


class _Generate:
    """`CandidateGenerator.Generate` of one replica."""

    def __init__(
        self,
        name: str,
        stub: candidate_generation_pb2_grpc.CandidateGeneratorStub,
        size: Callable[[], int],
        vocabulary_digest: str,
        wall: Callable[[], float],
    ) -> None:
        self._name = name
        self._stub = stub
        self._size = size
        self._digest = vocabulary_digest
        self._wall = wall
        # Where each key stood when it was last seen: a key that stands twice in one list has stood elsewhere.
        self._stood = np.empty(0, np.int32)

    def encode(self, queries: Sequence[Question]) -> candidate_generation_pb2.GenerateRequest:
        asks = [ask for _, _, ask in queries]
        within = None
        if any(ask.within is not None for ask in asks):
            within = pack_lists([() if ask.within is None else ask.within for ask in asks])
        return candidate_generation_pb2.GenerateRequest(
            queries=len(queries),
            counts=np.array([ask.count for ask in asks], "<i4").tobytes(),
            shoppers=shoppers_of([(query, user) for query, user, _ in queries], self._wall()),
            exclude=pack_lists([ask.exclude for ask in asks]),
            within=within,
            vocabulary_digest=self._digest,
        )

    async def call(
        self, request: candidate_generation_pb2.GenerateRequest, timeout_s: float
    ) -> candidate_generation_pb2.GenerateReply:
        return await unary(self._stub.Generate, request, timeout_s)

    def decode(
        self, queries: Sequence[Question], reply: candidate_generation_pb2.GenerateReply
    ) -> Sequence[Retrieved | DependencyError]:
        try:
            rows = unpack_rows(reply.candidates, len(queries), "candidates")
            scores = unpack(reply.scores, "<f4", (len(rows.values),), "scores")
        except WireError as error:
            raise self._not_believed(str(error)) from error
        size = self._size()
        if size > len(self._stood):
            self._stood = np.zeros(size, np.int32)
        known = (rows.values >= 0) & (rows.values < size)
        are_known, are_numbers = bool(known.all()), bool(np.isfinite(scores).all())
        answers: list[Retrieved | DependencyError] = []
        ends = rows.offsets.tolist()
        for (_, _, ask), start, end in zip(queries, ends, ends[1:], strict=False):
            keys, own = rows.values[start:end], scores[start:end]
            if not are_known:
                # A model may be newer than this process: items it does not know yet are left out, not an error.
                keys, own = keys[known[start:end]], own[known[start:end]]
            if end - start > ask.count:
                answers.append(self._not_believed(f"{end - start} candidates; {ask.count} were asked for"))
            elif not (are_numbers or np.isfinite(own).all()):
                answers.append(self._not_believed("scores that are not finite"))
            elif self._comes_twice(keys):
                answers.append(self._not_believed("an item twice"))
            else:
                answers.append(Retrieved(keys, own, reply.model_version))
        return answers

    def _comes_twice(self, keys: Int32) -> bool:
        # A tenth of the time of np.unique: no sorting, and nothing has to be cleared.
        places = np.arange(len(keys), dtype=np.int32)
        self._stood[keys] = places
        return not np.array_equal(self._stood[keys], places)

    def _not_believed(self, what: str) -> DependencyError:
        return DependencyError(Loss.INVALID_REPLY, f"{self._name}: {what}")
