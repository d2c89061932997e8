"""
Read the event stream in a consumer group, write in micro-batches, acknowledge after the write.

Nothing is lost: an entry leaves the stream's pending list only when its file has its final name, or when it lies
in the dead-letter stream. Redis may go away and come back, even empty: the group is made again from the
beginning of what is there.

    entry → parsed → buffered → file renamed → acknowledged
          ↘ poison → tutti:events:dead → acknowledged
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from services.ingestion import steps
from services.ingestion.redact import Order
from services.ingestion.sinks import LoggedEvent, Poison, parse

STREAM = "tutti:events"
DEAD = "tutti:events:dead"
GROUP = "ingestion"
FIELD = b"event"

DEAD_MAX_LENGTH = 100_000
"""Judged: dead letters are for people to look at; more than this is an alarm, not a list."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """
    When to read, write and recover. All judged, none measured.

    batch: entries a read asks for, and, with buffered ones, a file holds at most about twice as many.
    flush_events, flush_s: write when this many are buffered, or the oldest has waited this long. Shorter makes more
        and smaller files; longer holds more entries pending.
    block_s: longest wait inside Redis; also how late a stop is noticed.
    claim_every_s, claim_idle_s: how often to look for entries another consumer took and did not finish, and how
        old those must be; far above `flush_s`, so that a healthy consumer is never robbed.
    redact_every_s: how often to look for erased people.
    deliveries: an entry delivered this often without being finished is taken for poison: it may be what kills us.
    """

    batch: int = 1_000
    flush_events: int = 5_000
    flush_s: float = 5.0
    block_s: float = 0.5
    claim_every_s: float = 30.0
    claim_idle_s: float = 60.0
    redact_every_s: float = 1.0
    deliveries: int = 5
    backoff_s: tuple[float, float] = (0.1, 5.0)


class Redacts(Protocol):
    """Who knows of erased people, and carries erasures out; see `redact`."""

    async def orders(self) -> list[Order]: ...

    async def is_consumed(self, order: Order) -> bool: ...

    async def carry_out(self, orders: list[Order]) -> None: ...


class Sink(Protocol):
    """Where events go; `write` blocks and is called in a thread."""

    def write(self, events: list[LoggedEvent]) -> object: ...


class Consumer:
    """
    One consumer of the group.

    Args:
        name: stable over restarts, unique among consumers: what it had in hand is found again by it.
        on_connected: told True when the stream can be read, False when Redis is away.
        redactor: whose orders are carried out; None: erased people stay in the log.
        step: told the name of each step; see `steps`.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        sink: Sink,
        name: str,
        log: structlog.stdlib.BoundLogger,
        *,
        rhythm: Rhythm = Rhythm(),
        on_connected: Callable[[bool], Awaitable[None]] | None = None,
        redactor: Redacts | None = None,
        step: steps.Step = steps.nothing,
    ) -> None:
        self._client, self._sink, self._name, self._log, self._rhythm = client, sink, name, log, rhythm
        self._on_connected, self._redactor, self._step = on_connected, redactor, step
        self._orders: list[Order] = []
        self._buffer: dict[bytes, LoggedEvent] = {}
        self._written: set[bytes] = set()
        self._oldest_at = 0.0
        self._claimed_at = 0.0
        self._redacted_at = 0.0
        self.events_written = 0
        self.dead_letters = 0

    def __repr__(self) -> str:
        return f"<Consumer {self._name}, {len(self._buffer)} buffered, {len(self._written)} to acknowledge>"

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until *stop*; then write and acknowledge what is buffered. Redis being away is waited out."""
        wait_s, last_s = self._rhythm.backoff_s
        connected = False
        while not stop.is_set():
            try:
                if not connected:
                    await self._connect()
                    connected = await self._tell(True)
                    wait_s = self._rhythm.backoff_s[0]
                await self._turn()
            except (RedisError, OSError) as error:
                if isinstance(error, ResponseError) and str(error).startswith("NOGROUP"):
                    self._log.warning("the group is gone; making it again", stream=STREAM)
                    connected = False
                    continue
                self._log.warning("interrupted; trying again", reason=str(error), wait_s=wait_s)
                connected = await self._tell(False)
                await _sleep(wait_s, stop)
                wait_s = min(wait_s * 2, last_s)
        try:
            await self._flush()
        except (RedisError, OSError) as error:
            # Entries stay pending under our name; the next start reads them first.
            self._log.warning("stopped before everything was acknowledged", reason=str(error), consumer=repr(self))

    async def _connect(self) -> None:
        """Make the group if need be, acknowledge what is still owed, take up what an earlier life left in hand."""
        try:
            await self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        await self._acknowledge()
        await self._redact()
        last = b"0"
        while entries := await self._read(last, block_ms=None):
            last = entries[-1][0]
            await self._take(entry for entry in entries if entry[0] not in self._buffer)
            await self._flush()

    async def _turn(self) -> None:
        now = time.monotonic()
        if now - self._claimed_at >= self._rhythm.claim_every_s:
            self._claimed_at = now
            await self._claim()
        if now - self._redacted_at >= self._rhythm.redact_every_s:
            self._redacted_at = now
            await self._redact()
        await self._take(await self._read(b">", block_ms=max(1, int(self._rhythm.block_s * 1000))))
        is_due = self._buffer and time.monotonic() - self._oldest_at >= self._rhythm.flush_s
        if is_due or len(self._buffer) >= self._rhythm.flush_events:
            await self._flush()

    async def _read(self, after: bytes, block_ms: int | None) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
        answer: Any = await self._client.xreadgroup(
            GROUP, self._name, {STREAM: after}, count=self._rhythm.batch, block=block_ms
        )
        # redis-py answers [[stream, entries]] with protocol 2 and {stream: [entries]} with protocol 3.
        if isinstance(answer, dict):
            return [entry for entries in answer.values() for part in entries for entry in part]
        return [entry for _, entries in answer or () for entry in entries]

    async def _claim(self) -> None:
        """Take over what a consumer that is gone left unfinished; what nobody can finish is poison."""
        idle_ms, start = int(self._rhythm.claim_idle_s * 1000), b"0-0"
        while True:
            answer: Any = await self._client.xautoclaim(
                STREAM, GROUP, self._name, idle_ms, start_id=start, count=self._rhythm.batch
            )
            start, entries = answer[0], [e for e in answer[1] if e[0] not in self._buffer and e[0] not in self._written]
            if entries:
                self._log.info("claimed", entries=len(entries))
                await self._take(entries)
            if start in (b"0-0", "0-0"):
                return

    async def _take(self, entries: Iterable[tuple[bytes, dict[bytes, bytes] | None]]) -> None:
        entries = list(entries)
        if not entries:
            return
        self._step("consume.read")
        suspicious = await self._delivered_too_often(entries)
        for entry_id, fields in entries:
            if fields is None:  # trimmed from the stream while it was pending: nothing is left to write
                self._written.add(entry_id)
                continue
            try:
                if entry_id in suspicious:
                    raise Poison(f"delivered more than {self._rhythm.deliveries} times without being finished")
                event = self._as_it_may_be(entry_id, parse(fields.get(FIELD)))
            except Poison as poison:
                await self._bury(entry_id, fields, str(poison))
                continue
            if event is None:
                self._written.add(entry_id)
                continue
            if not self._buffer:
                self._oldest_at = time.monotonic()
            self._buffer[entry_id] = event
        self._step("consume.parsed")

    async def _redact(self) -> None:
        """Let nothing of erased people through, and finish what nobody holds any more."""
        if self._redactor is None:
            return
        self._orders = await self._redactor.orders()
        if not self._orders:
            return
        for entry_id, event in list(self._buffer.items()):
            left = self._as_it_may_be(entry_id, event)
            if left is None:
                del self._buffer[entry_id]
                self._written.add(entry_id)
            else:
                self._buffer[entry_id] = left
        await self._flush()
        done = [order for order in self._orders if await self._redactor.is_consumed(order)]
        await self._redactor.carry_out(done)
        self._orders = [order for order in self._orders if order not in done]

    def _as_it_may_be(self, entry_id: bytes, event: LoggedEvent) -> LoggedEvent | None:
        """*event* without what erased people left in it; None when it is all theirs."""
        left: LoggedEvent | None = event
        for order in self._orders:
            if left is not None and order.covers(entry_id):
                left = order.redacted(left)
        return left

    async def _delivered_too_often(self, entries: list[tuple[bytes, dict[bytes, bytes] | None]]) -> set[bytes]:
        pending: Any = await self._client.xpending_range(
            STREAM, GROUP, entries[0][0], entries[-1][0], len(entries), consumername=self._name
        )
        return {p["message_id"] for p in pending if p["times_delivered"] > self._rhythm.deliveries}

    async def _bury(self, entry_id: bytes, fields: dict[bytes, bytes], reason: str) -> None:
        self._log.warning("dead letter", entry=entry_id.decode(), reason=reason)
        letter: dict[Any, Any] = {**fields, b"reason": reason.encode(), b"entry": entry_id}
        await self._client.xadd(DEAD, letter, maxlen=DEAD_MAX_LENGTH, approximate=True)
        self.dead_letters += 1
        self._step("consume.buried")
        self._written.add(entry_id)
        await self._acknowledge()

    async def _flush(self) -> None:
        if self._buffer:
            await asyncio.to_thread(self._sink.write, list(self._buffer.values()))
            self._step("consume.written")
            # Written, whatever happens to the acknowledgement: it is owed, the events are not written again.
            self.events_written += len(self._buffer)
            self._log.info("written", events=len(self._buffer))
            self._written |= self._buffer.keys()
            self._buffer = {}
        await self._acknowledge()

    async def _acknowledge(self) -> None:
        if self._written:
            await self._client.xack(STREAM, GROUP, *self._written)
            self._step("consume.acknowledged")
            self._written = set()

    async def _tell(self, connected: bool) -> bool:
        if self._on_connected is not None:
            await self._on_connected(connected)
        return connected


def connect(url: str) -> redis.asyncio.Redis:
    """
    A client that fails at once and plainly: waiting and trying again is the consumer's own business.

    The socket timeout is far above the longest blocking read, or every quiet second would look like a broken server.
    """
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url, socket_timeout=10.0, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0)
    )
    return client


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
