"""
A real gRPC server in this process around a tiny constant model of each role; every reply can be bent.

The generator proposes 9, 8 … 0 to whoever has a history or a context; the re-ranker scores an item by its key.
"""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np

from protos.arrays import Rows, pack_rows, unpack, unpack_rows
from protos.tutti.v1 import (
    candidate_generation_pb2,
    candidate_generation_pb2_grpc,
    reranking_pb2,
    reranking_pb2_grpc,
)


class Toy(candidate_generation_pb2_grpc.CandidateGeneratorServicer, reranking_pb2_grpc.RerankerServicer):
    """Both roles at once. `bend` is applied to every reply; `status` refuses every call; `gate` closed: it hangs."""

    def __init__(self) -> None:
        self.requests: list = []
        self.status: grpc.StatusCode | None = None
        self.bend: Callable = lambda reply: reply
        self.gate = asyncio.Event()
        self.gate.set()

    async def _enter(self, request, context) -> None:
        self.requests.append(request)
        await self.gate.wait()
        if self.status is not None:
            await context.abort(self.status, "as told")

    async def Generate(self, request, context):
        await self._enter(request, context)
        q = request.queries
        history = unpack_rows(request.shoppers.history, q, "history")
        looked_at = unpack_rows(request.shoppers.context, q, "context")
        exclude, within = unpack_rows(request.exclude, q, "exclude"), unpack_rows(request.within, q, "within")
        rows = []
        for i, count in enumerate(unpack(request.counts, "<i4", (q,), "counts")):
            keys = np.arange(9, -1, -1) if len(history.row(i)) or len(looked_at.row(i)) else np.arange(0)
            if len(within.row(i)):
                keys = keys[np.isin(keys, within.row(i))]
            rows.append(keys[~np.isin(keys, exclude.row(i))][:count])
        reply = candidate_generation_pb2.GenerateReply(
            candidates=pack_rows(Rows.of(rows)),
            scores=np.concatenate([np.linspace(1, 0.5, len(row)) for row in rows]).astype("<f4").tobytes(),
            model_version="toy-1",
        )
        return self.bend(reply)

    async def Rerank(self, request, context):
        await self._enter(request, context)
        keys = unpack_rows(request.candidates, request.queries, "candidates").values
        reply = reranking_pb2.RerankReply(scores=keys.astype("<f4").tobytes(), model_version="toy-2")
        return self.bend(reply)


@asynccontextmanager
async def serving(toy: Toy):
    """Serve *toy* on a free port; gives `host:port`."""
    server = grpc.aio.server()
    candidate_generation_pb2_grpc.add_CandidateGeneratorServicer_to_server(toy, server)
    reranking_pb2_grpc.add_RerankerServicer_to_server(toy, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        toy.gate.set()
        await server.stop(None)
