"""
Events into a Kafka topic, and what they change of a shopper into Redis.

The rule: first the topic, then Redis. Who dies in between has told nobody that the event is accepted; it is in the log
and not in the history, and when it is sent again it is in the log twice, under one event_id, and in the history once.
The other way round a retry would find its event_id known and the event would be in no log.

    known?  (Redis: what was taken before is not sent again)
      → topic, acknowledged as `acks` says
      → history, watermark, slates, and from now on known  (Redis, one script an event: redis_events)
      → 202
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.adapters.kafka_producer import KafkaProducer
from orchestrator.adapters.redis_events import RedisEvents
from orchestrator.core.model import Event


class KafkaEvents:
    """
    The EventLog on Kafka.

    Args:
        state: what an event changes of a shopper; it must not log as well.
        acks: "all" or "leader": who must have an event before it is accepted.
    """

    def __init__(self, producer: KafkaProducer, state: RedisEvents, acks: str) -> None:
        self._producer, self._state, self._acks = producer, state, acks

    async def append(self, events: Sequence[Event]) -> Sequence[bool]:
        """See the port. Raises DependencyError when either does not answer; then any part may have been taken."""
        fresh = await self._state.unseen(events)
        await self._producer.send([(event.subject.encode() if event.subject else None, event.body) for event in fresh])
        # All of them, not only the fresh: who else sends the same event now is told apart by the script alone.
        return await self._state.append(events)

    async def watermark(self, subject: str) -> int:
        """See the port."""
        return await self._state.watermark(subject)

    async def durability(self) -> str:
        """See the port. Of Redis nothing is asked: what it loses of histories, `tutti ingest replay` has in files."""
        partitions = await self._producer.topic()
        if self._acks != "all":
            return "acks is leader: what a partition's leader has not passed on yet is lost when it dies"
        alone = sum(n_in_sync < 2 for _, n_in_sync in partitions.values())
        if alone:
            return (
                f"{alone} of {len(partitions)} partitions have one replica in sync: its events are lost with its disk"
            )
        return "ok"
