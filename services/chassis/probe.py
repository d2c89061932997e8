"""
`python -m services.chassis.probe HOST:PORT`: exit code 0 when the service there says SERVING.

For the health checks of containers, which have no gRPC client of their own.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 2.0
"""Judged: the check of a healthy service takes milliseconds; the container's own limit is above this."""


def main(address: str) -> int:
    """0: SERVING; 1: anything else, told on standard error."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            print(f"{address}: {error.code().name}", file=sys.stderr)  # noqa: T201
            return 1
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return 0
    print(f"{address}: not serving", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
