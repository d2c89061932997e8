"""
The slate log's stream → `DIR/slate_log/served/date=…/` and `made/date=…/`.

Beside the consumer of events, in the same process, and simpler: the log is a sample, so what a consumer that never
comes back had in hand is lost with it. Entries leave the stream once their file has its name; after a crash a slate may
stand in two files.

    entry → row → buffered → file, without erased people → entry deleted
          ↘ unreadable: counted, deleted
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
from redis.exceptions import RedisError, ResponseError

from protos import redactions, slate_log
from protos.redactions import Redactions
from protos.slate_log import MADE, SERVED, STREAM, NoSlate
from services.ingestion.redact import CLOCKS_APART_MS, alone
from services.ingestion.sinks import add_part

GROUP = "ingestion"

READ_AT_ONCE = 200
"""Derived: at 8 kB an entry 1.6 MB."""

FLUSH_SLATES, FLUSH_S = 1_000, 30.0
"""Judged: rarer than events, for files of a sample would be small ones; a crash costs nothing, the stream has them."""

BLOCK_S = 0.5
"""Longest wait inside Redis; also how late a stop is noticed. As the consumer of events."""

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
                for row in _without(erased, of_kind):
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
    ) -> None:
        self._client, self._sink, self._name, self._log, self._flush_s = client, sink, name, log, flush_s
        self._rows: dict[bytes, list[Row]] = {kind: [] for kind in KINDS}
        self._entries: list[bytes] = []
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
                    await self._connect()
                    connected, wait_s = True, BACKOFF_S[0]
                await self._take(await self._read(b">", block_ms=int(BLOCK_S * 1000)))
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

    async def _connect(self) -> None:
        """Make the group if need be, and take up what an earlier life left in hand."""
        try:
            await self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        # What is buffered is in hand still; it is read again with the rest.
        self._rows, self._entries = {kind: [] for kind in KINDS}, []
        last = b"0"
        while entries := await self._read(last, block_ms=None):
            last = entries[-1][0]
            await self._take(entries)

    async def _read(self, after: bytes, block_ms: int | None) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
        answer: Any = await self._client.xreadgroup(
            GROUP, self._name, {STREAM: after}, count=READ_AT_ONCE, block=block_ms
        )
        # redis-py answers [[stream, entries]] with protocol 2 and {stream: [entries]} with protocol 3.
        if isinstance(answer, dict):
            return [entry for entries in answer.values() for part in entries for entry in part]
        return [entry for _, entries in answer or () for entry in entries]

    async def _take(self, entries: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> None:
        if entries and not self._entries:
            self._oldest_at = time.monotonic()
        for entry_id, fields in entries:
            self._entries.append(entry_id)
            for kind, raw in (fields or {}).items():  # None: trimmed while it was in hand
                try:
                    self._rows[kind].append(_READ[kind](raw))
                except (NoSlate, KeyError) as error:
                    self.unreadable += 1
                    self._log.warning("slate unreadable", entry=entry_id.decode(), reason=repr(error))
        if len(self._entries) >= FLUSH_SLATES:
            await self._flush()

    async def _flush(self) -> None:
        if not self._entries:
            return
        if any(self._rows.values()):
            written = await asyncio.to_thread(self._sink.write, self._rows)
            self.slates_written += written
            self._log.info("slates written", slates=written)
        self._rows = {kind: [] for kind in KINDS}
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xack(STREAM, GROUP, *self._entries)
            pipe.xdel(STREAM, *self._entries)
            await pipe.execute()
        self._entries = []


def _without(erased: Redactions, rows: Sequence[Row]) -> list[Row]:
    """*rows* without those of erased people from before their erasure; another user's, without the erased visitor."""
    users = erased.of_users({row["user_id"] for row in rows if row["user_id"] is not None})
    visitors = erased.of_visitors({row["visitor_id"] for row in rows if row["visitor_id"] is not None})
    if not users and not visitors:
        return list(rows)
    apart_us, kept = CLOCKS_APART_MS * 1000, []
    for row in rows:
        at_us, user_id = row["received_at"], row["user_id"]
        is_visitors = at_us <= visitors.get(row["visitor_id"], -apart_us) + apart_us
        if at_us <= users.get(user_id, -apart_us) + apart_us or (user_id is None and is_visitors):
            continue
        kept.append({**row, "visitor_id": None} if is_visitors else row)
    return kept


def _day(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d")


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
