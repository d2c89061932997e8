"""
Where the event log is, and so what reads it: a Redis stream, or a Kafka topic. The one place that knows both.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio
import structlog

from services.ingestion import steps
from services.ingestion.consume import DEAD, GROUP, RHYTHM, STREAM, Rhythm, Sink, events_in_redis
from services.ingestion.kafka_lag import TopicWatch
from services.ingestion.kafka_redact import KafkaRedactor, WithoutErased
from services.ingestion.kafka_stream import KafkaStream, Topic
from services.ingestion.kafka_tail import KafkaTail
from services.ingestion.redact import Redactor
from services.ingestion.sinks import ParquetLog
from services.ingestion.streams import Stream
from services.ingestion.tails import RedisTail, Tail


@dataclass(frozen=True, slots=True)
class Broker:
    """*topic*: the Kafka topic of events; None: they are in the Redis stream."""

    topic: Topic | None = None

    def stream(
        self, client: redis.asyncio.Redis, name: str, log: structlog.stdlib.BoundLogger, rhythm: Rhythm = RHYTHM
    ) -> Stream:
        """The log as consumer *name* of the group reads it."""
        if self.topic is None:
            return events_in_redis(client, name, log, rhythm)
        return KafkaStream(self.topic, GROUP, rhythm.batch)

    def tail(self, client: redis.asyncio.Redis) -> Tail:
        """The log as one reader follows it without a group."""
        return RedisTail(client, STREAM, GROUP) if self.topic is None else KafkaTail(self.topic, GROUP)

    def redactor(
        self,
        client: redis.asyncio.Redis,
        data: Path,
        log: structlog.stdlib.BoundLogger,
        step: steps.Step = steps.nothing,
    ) -> Redactor:
        """Who takes erased people out of the log and of what is made of it."""
        if self.topic is None:
            return Redactor(client, STREAM, GROUP, DEAD, data, log, step)
        return KafkaRedactor(self.topic, GROUP, client, STREAM, GROUP, DEAD, data, log, step)

    def sink(self, data: Path) -> Sink:
        """Where events are written; from a topic erased people may come again."""
        files = ParquetLog(data / "event_log")
        return files if self.topic is None else WithoutErased(files, data)

    def watch(self) -> TopicWatch | None:
        """Who knows how far readers of the topic are behind; of the stream, Redis says it."""
        return None if self.topic is None else TopicWatch(self.topic, GROUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a Kafka topic."""
    parser.add_argument("--kafka", metavar="HOST:PORT", help="brokers, when events are in Kafka; needs --topic")
    parser.add_argument("--topic", help="the topic of events")
    parser.add_argument("--kafka-properties", type=Path, metavar="FILE", help="further librdkafka properties")


def broker_of(kafka: str | None, topic: str | None, properties: Path | None) -> Broker:
    """
    What these options name.

    Raises:
        ValueError: one of --kafka and --topic without the other; event_topic.TopicUnusable: the file cannot be used.
    """
    if bool(kafka) != bool(topic):
        raise ValueError(f"--kafka and --topic go together; found --kafka {kafka} and --topic {topic}")
    return Broker(Topic.of(kafka, topic, properties) if kafka and topic else None)
