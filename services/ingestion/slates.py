"""
The slate log's stream → `DIR/slate_log/served/date=…/` and `made/date=…/`.

Beside the consumer of events, in the same process and by the same reader, always in Redis. Entries leave the stream
once their file has its name; after a crash a slate may stand in two files.

    entry → row → buffered → file, without erased people → entry deleted
          ↘ unreadable, or given too often: counted, deleted
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from protos import redactions, slate_log
from protos.slate_log import MADE, SERVED, STREAM, NoSlate
from services.ingestion.redact import alone, without
from services.ingestion.sinks import add_part
from services.ingestion.streams import Entry, RedisStream

GROUP = "ingestion"

READ_AT_ONCE = 200
"""Derived: at 8 kB an entry 1.6 MB."""

FLUSH_SLATES, FLUSH_S = 1_000, 30.0
"""Judged: rarer than events, for files of a sample would be small ones; a crash costs nothing, the stream has them."""

BLOCK_S = 0.5
"""Longest wait inside Redis; also how late a stop is noticed. As the consumer of events."""

CLAIM_EVERY_S, CLAIM_IDLE_S = 30.0, 120.0
"""As the consumer of events; the second four times `FLUSH_S`, so that a healthy one is never robbed."""

DELIVERIES = 5
"""A slate given this often without being written may be what kills us; the log is a sample, so it is dropped."""

BACKOFF_S = (0.1, 5.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two tables."""

    folder: str
    schema: pa.Schema


KINDS = {
    SERVED: Kind("served", slate_log.SERVED_SCHEMA),
    MADE: Kind("made", slate_log.MADE_SCHEMA),
}
_READ = {SERVED: slate_log.served_row, MADE: slate_log.made_row}

Row = Mapping[str, Any]


class SlateFiles:
    """The slate log of one data directory."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def write(self, rows: Mapping[bytes, Sequence[Row]]) -> int:
        """
        One new file a kind and day, without erased people; returns how many rows were written. Blocks.

        Raises:
            OSError: nothing of the failed day is visible; writing all again is right.
        """
        written = 0
        # An erasure rewrites files and then says whom: either it finds ours, or we find it.
        with alone(self._data):
            erased = redactions.read(self._data)
            for kind, of_kind in rows.items():
                days: dict[str, list[Row]] = {}
                for row in without(erased, of_kind):
                    days.setdefault(_day(row["received_at"]), []).append(row)
                for day, of_day in sorted(days.items()):
                    folder = self._data / slate_log.FOLDER / KINDS[kind].folder / f"date={day}"
                    folder.mkdir(parents=True, exist_ok=True)
                    add_part(folder, slate_log.table(of_day, KINDS[kind].schema))
                    written += len(of_day)
        return written


class SlateFollower:
    """One consumer of the group; *name* is stable over restarts: what it had in hand is found again by it."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        sink: SlateFiles,
        name: str,
        log: structlog.stdlib.BoundLogger,
        flush_s: float = FLUSH_S,
        claim_idle_s: float = CLAIM_IDLE_S,
    ) -> None:
        self._sink, self._name, self._log, self._flush_s = sink, name, log, flush_s
        self._stream = RedisStream(
            client,
            STREAM,
            GROUP,
            name,
            log,
            batch=READ_AT_ONCE,
            claim_every_s=CLAIM_EVERY_S,
            claim_idle_s=claim_idle_s,
            is_emptied=True,
        )
        self._rows: dict[bytes, list[Row]] = {kind: [] for kind in KINDS}
        self._entries: dict[bytes, None] = {}
        self._oldest_at = 0.0
        self.slates_written = 0
        self.unreadable = 0

    def __repr__(self) -> str:
        return f"<SlateFollower {self._name}, {len(self._entries)} buffered>"

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until *stop*; then write what is buffered. Redis being away is waited out."""
        wait_s, last_s = BACKOFF_S
        connected = False
        while not stop.is_set():
            try:
                if not connected:
                    await self._stream.open()
                    connected, wait_s = True, BACKOFF_S[0]
                await self._take(await self._stream.read(BLOCK_S))
                if self._entries and time.monotonic() - self._oldest_at >= self._flush_s:
                    await self._flush()
            except (RedisError, OSError) as error:
                self._log.warning("slate log interrupted; trying again", reason=str(error), wait_s=wait_s)
                connected = False
                await _sleep(wait_s, stop)
                wait_s = min(wait_s * 2, last_s)
        try:
            await self._flush()
        except (RedisError, OSError) as error:
            self._log.warning("stopped before every slate was written", reason=str(error), follower=repr(self))

    async def _take(self, entries: Sequence[Entry]) -> None:
        # What is buffered is in hand still, and given again after Redis was away.
        entries = [one for one in entries if one.entry_id not in self._entries]
        if entries and not self._entries:
            self._oldest_at = time.monotonic()
        for entry in entries:
            self._entries[entry.entry_id] = None
            if entry.deliveries > DELIVERIES:
                self._dropped(entry, f"delivered more than {DELIVERIES} times without being written")
                continue
            for kind, raw in (entry.fields or {}).items():  # None: trimmed while it was in hand
                try:
                    self._rows[kind].append(_READ[kind](raw))
                except (NoSlate, KeyError) as error:
                    self._dropped(entry, repr(error))
        if len(self._entries) >= FLUSH_SLATES:
            await self._flush()

    def _dropped(self, entry: Entry, reason: str) -> None:
        self.unreadable += 1
        self._log.warning("slate unreadable", entry=entry.entry_id.decode(), reason=reason)

    async def _flush(self) -> None:
        if not self._entries:
            return
        if any(self._rows.values()):
            written = await asyncio.to_thread(self._sink.write, self._rows)
            self.slates_written += written
            self._log.info("slates written", slates=written)
        self._rows = {kind: [] for kind in KINDS}
        await self._stream.acknowledge(self._entries)
        self._entries = {}


def _day(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d")


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
