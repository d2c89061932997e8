"""
How far readers of the topic are behind, asked of Kafka by somebody who is in no group's way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from services.ingestion.kafka_stream import Topic, ask_topic, committed, ends, poll
from services.ingestion.kafka_tail import offsets_of

LOOK_S = 1.0
"""Longest wait for the messages whose age is asked. Judged: ages are for people and alarms, who look now and then."""


@dataclass(frozen=True, slots=True)
class TopicLag:
    """
    What waits in a topic.

    waiting     messages that are not in the log yet, given to somebody or not: Kafka does not know
    oldest_s    age of the oldest of them by its producer's clock; 0.0 for none
    features_s  age of the oldest message whose features may not be in the store; None: no position is known
    length      messages in the topic
    """

    waiting: int
    oldest_s: float
    features_s: float | None
    length: int


class TopicWatch:
    """Looks; one at a time."""

    def __init__(self, topic: Topic, group: str) -> None:
        self._topic, self._consumer = topic, topic.consumer(group)

    async def look(self, position: bytes | None) -> TopicLag:
        """
        Now; *position*: up to where features are in the store.

        Raises:
            StreamAway: Kafka does not answer.
        """
        return await asyncio.to_thread(self._look, offsets_of(position))

    async def close(self) -> None:
        """Give up the connection."""
        await asyncio.to_thread(self._consumer.close)

    def _look(self, settled: Mapping[int, int] | None) -> TopicLag:
        partitions = ask_topic(self._consumer, self._topic.name)
        there = ends(self._consumer, self._topic.name, partitions)
        done = committed(self._consumer, self._topic.name, partitions)
        behind = _behind(there, done)
        return TopicLag(
            waiting=sum(there[number][1] - offset for number, offset in behind.items()),
            oldest_s=self._age_s(behind),
            features_s=None if settled is None else self._age_s(_behind(there, settled)),
            length=sum(following - oldest for oldest, following in there.values()),
        )

    def _age_s(self, behind: Mapping[int, int]) -> float:
        """Age of the oldest message that stands at these offsets; 0.0 for none, or none that came in time."""
        import confluent_kafka

        if not behind:
            return 0.0
        self._consumer.assign(
            [confluent_kafka.TopicPartition(self._topic.name, number, offset) for number, offset in behind.items()]
        )
        moments: dict[int, int] = {}
        until = time.monotonic() + LOOK_S
        while len(moments) < len(behind) and (left_s := until - time.monotonic()) > 0:
            for message in poll(self._consumer, 1, left_s):
                moments.setdefault(message.partition(), message.timestamp()[1])
        self._consumer.unassign()
        return max(0.0, time.time() - min(moments.values()) / 1000) if moments else 0.0


def _behind(there: Mapping[int, tuple[int, int]], done: Mapping[int, int]) -> dict[int, int]:
    """Partition → offset of the first message that is not done, where there is one."""
    first = {number: max(done.get(number, oldest), oldest) for number, (oldest, _) in there.items()}
    return {number: offset for number, offset in first.items() if offset < there[number][1]}
