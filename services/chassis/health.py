"""
A gRPC server that says honestly whether it can be called: health, reflection, and a drain that loses nobody.

Ready is said after warm-up; not ready is said before the first call is turned away. Used by the model
services for their role and by ingestion, which has no role, for its health alone.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

OPTIONS: tuple[tuple[str, int], ...] = (
    # Keepalive pings of idle clients every 10 s must not earn a GOAWAY. Borrowed with its client side:
    # adapters/grpc_channel.py.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients meet again every 5 minutes, so that a new replica gets its share; gRPC jitters it by 10 %.
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    # Without this, a second process binds the same port and takes half the calls without a word.
    ("grpc.so_reuseport", 0),
)

MAXIMUM_CONCURRENT_RPCS = 64
"""
Calls inside at once; the next is RESOURCE_EXHAUSTED. Derived: with one thread and a call of 1 ms, the last of 64
waits 64 ms, about the longest that is of use within 100 ms. Calls are coalesced, so a handful is usual.
"""

LAME_DUCK_S = 0.5
"""
Between saying not ready and turning the first call away. A call that arrives after gRPC has begun to stop is answered
UNAVAILABLE, however long the grace; a client that watches health is gone within milliseconds. Judged: enough for one
whose loop is late, little enough for a restart.
"""

DRAIN_GRACE_S = 2.0
"""Borrowed (gRPC practice, 20 times a request's whole budget): what calls in flight get after SIGTERM."""

OVERALL = ""
"""The health service's name for the process as a whole."""


class CannotListen(OSError):
    """The address is taken or is not of this machine."""


class HealthyServer:
    """One grpc.aio server; NOT_SERVING from `start` until `set_ready(True)`, and again from `drain` on."""

    def __init__(self, address: str, services: Sequence[str] = ()) -> None:
        """Args: address: `host:port`, port 0 for a free one. services: full gRPC names served beside health."""
        self._services = tuple(services)
        self._address = address
        self._is_ready = False
        self._health = health.aio.HealthServicer()
        self.grpc = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAXIMUM_CONCURRENT_RPCS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.grpc)

    async def start(self) -> str:
        """
        Listen, not ready yet; the address that was bound.

        Raises:
            CannotListen: the port is taken, or the host is not of this machine.
        """
        host = self._address.rpartition(":")[0]
        try:
            port = self.grpc.add_insecure_port(self._address)
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {self._address}: is another process using the port?") from error
        await self.set_ready(False)
        await self.grpc.start()
        return f"{host}:{port}"

    async def set_ready(self, ready: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING, for the process and for each of its services."""
        self._is_ready = ready
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in (OVERALL, *self._services):
            await self._health.set(name, status)

    async def drain(self) -> None:
        """
        Say not ready for good, serve on for `LAME_DUCK_S`, let calls in flight finish within `DRAIN_GRACE_S`, stop.

        A server that never was ready has nobody to warn.
        """
        was_ready = self._is_ready
        await self._health.enter_graceful_shutdown()
        if was_ready:
            await asyncio.sleep(LAME_DUCK_S)
        await self.grpc.stop(DRAIN_GRACE_S)


def stop_on_signals(then: Callable[[], None]) -> None:
    """Call *then* on SIGTERM and SIGINT; to be called inside the running loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, then)
