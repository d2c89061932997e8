"""
Read the event log, write in micro-batches, acknowledge after the write. Which broker it lies with is for `streams`.

Nothing is lost: an entry is acknowledged only when its file has its final name, or when it lies in the dead-letter
stream. The broker may go away and come back.

    entry → parsed → buffered → file renamed → acknowledged
          ↘ poison → tutti:events:dead → acknowledged
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from services.ingestion import steps
from services.ingestion.redact import Order
from services.ingestion.sinks import LoggedEvent, Poison, parse
from services.ingestion.streams import Entry, RedisStream, Stream, connect

__all__ = ["DEAD", "GROUP", "STREAM", "Consumer", "Redacts", "Rhythm", "Sink", "connect", "events_in_redis"]

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


RHYTHM = Rhythm()
"""In service."""


class Redacts(Protocol):
    """Who knows of erased people, and carries erasures out; see `redact`."""

    async def orders(self) -> list[Order]: ...

    def covers(self, order: Order, entry_id: bytes, event: LoggedEvent) -> bool: ...

    async def left_out(self, event: LoggedEvent) -> None: ...

    async def is_consumed(self, order: Order) -> bool: ...

    async def carry_out(self, orders: list[Order]) -> None: ...


class Sink(Protocol):
    """Where events go; `write` blocks and is called in a thread."""

    def write(self, events: list[LoggedEvent]) -> object: ...


class Consumer:
    """
    One consumer of the group.

    Args:
        client: the Redis where dead letters lie.
        on_connected: told True when the stream can be read, False when its broker is away.
        redactor: whose orders are carried out; None: erased people stay in the log.
        step: told the name of each step; see `steps`.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        stream: Stream,
        sink: Sink,
        log: structlog.stdlib.BoundLogger,
        *,
        rhythm: Rhythm = RHYTHM,
        on_connected: Callable[[bool], Awaitable[None]] | None = None,
        redactor: Redacts | None = None,
        step: steps.Step = steps.nothing,
    ) -> None:
        self._client, self._stream, self._sink, self._log, self._rhythm = client, stream, sink, log, rhythm
        self._on_connected, self._redactor, self._step = on_connected, redactor, step
        self._orders: list[Order] = []
        # Read, and not dealt with: a topic gives an entry once, so what an outage keeps us from stays in hand.
        self._taken: dict[bytes, Entry] = {}
        self._buffer: dict[bytes, LoggedEvent] = {}
        self._written: set[bytes] = set()
        self._oldest_at = 0.0
        self._redacted_at = 0.0
        self.events_written = 0
        self.dead_letters = 0

    def __repr__(self) -> str:
        counts = f"{len(self._taken)} taken, {len(self._buffer)} buffered, {len(self._written)} to acknowledge"
        return f"<Consumer, {counts}>"

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until *stop*; then write and acknowledge what is buffered. A broker that is away is waited out."""
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
                self._log.warning("interrupted; trying again", reason=str(error), wait_s=wait_s)
                connected = await self._tell(False)
                await _sleep(wait_s, stop)
                wait_s = min(wait_s * 2, last_s)
        try:
            await self._flush()
        except (RedisError, OSError) as error:
            # Entries stay unacknowledged; the next start reads them first.
            self._log.warning("stopped before everything was acknowledged", reason=str(error), consumer=repr(self))

    async def _connect(self) -> None:
        """Open the stream, acknowledge what is still owed, and learn whom to leave out."""
        await self._stream.open()
        await self._acknowledge()
        await self._redact()

    async def _turn(self) -> None:
        now = time.monotonic()
        if now - self._redacted_at >= self._rhythm.redact_every_s:
            self._redacted_at = now
            await self._redact()
        # What an outage had interrupted is not waited for.
        await self._take(await self._stream.read(0.0 if self._taken else self._rhythm.block_s))
        is_due = self._buffer and time.monotonic() - self._oldest_at >= self._rhythm.flush_s
        if is_due or len(self._buffer) >= self._rhythm.flush_events:
            await self._flush()
        elif self._written and not self._buffer:
            await self._acknowledge()

    async def _take(self, entries: Iterable[Entry]) -> None:
        # What is in hand already is given again after the broker was away.
        self._taken |= {one.entry_id: one for one in entries}
        for entry_id in self._taken.keys() & (self._buffer.keys() | self._written):
            del self._taken[entry_id]
        if not self._taken:
            return
        self._step("consume.read")
        for entry_id, entry in list(self._taken.items()):
            await self._deal_with(entry)
            del self._taken[entry_id]
        self._step("consume.parsed")

    async def _deal_with(self, entry: Entry) -> None:
        """Buffer its event, or be done with it."""
        if entry.fields is None:  # trimmed from the stream while it was pending: nothing is left to write
            self._written.add(entry.entry_id)
            return
        try:
            if entry.deliveries > self._rhythm.deliveries:
                raise Poison(f"delivered more than {self._rhythm.deliveries} times without being finished")
            event = parse(entry.fields.get(FIELD))
        except Poison as poison:
            await self._bury(entry.entry_id, entry.fields, str(poison))
            return
        left = self._as_it_may_be(entry.entry_id, event)
        if left is None:
            await self._leave_out(entry.entry_id, event)
            return
        if not self._buffer:
            self._oldest_at = time.monotonic()
        self._buffer[entry.entry_id] = left

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
                await self._leave_out(entry_id, event)
                del self._buffer[entry_id]
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
            if left is not None and self._redactor is not None and self._redactor.covers(order, entry_id, left):
                left = order.redacted(left)
        return left

    async def _leave_out(self, entry_id: bytes, event: LoggedEvent) -> None:
        """It is an erased person's, and comes into no file; whatever else has to know of it does before it is gone."""
        if self._redactor is not None:
            await self._redactor.left_out(event)
        self._written.add(entry_id)

    async def _bury(self, entry_id: bytes, fields: Mapping[bytes, bytes], reason: str) -> None:
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
            await self._stream.acknowledge(self._written)
            self._step("consume.acknowledged")
            self._written = set()

    async def _tell(self, connected: bool) -> bool:
        if self._on_connected is not None:
            await self._on_connected(connected)
        return connected


def events_in_redis(
    client: redis.asyncio.Redis, name: str, log: structlog.stdlib.BoundLogger, rhythm: Rhythm = RHYTHM
) -> RedisStream:
    """The event stream as consumer *name* reads it, where Redis is the broker."""
    return RedisStream(
        client,
        STREAM,
        GROUP,
        name,
        log,
        batch=rhythm.batch,
        claim_every_s=rhythm.claim_every_s,
        claim_idle_s=rhythm.claim_idle_s,
    )


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
