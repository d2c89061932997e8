"""
Keeps this process's catalogue as the shop has it: what was changed since the data directory was written, and every
change from then on.

    start    the stream's last entry and the counter are noted in one instant; then the hash is read; then the stream
             from the entry noted
    missed   a number was left out (entries were trimmed) or came again (Redis lost its memory): read the hash anew

The rule: whatever Redis does, pages go out. Without it the catalogue stays as it is, and it is said once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from orchestrator.adapters.catalogue import documents_of
from orchestrator.adapters.ending import ended
from orchestrator.ports import Catalogue
from orchestrator.telemetry import Metrics, log
from protos.catalogue import ITEMS, STREAM, VERSION, Continuity, ItemState, Unreadable, read_entry, read_state

BLOCK_S = 1.0
"""Longest wait inside Redis for the next change. Judged: it costs two small commands a second, and so long it takes at
most to notice that a Redis came back empty."""

TIMEOUT_S = 3.0
"""Derived: three times the longest wait that is meant; who takes longer is hung."""

BACKOFF_S = (0.05, 1.0)
"""Pause before the next attempt, doubled each time; as of the connection that pages wait for (redis_pipeline)."""

CHANGES_A_TURN = 20
"""Derived: a change is some 20 µs of the event loop, which others get back after half a millisecond; a slate takes a
dozen turns, and each of them may wait for one of these."""

READ_AT_ONCE = 500
"""Entries, or fields of the hash, asked for in one go: 0.2 MB at 400 bytes."""


class CatalogueMirror:
    """One a process. *data*: the data directory, read again where Redis lost its memory."""

    def __init__(self, catalogue: Catalogue, redis_url: str, data: Path, metrics: Metrics) -> None:
        self._catalogue, self._data, self._metrics = catalogue, data, metrics
        self._client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=BLOCK_S, retry=Retry(NoBackoff(), 0)
        )
        self._continuity: Continuity | None = None
        self._last = b"0-0"
        self._had, self._is_anew = 0, False
        self._is_told = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what was changed so far, where Redis is there to tell, and follow from now on."""
        try:
            await self._read_all("start")
        except (RedisError, OSError) as error:
            self._tell(error)
        self._task = asyncio.create_task(self._follow(), name="catalogue")
        self._task.add_done_callback(_tell_of_a_bug)

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            await ended(self._task)
        await self._client.aclose()

    async def _follow(self) -> None:
        wait_s, last_s = BACKOFF_S
        while True:
            try:
                await self._turn()
            except (RedisError, OSError) as error:
                self._tell(error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, last_s)
            else:
                if self._is_told:
                    log.info("catalogue_followed_again", mirror=repr(self))
                self._is_told, wait_s = False, BACKOFF_S[0]

    async def _turn(self) -> None:
        """What comes next; with nothing new, whether Redis still knows what it knew."""
        if self._continuity is None:
            await self._read_all("forgotten" if self._is_anew else "missed")
            return
        entries = await self._next()
        if not entries:
            if self._continuity.is_lost(await self._counter()):
                self._continuity, self._is_anew = None, True
            return
        states: list[ItemState] = []
        for entry_id, fields in entries:
            try:
                entry = read_entry(fields)
            except Unreadable as error:
                log.error("catalogue_entry_unreadable", reason=str(error))
            else:
                if not self._continuity.follows(entry):
                    self._is_anew = self._continuity.has_begun_anew
                    self._continuity = None
                    break
                self._had = self._continuity.version
                states.append(entry.state)
            self._last = entry_id
        await self._take(states)

    async def _next(self) -> Sequence[tuple[bytes, Mapping[bytes, bytes]]]:
        found: Any = await self._client.xread({STREAM: self._last}, count=READ_AT_ONCE, block=int(BLOCK_S * 1000))
        # redis-py answers [[stream, entries]] with protocol 2 and {stream: [entries]} with protocol 3.
        if isinstance(found, dict):
            return [entry for parts in found.values() for part in parts for entry in part]
        return [entry for _, entries in found or () for entry in entries]

    async def _read_all(self, why: str) -> None:
        """Make the catalogue what data directory and hash say."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xrevrange(STREAM, count=1)
            pipe.get(VERSION)
            newest, counter = await pipe.execute()
        version, last = int(counter or 0), newest[0][0] if newest else b"0-0"
        if self._is_anew or version < self._had:
            self._catalogue.forget_versions()
        found: set[str] = set()
        states: list[ItemState] = []
        async for item_id, held in self._client.hscan_iter(ITEMS, count=READ_AT_ONCE):
            try:
                states.append(read_state(item_id, held))
            except Unreadable as error:
                log.error("catalogue_item_unreadable", reason=str(error))
                continue
            found.add(states[-1].item_id)
            if len(states) >= READ_AT_ONCE:
                await self._take(states)
                states = []
        await self._take(states)
        await self._put_back(found, version)
        self._continuity, self._last, self._had = Continuity(version), last, version
        self._is_anew = False
        self._metrics.catalogue_reads.labels(why).inc()
        log.info("catalogue_read", why=why, items=len(found), version=version)

    async def _put_back(self, found: set[str], version: int) -> None:
        """What we hold changed and Redis does not is as the data directory has it. Later changes are not meant."""
        gone = [one for one, held in self._catalogue.changed().items() if one not in found and held <= version]
        if gone:
            self._catalogue.put_back(await asyncio.to_thread(documents_of, self._data, gone))

    async def _take(self, states: Sequence[ItemState]) -> None:
        for start in range(0, len(states), CHANGES_A_TURN):
            self._catalogue.apply(states[start : start + CHANGES_A_TURN])
            await asyncio.sleep(0)
        self._metrics.catalogue_changes.inc(len(states))

    async def _counter(self) -> int:
        return int(await self._client.get(VERSION) or 0)

    def _tell(self, error: Exception) -> None:
        if not self._is_told:
            log.warning("catalogue_not_followed", reason=str(error), mirror=repr(self))
        self._is_told = True

    def __repr__(self) -> str:
        where = "reads anew" if self._continuity is None else repr(self._continuity)
        return f"<CatalogueMirror {where}, {self._catalogue!r}>"


def _tell_of_a_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("catalogue_stands_still", exc_info=error)
