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


# It was given back its priority only when /readyz had answered: a restarted worker's first answers took 38 and 61 ms.
async def test_an_orchestrator_is_served_by_before_it_is_ready_and_that_is_told():
    asked, is_ready = [], asyncio.Event()

    async def answer(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
        writer.write(b"HTTP/1.1 %b\r\n\r\n" % (b"200 OK" if asked[-1] == b"/livez" or is_ready.is_set() else b"503 No"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, asyncio.timeout(10):
        host, port = server.sockets[0].getsockname()
        serving = asyncio.Event()
        spec = ProcessSpec("orchestrator", (), f"{host}:{port}", Probe.HTTP)
        waiting = asyncio.create_task(until_ready(spec, serving.set))
        await serving.wait()
        was_ready_before = waiting.done()
        is_ready.set()
        await waiting

    assert asked[0] == b"/livez"
    assert set(asked[1:]) == {b"/readyz"}
    assert not was_ready_before
