"""
One librdkafka producer for this process, and a thread that tells the event loop what became of each batch.

The rule: a batch has one end, within `timeout_s`. Every message of it is acknowledged, or the batch failed; which of
its messages arrived all the same is not known then, and whoever sends it again says so by their event_ids.

    DependencyError   deadline: not acknowledged in time · unavailable: no broker, or too much waits · refused: the
                      broker does not take it (no such topic, no right, too large)
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from protos import event_topic

LINGER_MS = 1
"""How long messages wait for company. Derived: a batch is handed over within a millisecond, and is one request then;
librdkafka's own 5 ms would be half of what an acknowledgement takes."""

MAX_WAITING = 20_000
"""Messages that wait for their acknowledgement. Derived: 10 s of 2,000 events a second, 6 MB; `timeout_s` is far less,
so a full queue is a hung broker, and who comes then is told so at once."""

POLL_S = 0.1
"""Longest wait for news from librdkafka; also how late `close` is noticed."""

ASK_WITHIN_S = 0.3
"""Longest wait for metadata. Derived: /readyz has 0.5 s for everything."""

Message = tuple[bytes | None, bytes]
"""Key and value."""

Topic = Mapping[int, tuple[int, int]]
"""Partition → replicas, and how many of them are in sync."""


class KafkaProducer:
    """
    Args:
        bootstrap_servers: `host:port`, or several with commas.
        acks: "all" or "1", as Kafka says it.
        timeout_s: longest wait for the acknowledgement of a batch.
        properties: librdkafka's, beyond these.

    Raises:
        event_topic.TopicUnusable: confluent-kafka is not installed, or librdkafka refuses a property.
    """

    def __init__(
        self, bootstrap_servers: str, topic: str, acks: str, timeout_s: float, properties: Mapping[str, str]
    ) -> None:
        try:
            import confluent_kafka
        except ImportError as error:
            raise event_topic.TopicUnusable(event_topic.INSTALL) from error
        self._kafka: Any = confluent_kafka
        self._topic, self._timeout_s = topic, timeout_s
        # Not idempotent in Kafka's sense: a message that is sent twice costs a row that readers drop by its event_id,
        # and an idempotent producer can end in an error that only a new process gets out of.
        configuration: dict[str, Any] = {
            "linger.ms": LINGER_MS,
            "queue.buffering.max.messages": MAX_WAITING,
            "compression.type": "lz4",
            "client.id": "tutti-orchestrator",
            # Every attempt to reach a broker that is away would be a line on stderr; who waits for it is told why.
            "log_level": 2,
            **properties,
            "bootstrap.servers": bootstrap_servers,
            "acks": acks,
            "message.timeout.ms": max(1, round(timeout_s * 1000)),
        }
        try:
            self._producer: Any = confluent_kafka.Producer(configuration)
        except confluent_kafka.KafkaException as error:
            raise event_topic.TopicUnusable(f"Kafka: {error.args[0].str()}") from error
        self._is_closing = threading.Event()
        self._poller = threading.Thread(target=self._keep_polling, name="kafka-acknowledgements", daemon=True)
        self._poller.start()

    async def send(self, messages: Sequence[Message]) -> None:
        """Return when every message is acknowledged; raises DependencyError otherwise (see the module)."""
        if not messages:
            return
        batch = _Batch(len(messages), asyncio.get_running_loop())
        try:
            for key, value in messages:
                self._producer.produce(self._topic, value, key, on_delivery=batch.delivered)
        except BufferError as error:
            raise DependencyError(Loss.UNAVAILABLE, f"{MAX_WAITING} events wait for Kafka already") from error
        except self._kafka.KafkaException as error:
            raise _translated(error.args[0]) from error
        try:
            async with asyncio.timeout(self._timeout_s):
                failed = await batch.end
        except TimeoutError as error:
            detail = f"Kafka has not acknowledged {len(messages)} events after {self._timeout_s * 1000:g} ms"
            raise DependencyError(Loss.DEADLINE, detail) from error
        if failed is not None:
            raise _translated(failed)

    async def topic(self) -> Topic:
        """
        Partitions, with their replicas and how many of them are in sync.

        Raises:
            DependencyError: no broker answers, or there is no such topic.
        """
        try:
            found = await asyncio.to_thread(self._producer.list_topics, self._topic, ASK_WITHIN_S)
        except self._kafka.KafkaException as error:
            raise _translated(error.args[0]) from error
        topic = found.topics[self._topic]
        if topic.error is not None:
            raise DependencyError(Loss.REFUSED, f"topic {self._topic}: {topic.error.str()}")
        return {number: (len(one.replicas), len(one.isrs)) for number, one in topic.partitions.items()}

    async def close(self) -> None:
        """Stop; who still waits is told by their timeout."""
        self._is_closing.set()
        await asyncio.to_thread(self._poller.join)
        self._producer.purge()
        # The last reference: librdkafka's threads end with it.
        self._producer = None

    def _keep_polling(self) -> None:
        while not self._is_closing.is_set():
            self._producer.poll(POLL_S)


class _Batch:
    """Counts acknowledgements, in the poller's thread, and ends a future of the loop: None, or the first error."""

    def __init__(self, n_messages: int, loop: asyncio.AbstractEventLoop) -> None:
        self._left, self._loop = n_messages, loop
        self._failed: Any = None
        self.end: asyncio.Future[Any] = loop.create_future()

    def delivered(self, error: Any, _message: Any) -> None:
        self._failed = self._failed or error
        self._left -= 1
        if not self._left:
            # The loop may be closed by now: then nobody waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._told)

    def _told(self) -> None:
        if not self.end.done():
            self.end.set_result(self._failed)


def _translated(error: Any) -> DependencyError:
    """librdkafka's error → the loss it stands for."""
    name, detail = error.name(), f"Kafka: {error.str()}"
    if name in ("_MSG_TIMED_OUT", "_TIMED_OUT", "REQUEST_TIMED_OUT"):
        return DependencyError(Loss.DEADLINE, detail)
    if error.retriable() or name in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_QUEUE_FULL"):
        return DependencyError(Loss.UNAVAILABLE, detail)
    return DependencyError(Loss.REFUSED, detail)
