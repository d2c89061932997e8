"""
`python -m services.ingestion --data DIR --address HOST:PORT --redis URL`: persist the event stream and the
catalogue's changes, keep features fresh, and give new items their keys, until SIGTERM.

Health is SERVING while the stream, or with --kafka the topic, can be read.

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

from protos.event_topic import TopicUnusable
from services.chassis.health import CannotListen, HealthyServer, stop_on_signals
from services.chassis.telemetry import start_logging
from services.ingestion import steps
from services.ingestion.broker import Broker, add_arguments, broker_of
from services.ingestion.catalogue import CatalogueFollower, CatalogueLog
from services.ingestion.consume import Consumer
from services.ingestion.features import FeatureFollower
from services.ingestion.keys import Keys
from services.ingestion.metrics import IngestionMetrics
from services.ingestion.slates import SlateFiles, SlateFollower
from services.ingestion.streams import connect

EXAMPLE = "example: python -m services.ingestion --data .tutti/shop --address 127.0.0.1:50060 --redis redis://…:6379/0"


def main() -> int:
    """Exit code 0 after a clean stop, 1 when it cannot start, 2 for wrong usage."""
    arguments, broker = _arguments()
    try:
        asyncio.run(_run(arguments, broker))
    except (CannotListen, TopicUnusable) as error:
        print(f"ingestion: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(arguments: argparse.Namespace, broker: Broker) -> None:
    log = start_logging("ingestion")
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    server = HealthyServer(arguments.address)
    address = await server.start()
    log.info("listening", address=address)
    client = connect(arguments.redis)
    step = steps.from_environment(os.environ)
    redactor = broker.redactor(client, arguments.data, log, step)
    stream = broker.stream(client, arguments.consumer, log)
    consumer = Consumer(
        client,
        stream,
        broker.sink(arguments.data),
        log,
        on_connected=server.set_ready,
        redactor=redactor,
        step=step,
    )
    # Connections of their own: all wait inside Redis.
    catalogue_client, features_client = connect(arguments.redis), connect(arguments.redis)
    tail, watch = broker.tail(features_client), broker.watch() if arguments.metrics_port else None
    features = FeatureFollower(features_client, arguments.data, tail, log, step=step)
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
                group.create_task(metrics.follow(features_client, stop, log, watch))
    finally:
        await server.drain()
        await stream.close()
        await redactor.close()
        await tail.close()
        if watch is not None:
            await watch.close()
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


def _arguments() -> tuple[argparse.Namespace, Broker]:
    parser = argparse.ArgumentParser(prog="python -m services.ingestion", description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="data directory; event_log/, catalogue_log/ and slate_log/ go there",
    )
    parser.add_argument("--address", required=True, help="host:port of the gRPC health service")
    parser.add_argument("--redis", required=True, help="URL of the Redis of streams, features and orders")
    parser.add_argument(
        "--consumer", default=socket.gethostname(), help="name in the consumer group, stable over restarts"
    )
    parser.add_argument("--metrics-port", type=int, default=0, help="port of /metrics; 0 for none (default)")
    add_arguments(parser)
    arguments = parser.parse_args()
    try:
        return arguments, broker_of(arguments.kafka, arguments.topic, arguments.kafka_properties)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
