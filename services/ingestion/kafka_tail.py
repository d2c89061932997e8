"""
The event log as a Kafka topic, followed without a group: `tails.Tail` where the broker is Kafka.

The rule is that of `tails`: the position is, for each partition, the offset to go on from, as JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from services.ingestion.kafka_stream import Topic, ask_topic, committed, ends, entry_of, poll
from services.ingestion.streams import Entry

READ_AT_ONCE = 1_000
"""As the consumer."""

NOTHING_MORE_S = 0.5
"""Who wants only what is there waits this long for it: unlike a Redis stream, a topic is fetched before it is asked."""


class KafkaTail:
    """*group* is the consumers', whose committed offsets say what is in the log's files; it is not joined."""

    def __init__(self, topic: Topic, group: str) -> None:
        self._topic = topic
        self._consumer = topic.consumer(group)
        self._next: dict[int, int] = {}

    @property
    def position(self) -> bytes:
        """See the protocol."""
        return as_position(self._next)

    async def begin(self, settled: bytes | None) -> bool:
        """See the protocol."""
        return await asyncio.to_thread(self._begin, offsets_of(settled))

    async def read(self, block_s: float | None) -> list[Entry]:
        """See the protocol."""
        wait_s = NOTHING_MORE_S if block_s is None else block_s
        messages = await asyncio.to_thread(poll, self._consumer, READ_AT_ONCE, wait_s)
        for message in messages:
            self._next[message.partition()] = message.offset() + 1
        return [entry_of(message) for message in messages]

    async def close(self) -> None:
        """See the protocol."""
        await asyncio.to_thread(self._consumer.close)

    def _begin(self, settled: Mapping[int, int] | None) -> bool:
        import confluent_kafka

        partitions = ask_topic(self._consumer, self._topic.name)
        in_files = committed(self._consumer, self._topic.name, partitions)
        there = ends(self._consumer, self._topic.name, partitions)
        self._next, holds = where_to_begin(settled, in_files, there)
        self._consumer.assign(
            [confluent_kafka.TopicPartition(self._topic.name, number, offset) for number, offset in self._next.items()]
        )
        return holds


def where_to_begin(
    settled: Mapping[int, int] | None, in_files: Mapping[int, int], there: Mapping[int, tuple[int, int]]
) -> tuple[dict[int, int], bool]:
    """
    Partition → offset to read from, and whether *settled* holds. Pure.

    Args:
        settled: up to where the store has everything, by partition; None: nothing is known to be in it.
        in_files: up to where the log's files have everything; a partition that is left out: nothing.
        there: partition → oldest offset, next offset, of every partition of the topic.

    What is before both is in the store or will be computed from the log. A partition that is new since *settled* is
    read from its beginning. Where retention has taken what was not settled yet, or offsets begin anew (another topic of
    that name), nothing holds.
    """
    begin, holds = {}, settled is not None
    for number, (oldest, following) in there.items():
        known = in_files.get(number, oldest)
        if settled is not None:
            stored = settled.get(number, oldest)
            holds = holds and oldest <= stored <= following
            known = min(known, stored)
        begin[number] = min(max(known, oldest), following)
    return begin, holds


def as_position(offsets: Mapping[int, int]) -> bytes:
    """Offsets as they are kept."""
    return json.dumps({str(number): offset for number, offset in sorted(offsets.items())}).encode()


def offsets_of(position: bytes | None) -> dict[int, int] | None:
    """What `as_position` was given; None for anything else, such as what another broker's reader has left."""
    try:
        found = json.loads(position or b"")
        return {int(number): int(offset) for number, offset in found.items()}
    except (ValueError, TypeError, AttributeError):
        return None
