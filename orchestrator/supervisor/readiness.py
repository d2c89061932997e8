"""
Whether a process can be used yet: Redis PING, gRPC health, HTTP /livez and /readyz. Asked, never assumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import redis.asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.exceptions import RedisError

from orchestrator.supervisor.plan import Probe, ProcessSpec
from orchestrator.supervisor.redis_server import check_version

POLL_S = 0.05
"""Judged: short against any process's start, long against the cost of a probe on loopback."""

PROBE_TIMEOUT_S = 1.0
"""Judged: a healthy process on loopback answers in a few ms; a hung one must not hold up the next probe."""


async def until_ready(spec: ProcessSpec, on_serving: Callable[[], None] = lambda: None) -> None:
    """
    Return as soon as *spec* says it is ready; the caller sets the limit and watches the process.

    on_serving: called once before, as soon as others may be served by it: an orchestrator accepts from the shared
        socket from the moment it answers at all; the look at its dependencies that makes it ready takes longer.
    """
    match spec.probe:
        case Probe.REDIS:
            await _poll(lambda: redis_answers(f"redis://{spec.address}/0"))
        case Probe.GRPC:
            await _until_grpc_serves(spec.address)
        case Probe.HTTP:
            await _poll(lambda: _http_answers(spec.address, "/livez"))
        case Probe.TCP:
            await _poll(lambda: _takes_connections(spec.control or spec.address))
    on_serving()
    if spec.probe is Probe.HTTP:
        await _poll(lambda: _http_answers(spec.address, "/readyz"))


async def redis_answers(url: str) -> bool:
    """
    Whether a new enough Redis answers at *url*.

    Raises:
        NoRedis: one answers, but is too old.
    """
    client = redis.asyncio.Redis.from_url(
        url, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S, decode_responses=True
    )
    try:
        # PING is refused while the append-only file is still being read; INFO is not.
        await client.execute_command("PING")  # type: ignore[no-untyped-call]  # redis-py types ping() as sync or async
        check_version(str((await client.info("server"))["redis_version"]))
    except (RedisError, OSError):
        return False
    finally:
        await client.aclose()
    return True


async def _until_grpc_serves(address: str) -> None:
    # One channel for the whole wait, made eager to try again: a channel's default back-off starts at a second.
    options = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def serves() -> bool:
            # Watched and not asked again and again: clients that watch send calls in the moment it says SERVING, and
            # whoever is to give it its share of the cores (`confinement.release`) must not hear of it 50 ms later.
            try:
                async for answer in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return True
            except grpc.aio.AioRpcError:
                pass  # it ended, or knows no Watch; it is asked anew
            return False

        await _poll(serves)


async def _http_answers(address: str, path: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in status


async def _takes_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _poll(answers: Callable[[], Awaitable[bool]]) -> None:
    while not await answers():  # noqa: ASYNC110 – another process cannot set our events
        await asyncio.sleep(POLL_S)
