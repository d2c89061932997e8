"""
The two roles as gRPC services: decode, run the model in its thread, encode; errors become status codes here.

| what happened                          | status              |
|----------------------------------------|---------------------|
| arrays that contradict each other      | INVALID_ARGUMENT    |
| the deadline passed before its turn    | DEADLINE_EXCEEDED   |
| trained on another feature service     | FAILED_PRECONDITION |
| too many calls at once (the server)    | RESOURCE_EXHAUSTED  |
| anything else: a bug, logged as such   | INTERNAL            |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import grpc
import numpy as np
import structlog

from protos.arrays import Rows, WireError, pack_rows
from protos.tutti.v1 import (
    candidate_generation_pb2,
    candidate_generation_pb2_grpc,
    common_pb2,
    reranking_pb2,
    reranking_pb2_grpc,
)
from services.chassis import wire
from services.chassis.faults import NO_FAULT, Faults, bend, meet
from services.chassis.model import FeatureSkew, Generator, Ranker, UnusableQueries
from services.chassis.stalls import Stalls
from services.chassis.telemetry import ServiceMetrics
from services.chassis.worker import DeadlinePassed, ModelWorker

Reply = TypeVar("Reply", candidate_generation_pb2.GenerateReply, reranking_pb2.RerankReply)


class _Role:
    """What both roles share: one answer, or one status code, for each call."""

    def __init__(
        self,
        worker: ModelWorker,
        metrics: ServiceMetrics,
        log: structlog.stdlib.BoundLogger,
        stalls: Stalls,
        faults: Faults | None = None,
    ) -> None:
        self._worker = worker
        self._metrics = metrics
        self._log = log
        self._stalls = stalls
        self._faults = faults

    async def _answer(
        self, work: Callable[[], Reply], queries: int, context: grpc.aio.ServicerContext[object, Reply]
    ) -> Reply:
        """Run *work*, which decodes, asks the model and encodes; abort the call when it cannot."""
        began_at = time.monotonic()
        fault = NO_FAULT if self._faults is None else self._faults.draw()
        if fault.status is not None:
            self._metrics.calls.labels(fault.status.name).inc()
        await meet(fault, context)
        await self._stalls.settle()
        try:
            reply = await self._worker.run(work, context.time_remaining())
        except (WireError, UnusableQueries) as error:
            code, details = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except DeadlinePassed:
            code, details = grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the model was asked"
        except FeatureSkew as error:
            code, details = grpc.StatusCode.FAILED_PRECONDITION, str(error)
        # A model is code somebody else will write: whatever it raises must reach the caller as a code it
        # knows how to count, and the log with its trace.
        except Exception as error:
            self._log.exception("call failed", queries=queries)
            code, details = grpc.StatusCode.INTERNAL, f"{type(error).__name__}; see the service's log"
        else:
            self._metrics.calls.labels("OK").inc()
            self._metrics.queries.observe(queries)
            self._metrics.seconds.labels("call").observe(time.monotonic() - began_at)
            return bend(reply, fault, queries)
        self._metrics.calls.labels(code.name).inc()
        await context.abort(code, details)
        raise AssertionError("abort always raises")


class GeneratorServicer(_Role, candidate_generation_pb2_grpc.CandidateGeneratorServicer):
    """`CandidateGenerator` over any model that fits `Generator`."""

    def __init__(
        self,
        model: Generator,
        worker: ModelWorker,
        metrics: ServiceMetrics,
        log: structlog.stdlib.BoundLogger,
        stalls: Stalls,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(worker, metrics, log, stalls, faults)
        self._model = model

    async def Generate(  # noqa: N802 – gRPC's name
        self,
        request: candidate_generation_pb2.GenerateRequest,
        context: grpc.aio.ServicerContext[object, candidate_generation_pb2.GenerateReply],
    ) -> candidate_generation_pb2.GenerateReply:
        """Candidates for q queries; see the proto."""
        return await self._answer(lambda: self._generate(request), request.queries, context)

    def warm_up(self) -> None:
        """One call through decoding, model and encoding, in the calling thread; raises what the model raises."""
        self._generate(
            candidate_generation_pb2.GenerateRequest(
                queries=2, counts=np.array([10, 10], "<i4").tobytes(), shoppers=_two_shoppers()
            )
        )

    def _generate(self, request: candidate_generation_pb2.GenerateRequest) -> candidate_generation_pb2.GenerateReply:
        queries = wire.read_generate(request)
        return wire.write_candidates(self._model.generate(queries), queries.counts, self._model.version)


class RankerServicer(_Role, reranking_pb2_grpc.RerankerServicer):
    """
    `Reranker` over any model that fits `Ranker`.

    Args:
        user_columns: how many numeric and how many categorical columns the model's read plan gives a user.
    """

    def __init__(
        self,
        model: Ranker,
        user_columns: tuple[int, int],
        worker: ModelWorker,
        metrics: ServiceMetrics,
        log: structlog.stdlib.BoundLogger,
        stalls: Stalls,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(worker, metrics, log, stalls, faults)
        self._model = model
        self._user_columns = user_columns

    async def Rerank(  # noqa: N802 – gRPC's name
        self,
        request: reranking_pb2.RerankRequest,
        context: grpc.aio.ServicerContext[object, reranking_pb2.RerankReply],
    ) -> reranking_pb2.RerankReply:
        """Scores for the candidates of q queries; see the proto."""
        return await self._answer(lambda: self._rank(request), request.queries, context)

    def warm_up(self) -> None:
        """One call through decoding, model and encoding, in the calling thread; raises what the model raises."""
        numeric, categorical = self._user_columns
        self._rank(
            reranking_pb2.RerankRequest(
                queries=2,
                shoppers=_two_shoppers(),
                candidates=pack_rows(Rows.of([[0, 1, 2], [1]])),
                user_numeric=np.full((2, numeric), np.nan, "<f4").tobytes(),
                user_categorical=[""] * (2 * categorical),
                feature_digest=self._model.feature_digest,
            )
        )

    def _rank(self, request: reranking_pb2.RerankRequest) -> reranking_pb2.RerankReply:
        # Before the columns are read: with another feature service, their widths mean nothing.
        if request.feature_digest != self._model.feature_digest:
            raise FeatureSkew(found=request.feature_digest, expected=self._model.feature_digest)
        queries = wire.read_rerank(request)
        return wire.write_scores(self._model.rank(queries), queries.candidates, self._model.version)


def _two_shoppers() -> common_pb2.Shoppers:
    """One with a history, one without; item key 0 exists in every vocabulary that is not empty."""
    return common_pb2.Shoppers(
        history=pack_rows(Rows.of([[0], []])),
        history_types=bytes([common_pb2.EVENT_TYPE_VIEW]),
        history_ages_s=np.zeros(1, "<f4").tobytes(),
        placements=bytes([common_pb2.PLACEMENT_HOME, common_pb2.PLACEMENT_HOME]),
    )
