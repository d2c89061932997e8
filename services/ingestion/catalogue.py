"""
Follow the catalogue's changes: give new items their keys, and write what changed where the next training finds it.

Beside the consumer of events, in the same process. There is no consumer group: whatever was missed is in the hash of
changed items, which is read at every start and whenever the stream was trimmed before it was read.

    change → new item? key in the vocabulary file → key in Redis, told by the stream
           ↘ log, in batches → position
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from protos import catalogue_log
from protos.artefacts import write_json
from protos.catalogue import (
    ITEMS,
    NO_KEY,
    STREAM,
    STREAM_MAX_LENGTH,
    VERSION,
    Continuity,
    Entry,
    ItemState,
    Unreadable,
    document_bytes,
    read_entry,
    read_state,
)
from services.ingestion.keys import Keys
from services.ingestion.sinks import add_part

BLOCK_S = 0.5
"""Longest wait inside Redis; also how late a stop is noticed. As the consumer of events."""

READ_AT_ONCE = 5_000
"""Judged: at most 2 MB; many new items at once rewrite the vocabulary once."""

KEYS_A_SCRIPT = 100
"""Derived: a script holds Redis' one thread; some 10 µs a key, so that others wait 1 ms."""

KEYS_REST = 3.0
"""Giving keys rests for this many times as long as it took. Derived: the vocabulary is written whole, half a second at
a million ids, so an import of a million must not have it written every few thousand; it takes a quarter of a core at
most, and a new item alone waits for nothing."""

FLUSH_S = 5.0
"""As events: longer loses nothing, since the hash has it."""

BACKOFF_S = (0.1, 5.0)

# KEYS: items, stream; ARGV: cap, then two an item: id, key. An item that has one keeps it.
GIVE_KEYS = """
for i = 2, #ARGV, 2 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if held then
    local version, key, document = string.match(held, '^(%d+) (%-?%d+) (.*)$')
    if key == '-1' then
      local state = version .. ' ' .. ARGV[i + 1] .. ' ' .. document
      redis.call('HSET', KEYS[1], ARGV[i], state)
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'op', 'key', 'id', ARGV[i], 'item', state)
    end
  end
end
return 1
"""


class CatalogueLog:
    """The catalogue log of one data directory."""

    def __init__(self, data: Path) -> None:
        self._folder = data / catalogue_log.FOLDER

    @property
    def position(self) -> int:
        """The newest change that is written; 0 before the first."""
        try:
            return int(json.loads((self._folder / catalogue_log.POSITION_FILE).read_text())["version"])
        except (FileNotFoundError, ValueError, KeyError):
            return 0

    def write(self, states: Sequence[ItemState], position: int) -> None:
        """Add *states*, in order, then say so. Blocks."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if states:
            documents = [None if s.document is None else document_bytes(s.document).decode() for s in states]
            columns = {"item_id": [s.item_id for s in states], "version": [s.version for s in states]}
            add_part(self._folder, pa.table({**columns, "document": documents}, schema=catalogue_log.SCHEMA))
        write_json(self._folder / catalogue_log.POSITION_FILE, {"version": position})


class CatalogueFollower:
    """One a data directory."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        sink: CatalogueLog,
        log: structlog.stdlib.BoundLogger,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._client, self._keys, self._sink, self._log, self._flush_s = client, keys, sink, log, flush_s
        self._continuity: Continuity | None = None
        self._last: Any = b"0-0"
        self._buffer: list[ItemState] = []
        self._oldest_at = 0.0
        # Everything up to here is written or in the buffer.
        self._position = 0
        self._is_anew = False
        # New items, in the order in which they came, and from when on they may be given keys.
        self._keyless: dict[str, None] = {}
        self._keys_at = 0.0
        self.keys_given = 0
        self.changes_written = 0

    def __repr__(self) -> str:
        return f"<CatalogueFollower {self._continuity!r}, {len(self._buffer)} buffered>"

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until *stop*; then write what is buffered. Redis being away is waited out."""
        wait_s, last_s = BACKOFF_S
        # Now, and not when the first new item waits for it: reading a file for the first time starts libraries.
        await asyncio.to_thread(self._keys.of, [])
        while not stop.is_set():
            try:
                await (self._read_all() if self._continuity is None else self._turn(self._continuity))
                wait_s = BACKOFF_S[0]
            except (RedisError, OSError) as error:
                self._log.warning("catalogue interrupted; trying again", reason=str(error), wait_s=wait_s)
                # Entries may have been read and not dealt with; the hash has them.
                self._continuity = None
                await _sleep(wait_s, stop)
                wait_s = min(wait_s * 2, last_s)
        try:
            await self._flush()
        except OSError as error:
            self._log.warning("stopped before every change was written", reason=str(error), follower=repr(self))

    async def _turn(self, continuity: Continuity) -> None:
        entries = await self._next()
        if not entries and continuity.is_lost(int(await self._client.get(VERSION) or 0)):
            self._continuity, self._is_anew = None, True
        states: list[ItemState] = []
        for entry_id, fields in entries:
            entry = self._readable(fields)
            if entry is not None:
                if not continuity.follows(entry):
                    self._continuity, self._is_anew = None, continuity.has_begun_anew
                    break
                states.append(entry.state)
            self._last = entry_id
        await self._take(states)
        if time.monotonic() >= self._keys_at:
            await self._give_keys()
        self._position = continuity.version
        if self._buffer and time.monotonic() - self._oldest_at >= self._flush_s:
            await self._flush()

    async def _next(self) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
        due_s = max(self._keys_at - time.monotonic(), 0.001) if self._keyless else BLOCK_S
        block_ms = max(1, int(min(due_s, BLOCK_S) * 1000))
        found: Any = await self._client.xread({STREAM: self._last}, count=READ_AT_ONCE, block=block_ms)
        # redis-py answers [[stream, entries]] with protocol 2 and {stream: [entries]} with protocol 3.
        if isinstance(found, dict):
            return [entry for parts in found.values() for part in parts for entry in part]
        return [entry for _, entries in found or () for entry in entries]

    async def _read_all(self) -> None:
        """Whatever was missed: every changed item without a key, and every change newer than the log."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xrevrange(STREAM, count=1)
            pipe.get(VERSION)
            newest, counter = await pipe.execute()
        version, written = int(counter or 0), await asyncio.to_thread(lambda: self._sink.position)
        if self._is_anew or version < written:
            # Redis has forgotten, and numbers from 1 again: what it has now is newer than all that is written.
            written = 0
        self._buffer, self._position, self._keyless = [], written, {}
        states: list[ItemState] = []
        async for item_id, held in self._client.hscan_iter(ITEMS, count=500):
            try:
                state = read_state(item_id, held)
            except Unreadable as error:
                self._log.error("catalogue item unreadable", reason=str(error))
                continue
            if state.version > written or state.key == NO_KEY:
                states.append(state)
            if len(states) >= READ_AT_ONCE:
                await self._take(states)
                await self._flush()
                states = []
        await self._take(states)
        await self._give_keys()
        self._continuity, self._last = Continuity(version), newest[0][0] if newest else b"0-0"
        self._position, self._is_anew = version, False
        await self._flush()

    async def _take(self, states: Sequence[ItemState]) -> None:
        if not states:
            return
        self._keyless |= {one.item_id: None for one in states if one.key == NO_KEY and one.document is not None}
        if not self._buffer:
            self._oldest_at = time.monotonic()
        self._buffer += states
        if len(self._buffer) >= READ_AT_ONCE:
            await self._flush()

    async def _give_keys(self) -> None:
        """Keys for all who wait for one."""
        if not self._keyless:
            return
        began_at = time.monotonic()
        given = list((await asyncio.to_thread(self._keys.of, list(self._keyless))).items())
        async with self._client.pipeline(transaction=False) as pipe:
            for start in range(0, len(given), KEYS_A_SCRIPT):
                flat = [part for pair in given[start : start + KEYS_A_SCRIPT] for part in pair]
                pipe.eval(GIVE_KEYS, 2, ITEMS, STREAM, STREAM_MAX_LENGTH, *flat)
            await pipe.execute()
        self._keyless = {}
        self._keys_at = time.monotonic() + KEYS_REST * (time.monotonic() - began_at)
        self.keys_given += len(given)
        self._log.info("keys given", items=len(given))

    async def _flush(self) -> None:
        if not self._buffer:
            return
        await asyncio.to_thread(self._sink.write, self._buffer, self._position)
        self.changes_written += len(self._buffer)
        self._buffer = []

    def _readable(self, fields: dict[bytes, bytes]) -> Entry | None:
        try:
            return read_entry(fields)
        except Unreadable as error:
            self._log.error("catalogue entry unreadable", reason=str(error))
            return None


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    waiting: Awaitable[bool] = stop.wait()
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return
