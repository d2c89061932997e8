"""A Kafka cluster on loopback that speaks the real protocol: librdkafka's own mock, which keeps messages in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from confluent_kafka import Consumer, Producer, TopicPartition

PARTITIONS = 4
"""The mock's topics have four."""

_numbers = count(1)


@contextmanager
def running() -> Iterator[str]:
    """Start a cluster of one broker, give its address, stop it."""
    host = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "log_level": 2})
    brokers = host.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{one.host}:{one.port}" for one in brokers)
    host.purge()


def a_topic() -> str:
    """A name that no other test of this process has; the mock makes topics when they are first asked for."""
    return f"events-{next(_numbers)}"


def messages(address: str, topic: str, timeout_s: float = 10.0) -> list[tuple[bytes | None, bytes]]:
    """All there is in *topic*, (key, value), each partition in its order."""
    about = {"bootstrap.servers": address, "group.id": "onlooker", "log_level": 2}
    reader = Consumer(about | {"allow.auto.create.topics": True})
    try:
        assert reader.list_topics(topic, timeout_s).topics[topic].error is None
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        wanted = sum(reader.get_watermark_offsets(one, timeout=timeout_s)[1] for one in partitions)
        reader.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        found = reader.consume(wanted, timeout_s) if wanted else []
        assert len(found) == wanted
        found.sort(key=lambda message: (message.partition(), message.offset()))
        return [(message.key(), message.value()) for message in found]
    finally:
        reader.close()


def put(address: str, topic: str, *values: bytes, key: bytes | None = None) -> None:
    """Messages of somebody who is not us."""
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0, "log_level": 2})
    for value in values:
        producer.produce(topic, value, key)
    assert producer.flush(10) == 0
