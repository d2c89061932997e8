"""
The event log as a Kafka topic, read by a consumer group: `streams.Stream` where the broker is Kafka.

The rule: an offset is committed when everything before it is done. A file is renamed first and offsets are committed
then; whoever dies in between writes some events again, under their own event_ids. librdkafka is asked in threads: it
blocks.

    read → given → done → committed, as far as nothing before is still in hand
             ↘ taken over by another consumer: what is in hand is theirs as well, and committed by them
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protos import event_topic
from services.ingestion.streams import Entry, StreamAway

FIELD = b"event"
"""The field of an entry that holds the event, as in the Redis stream."""

SESSION_MS = 10_000
"""How long a consumer that says nothing keeps its partitions: what a crash costs before they are read on. Judged; a
pause of the process that lasts longer makes others write events twice, which readers bear."""

ASK_S = 5.0
"""Longest wait for an answer about offsets or the topic. Judged: far above a healthy cluster's milliseconds."""


@dataclass(frozen=True, slots=True)
class Topic:
    """Where the events are. *properties*: librdkafka's, beyond ours (protos/event_topic.py)."""

    bootstrap_servers: str
    name: str
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, bootstrap_servers: str, name: str, properties: Path | None) -> Topic:
        """
        Raises:
            event_topic.TopicUnusable: the file of properties cannot be used.
        """
        return cls(bootstrap_servers, name, event_topic.properties(properties))

    def consumer(self, group: str, **more: Any) -> Any:
        """
        A confluent_kafka.Consumer of *group* that commits nothing by itself.

        Raises:
            event_topic.TopicUnusable: confluent-kafka is not installed, or librdkafka refuses a property.
        """
        try:
            import confluent_kafka
        except ImportError as error:
            raise event_topic.TopicUnusable(event_topic.INSTALL) from error
        configuration = {
            "client.id": "tutti-ingestion",
            # Every attempt to reach a broker that is away would be a line on stderr; errors are told by our own log.
            "log_level": 2,
            "session.timeout.ms": SESSION_MS,
            **self.properties,
            "bootstrap.servers": self.bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            # Without a committed offset, or behind what the topic's retention has left: from the oldest there is.
            "auto.offset.reset": "earliest",
            **more,
        }
        try:
            return confluent_kafka.Consumer(configuration)
        except confluent_kafka.KafkaException as error:
            raise event_topic.TopicUnusable(f"Kafka: {error.args[0].str()}") from error


class Offsets:
    """
    What was given out of each partition and is not done, and so how far may be committed. Pure.

    An offset that is not known (its partition was taken over, and maybe given back) is no error: nothing happens.
    """

    def __init__(self) -> None:
        self._in_hand: dict[int, set[int]] = {}
        self._next: dict[int, int] = {}
        self._committed: dict[int, int] = {}

    def given(self, partition: int, offset: int) -> None:
        """This one is in somebody's hand from now on."""
        self._in_hand.setdefault(partition, set()).add(offset)
        self._next[partition] = max(offset + 1, self._next.get(partition, 0))

    def done(self, partition: int, offset: int) -> None:
        """This one is done with."""
        self._in_hand.get(partition, set()).discard(offset)

    def to_commit(self) -> dict[int, int]:
        """Partition → offset to go on from, where that has moved since `committed` was told."""
        found = {number: min(held, default=self._next[number]) for number, held in self._in_hand.items()}
        return {number: offset for number, offset in found.items() if offset != self._committed.get(number)}

    def committed(self, offsets: Mapping[int, int]) -> None:
        """The broker has these."""
        self._committed |= {number: offset for number, offset in offsets.items() if number in self._in_hand}

    def forget(self, partitions: Iterable[int]) -> None:
        """These are somebody else's now."""
        for number in partitions:
            for one in (self._in_hand, self._next, self._committed):
                one.pop(number, None)

    def __repr__(self) -> str:
        return f"<Offsets {len(self._in_hand)} partitions, {sum(map(len, self._in_hand.values()))} in hand>"


class KafkaStream:
    """
    One consumer of the group.

    Args:
        batch: entries a read gives at most.
    """

    def __init__(self, topic: Topic, group: str, batch: int) -> None:
        self._topic, self._batch = topic, batch
        self._offsets = Offsets()
        self._complaint: str | None = None
        self._is_subscribed = False
        self._consumer = topic.consumer(group, error_cb=self._complained)

    async def open(self) -> None:
        """See the protocol: ask for the topic, and join the group."""
        await asyncio.to_thread(ask_topic, self._consumer, self._topic.name)
        self._complaint = None
        if not self._is_subscribed:
            self._consumer.subscribe([self._topic.name], on_revoke=self._taken, on_lost=self._taken)
            self._is_subscribed = True

    async def read(self, block_s: float) -> list[Entry]:
        """See the protocol."""
        messages = await asyncio.to_thread(self._poll, block_s)
        if self._complaint is not None:
            self._complaint, complaint = None, self._complaint
            raise StreamAway(complaint)
        found = []
        for message in messages:
            self._offsets.given(message.partition(), message.offset())
            found.append(entry_of(message))
        return found

    async def acknowledge(self, entry_ids: Iterable[bytes]) -> None:
        """See the protocol."""
        for entry_id in entry_ids:
            self._offsets.done(*place(entry_id))
        due = self._offsets.to_commit()
        if due:
            await asyncio.to_thread(self._commit, due)

    async def close(self) -> None:
        """See the protocol: leave the group, so that others take over at once."""
        await asyncio.to_thread(self._consumer.close)

    def _poll(self, block_s: float) -> list[Any]:
        messages = poll(self._consumer, self._batch, block_s)
        # A partition may have been taken while others of this batch were being fetched; then these are somebody else's.
        ours = {one.partition for one in self._consumer.assignment()} if messages else set()
        return [message for message in messages if message.partition() in ours]

    def _commit(self, due: Mapping[int, int]) -> None:
        import confluent_kafka

        offsets = [confluent_kafka.TopicPartition(self._topic.name, number, offset) for number, offset in due.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except confluent_kafka.KafkaException as error:
            # Ours went to another consumer meanwhile, who reads from where we had committed: some twice, none lost.
            if error.args[0].name() in ("ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS"):
                return
            raise _away(error) from error
        self._offsets.committed(due)

    def _taken(self, _consumer: Any, partitions: Sequence[Any]) -> None:
        # In the thread that reads, before somebody else reads on: an offset committed later would be theirs moved.
        self._offsets.forget(one.partition for one in partitions)

    def _complained(self, error: Any) -> None:
        if error.name() in ("_ALL_BROKERS_DOWN", "_AUTHENTICATION", "_FATAL"):
            self._complaint = f"Kafka: {error.str()}"


def ask_topic(consumer: Any, topic: str) -> list[int]:
    """
    The topic's partitions. Blocks.

    Raises:
        StreamAway: no broker answers, or there is no such topic.
    """
    import confluent_kafka

    try:
        found = consumer.list_topics(topic, ASK_S).topics[topic]
    except confluent_kafka.KafkaException as error:
        raise _away(error) from error
    if found.error is not None:
        raise StreamAway(f"Kafka's topic {topic}: {found.error.str()}")
    return sorted(found.partitions)


def poll(consumer: Any, count: int, block_s: float) -> list[Any]:
    """
    Up to *count* messages, as soon as there is one. Blocks.

    Raises:
        StreamAway: the broker says why there is none.
    """
    import confluent_kafka

    try:
        first = consumer.poll(block_s)
        messages = [] if first is None else [first, *consumer.consume(count - 1, 0)]
    except confluent_kafka.KafkaException as error:
        raise _away(error) from error
    for message in messages:
        complaint = message.error()
        if complaint is not None and complaint.name() != "_PARTITION_EOF" and not complaint.retriable():
            raise StreamAway(f"Kafka: {complaint.str()}")
    return [message for message in messages if message.error() is None]


def entry_of(message: Any) -> Entry:
    """A message as an entry; Kafka does not count deliveries."""
    return Entry(b"%d:%d" % (message.partition(), message.offset()), {FIELD: message.value() or b""})


def place(entry_id: bytes) -> tuple[int, int]:
    """Partition and offset of an entry of `entry_of`."""
    partition, _, offset = entry_id.partition(b":")
    return int(partition), int(offset)


def committed(consumer: Any, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """
    Partition → offset from which the consumer's group goes on; one of which nothing is committed is left out. Blocks.

    Raises:
        StreamAway: the group's coordinator does not answer.
    """
    import confluent_kafka

    asked = [confluent_kafka.TopicPartition(topic, number) for number in partitions]
    try:
        found = consumer.committed(asked, timeout=ASK_S)
    except confluent_kafka.KafkaException as error:
        raise _away(error) from error
    return {one.partition: one.offset for one in found if one.offset >= 0}


def ends(consumer: Any, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
    """
    Partition → its oldest offset, and the one that comes next. Blocks.

    Raises:
        StreamAway: a partition's leader does not answer.
    """
    import confluent_kafka

    found = {}
    for number in partitions:
        try:
            low, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, number), timeout=ASK_S)
        except confluent_kafka.KafkaException as error:
            raise _away(error) from error
        found[number] = (low, high)
    return found


def _away(error: Any) -> StreamAway:
    return StreamAway(f"Kafka: {error.args[0].str()}")
