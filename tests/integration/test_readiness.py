"""When the supervisor hears that a process can be used."""

import asyncio

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orchestrator.supervisor.plan import Probe, ProcessSpec
from orchestrator.supervisor.readiness import until_ready

pytestmark = pytest.mark.integration

SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
NOT_SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)


class TellsOnlyWhoWatches(health_pb2_grpc.HealthServicer):
    """Asked, it is never ready."""

    def __init__(self):
        self.watched, self.serves = asyncio.Event(), asyncio.Event()

    async def Check(self, request, context):
        return NOT_SERVING

    async def Watch(self, request, context):
        yield NOT_SERVING
        self.watched.set()
        await self.serves.wait()
        yield SERVING


# Asked every 50 ms, a re-ranker that had just started got its first calls while it still ran at the priority of a
# process that starts.
async def test_a_grpc_service_is_watched_and_not_asked_again_and_again():
    server, told = grpc.aio.server(), TellsOnlyWhoWatches()
    health_pb2_grpc.add_HealthServicer_to_server(told, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async with asyncio.timeout(10):
        waiting = asyncio.create_task(until_ready(ProcessSpec("cf", (), f"127.0.0.1:{port}", Probe.GRPC)))
        await told.watched.wait()
        was_ready_before = waiting.done()
        told.serves.set()
        await waiting
    await server.stop(0)

    assert not was_ready_before
