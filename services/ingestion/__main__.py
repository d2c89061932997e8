"""
`python -m services.ingestion --data DIR --address HOST:PORT --redis URL`: persist the event stream and the
catalogue's changes, keep features fresh, and give new items their keys, until SIGTERM.

Health is SERVING while the stream can be read.

Example:
    python -m services.ingestion --data .tutti/shop --address 127.0.0.1:50060 --redis redis://127.0.0.1:6379/0
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path

from services.chassis.health import CannotListen, HealthyServer, stop_on_signals
from services.chassis.telemetry import start_logging
from services.ingestion import steps
from services.ingestion.catalogue import CatalogueFollower, CatalogueLog
from services.ingestion.consume import DEAD, GROUP, STREAM, Consumer, connect
from services.ingestion.features import FeatureFollower
from services.ingestion.keys import Keys
from services.ingestion.metrics import IngestionMetrics
from services.ingestion.redact import Redactor
from services.ingestion.sinks import ParquetLog
from services.ingestion.slates import SlateFiles, SlateFollower

EXAMPLE = "example: python -m services.ingestion --data .tutti/shop --address 127.0.0.1:50060 --redis redis://…:6379/0"


def main() -> int:
    """Exit code 0 after a clean stop, 1 when it cannot start, 2 for wrong usage."""
    arguments = _arguments()
    try:
        asyncio.run(_run(arguments))
    except CannotListen as error:
        print(f"ingestion: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(arguments: argparse.Namespace) -> None:
    log = start_logging("ingestion")
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    server = HealthyServer(arguments.address)
    address = await server.start()
    log.info("listening", address=address)
    client = connect(arguments.redis)
    sink = ParquetLog(arguments.data / "event_log")
    step = steps.from_environment(os.environ)
    redactor = Redactor(client, STREAM, GROUP, DEAD, arguments.data, log, step)
    name = arguments.consumer
    consumer = Consumer(client, sink, name, log, on_connected=server.set_ready, redactor=redactor, step=step)
    # Connections of their own: all wait inside Redis.
    catalogue_client, features_client = connect(arguments.redis), connect(arguments.redis)
    features = FeatureFollower(features_client, arguments.data, STREAM, GROUP, log, step=step)
    metrics = IngestionMetrics()
    if arguments.metrics_port:
        log.info("metrics", port=metrics.expose(address.rpartition(":")[0], arguments.metrics_port))
    follower = CatalogueFollower(catalogue_client, Keys(arguments.data), CatalogueLog(arguments.data), log)
    slates_client = connect(arguments.redis)
    slates = SlateFollower(slates_client, SlateFiles(arguments.data), arguments.consumer, log)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(consumer.run(stop))
            group.create_task(follower.run(stop))
            group.create_task(slates.run(stop))
            group.create_task(features.run(stop))
            if arguments.metrics_port:
                group.create_task(metrics.follow(features_client, stop, log))
    finally:
        await server.drain()
        await client.aclose()
        await catalogue_client.aclose()
        await slates_client.aclose()
        await features_client.aclose()
    log.info(
        "stopped",
        events_written=consumer.events_written,
        dead_letters=consumer.dead_letters,
        keys_given=follower.keys_given,
        changes_written=follower.changes_written,
        slates_written=slates.slates_written,
        feature_rows_written=features.rows_written,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.ingestion", description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="data directory; event_log/, catalogue_log/ and slate_log/ go there",
    )
    parser.add_argument("--address", required=True, help="host:port of the gRPC health service")
    parser.add_argument("--redis", required=True, help="URL of the Redis that holds the stream")
    parser.add_argument(
        "--consumer", default=socket.gethostname(), help="name in the consumer group, stable over restarts"
    )
    parser.add_argument("--metrics-port", type=int, default=0, help="port of /metrics; 0 for none (default)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
