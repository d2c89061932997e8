"""
Redactions where events lie in a Kafka topic, from which no single event can be taken.

The rule: an erased person's events go from everything that is made of the topic, and from the topic itself when its
retention has passed. So whoever reads it, be it for the second time, asks `redactions.parquet`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from protos import redactions
from services.ingestion.consume import Sink
from services.ingestion.kafka_stream import Topic, ask_topic, committed, ends
from services.ingestion.redact import CLOCKS_APART_MS, Order, Redactor, alone, without
from services.ingestion.sinks import LoggedEvent


class KafkaRedactor(Redactor):
    """
    The Redactor of a topic. Of the Redis stream only what an earlier broker has left there is redacted.

    It notes where the topic ends when it first sees an order, and carries it out when the group has committed all of
    that: then no consumer will write an event of before the erasure, unless it read it before; `WithoutErased` sees to
    these.
    """

    def __init__(self, topic: Topic, group: str, *more: Any) -> None:
        super().__init__(*more)
        self._topic, self._consumer = topic, topic.consumer(group)
        self._ends: dict[bytes, dict[int, int]] = {}

    def covers(self, order: Order, entry_id: bytes, event: LoggedEvent) -> bool:
        """By the edge's clock, as in the files: offsets say nothing about the moment of an erasure in Redis."""
        received_at = event.columns["received_at"]
        return received_at is None or received_at.timestamp() * 1000 <= order.at_ms + CLOCKS_APART_MS

    async def orders(self) -> list[Order]:
        """See Redactor."""
        found = await super().orders()
        self._ends = {one.entry_id: self._ends[one.entry_id] for one in found if one.entry_id in self._ends}
        if any(one.entry_id not in self._ends for one in found):
            there = await asyncio.to_thread(self._end)
            for order in found:
                self._ends.setdefault(order.entry_id, there)
        return found

    async def left_out(self, event: LoggedEvent) -> None:
        """See Redactor: here nobody finds it once its offset is committed, and features may have counted it."""
        if (item_id := event.columns["item_id"]) is not None:
            await self._again({f"i:{item_id}"})

    async def is_consumed(self, order: Order) -> bool:
        """See Redactor."""
        end = self._ends[order.entry_id]
        done = await asyncio.to_thread(committed, self._consumer, self._topic.name, list(end))
        return all(done.get(number, 0) >= offset for number, offset in end.items() if offset)

    async def close(self) -> None:
        """Give up the connection to the cluster."""
        await asyncio.to_thread(self._consumer.close)

    def _end(self) -> dict[int, int]:
        partitions = ask_topic(self._consumer, self._topic.name)
        there = ends(self._consumer, self._topic.name, partitions)
        # Nothing between the two: nothing to wait for, whatever was committed.
        return {number: following if following > oldest else 0 for number, (oldest, following) in there.items()}


class WithoutErased:
    """A sink before a sink: what erased people did before their erasure does not pass. Blocks, as sinks do."""

    def __init__(self, sink: Sink, data: Path) -> None:
        self._sink, self._data = sink, data

    def write(self, events: list[LoggedEvent]) -> object:
        """
        Write those that may stand in the log.

        Raises:
            OSError: as the sink.
        """
        # An erasure rewrites files and then says whom: either it finds ours, or we find it.
        with alone(self._data):
            kept = _kept(redactions.read(self._data), events)
            return self._sink.write(kept) if kept else None


def _kept(erased: redactions.Redactions, events: Sequence[LoggedEvent]) -> list[LoggedEvent]:
    if not erased.erased_at_us:
        return list(events)
    return [replace(events[0], columns=columns) for columns in without(erased, [one.columns for one in events])]
