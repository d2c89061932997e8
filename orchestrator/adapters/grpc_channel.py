"""
One channel a target, tuned as measured, and the one table from gRPC status to loss.

Options and their reasons: resilience specification §1.9. The channel is created inside the running loop and
shared by every call to its target. A replica is a target: a balanced channel would not say which replica serves a
call, so a hedge could not keep away from it. Where one target is a name with several addresses behind it (`dns:///…`),
gRPC balances among them and its own outlier detection keeps the sick ones out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError

Reply = TypeVar("Reply")

SERVICE_CONFIG = {
    # The channel watches the server's health: one that drains says NOT_SERVING, and the channel is not READY 2 ms later
    # (measured), while the server still answers for a moment. A server without a health service counts as healthy.
    "healthCheckConfig": {"serviceName": ""},
    "loadBalancingConfig": [
        {
            "outlier_detection_experimental": {
                # One of two replicas hung, 100 requests/s: 13 capped calls before ejection; 50 with interval 1 s.
                "interval": "0.25s",
                "baseEjectionTime": "5s",
                "maxEjectionTime": "30s",
                "maxEjectionPercent": 50,
                "failurePercentageEjection": {
                    "threshold": 50,
                    "enforcementPercentage": 100,
                    "minimumHosts": 2,
                    "requestVolume": 5,
                },
                "childPolicy": [{"round_robin": {}}],
            }
        },
        # Taken by a gRPC that does not know the first name; without it every call fails INVALID_ARGUMENT.
        {"round_robin": {}},
    ],
}

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.keepalive_time_ms", 10_000),
    # Becomes TCP_USER_TIMEOUT: a peer behind a dropped route is found in 1.2 s instead of never.
    ("grpc.keepalive_timeout_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A peer down for 45 s was used again 0.4 s after it came back; with gRPC's defaults 26 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 1),
    # Several orchestrators in one process (tests) must not share connections to a target that was reused.
    ("grpc.use_local_subchannel_pool", 1),
)

LOSS_OF_STATUS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Loss.DEADLINE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Loss.OVERLOADED,
    grpc.StatusCode.FAILED_PRECONDITION: Loss.SKEW,
    grpc.StatusCode.UNAVAILABLE: Loss.UNAVAILABLE,
    grpc.StatusCode.ABORTED: Loss.ERROR,
    grpc.StatusCode.INTERNAL: Loss.ERROR,
    grpc.StatusCode.DATA_LOSS: Loss.ERROR,
    grpc.StatusCode.CANCELLED: Loss.ERROR,
    grpc.StatusCode.UNKNOWN: Loss.ERROR,
    # Our request was wrong: never the dependency's fault, always worth an alert.
    grpc.StatusCode.INVALID_ARGUMENT: Loss.REFUSED,
    grpc.StatusCode.NOT_FOUND: Loss.REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: Loss.REFUSED,
    grpc.StatusCode.OUT_OF_RANGE: Loss.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: Loss.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Loss.REFUSED,
    grpc.StatusCode.UNIMPLEMENTED: Loss.REFUSED,
}


SERVER_EARLY_S = 0.002
"""How much before our timer the server's may fire. Derived: both count whole milliseconds, and round apart."""


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel to *target* (`host:port`, `dns:///name:port`, `ipv4:a:1,b:2`); it connects on first use."""
    return grpc.aio.insecure_channel(target, options=OPTIONS)


def is_ready(channel: grpc.aio.Channel) -> bool:
    """
    Whether a call would be sent at once: connected, and serving by the server's own word. Costs 0.2 µs (measured).

    A hung peer stays ready; that is found out by calling it. One that was never asked for is told to connect.
    """
    return bool(channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY)


async def unary(call: Callable[..., Awaitable[Reply]], request: object, timeout_s: float) -> Reply:
    """
    Make one call with gRPC's own deadline: an answer that came in time is kept even if the loop was busy.

    A caller that is cancelled leaves the call to its deadline instead of cancelling it: a cancelled call leaves 0.9 kB
    behind for good, one that ends by its deadline nothing (docs/adr/0018-a-call-is-left-to-its-deadline.md).

    Raises:
        DependencyError: with the loss its status stands for; NO_BUDGET, without a call, for a timeout that is over:
            gRPC takes 0 and may even answer OK.
    """
    if timeout_s <= 0:
        raise DependencyError(Loss.NO_BUDGET, f"{timeout_s:g} s is no time for a call")
    started = time.monotonic()
    calling: Any = call(request, timeout=timeout_s)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    # Waiting for a future of ours, and not for the call: whoever cancels the one does not touch the other.
    calling.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
    await ended
    try:
        reply: Reply = await calling
    except grpc.aio.AioRpcError as error:
        code = error.code()
        loss = LOSS_OF_STATUS.get(code, Loss.UNCLASSIFIED)
        if code is grpc.StatusCode.CANCELLED and time.monotonic() - started >= timeout_s - SERVER_EARLY_S:
            # The server's timer fired a little before ours: one in four calls that end by their deadline (measured).
            loss = Loss.DEADLINE
        raise DependencyError(loss, f"{code.name}: {error.details()}") from error
    return reply
