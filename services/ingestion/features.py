"""
Follow the event stream and keep the features of whoever it speaks of fresh in the online store.

Beside the consumer, with a reading of its own: no group, so that every event counts at once and not when its file is
written. What is known is base, log and stream, an event_id once (`known_events`); a position in Redis says up to which
entry the store has everything. It moves after the rows are written, so whoever dies in between does them again, which
gives the same rows.

    entry → known → touched, a quarter of a second's worth → computed from all their events → store → position
            seeding deletes the position → all that the log speaks of is computed again, behind what comes
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from protos import live_features, redactions
from protos.history import REDACTIONS, identity_key
from protos.live_features import POSITION
from services.ingestion import steps
from services.ingestion.known_events import KnownEvents, Touched
from services.ingestion.online_store import OnlineStore
from services.ingestion.sinks import LoggedEvent, Poison, parse
from services.ingestion.tails import Tail
from services.training import live_views
from services.training.feature_store import FeatureError

EVERY_S = 0.25
"""Least time between two writes. Derived: with a read, a computation and a write of as long, and the re-ranker's own
reading, a counter is seen within the second that is promised; measured at a million events (docs/features.md)."""

BATCH = 500
"""Users, and items, of one computation. Measured: half a second of CPU at a million events, most of which one row costs
too, so that a larger batch is cheaper, and a smaller one no sooner done."""

ASK_AT_ONCE = 1_000
"""Identities a command asks for. Judged."""

LOOK_EVERY_S = 1.0
"""How often to look for erased people, and whether the position still stands. Judged."""

SWEEP_EVERY_S = 3_600.0
"""
How often every item's row is computed again, behind what comes: "sales of 7 days" fall by themselves, without an event.
Judged: windows are days.
"""

BACKOFF_S = (0.1, 5.0)


class FeatureFollower:
    """
    One a data directory.

    Args:
        client: the Redis of features and identities.
        tail: the event stream, read without a group.
        step: told the name of each step; see `steps`.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        data: Path,
        tail: Tail,
        log: structlog.stdlib.BoundLogger,
        *,
        every_s: float = EVERY_S,
        look_every_s: float = LOOK_EVERY_S,
        step: steps.Step = steps.nothing,
    ) -> None:
        self._client, self._data, self._tail, self._log = client, data, tail, log
        self._every_s, self._look_every_s, self._step = every_s, look_every_s, step
        self._known: KnownEvents | None = None
        self._views = live_views.LiveViews("", ())
        self._settled: bytes | None = None
        # Who waits, oldest first; behind them those whom nobody waits for.
        self._fresh = _Waiting()
        self._behind = _Waiting()
        self._written_at = self._looked_at = 0.0
        self._swept_at = time.monotonic()
        self._erased_of: tuple[int, int] | None = None
        self._is_idle_told = False
        # Named by erasures: to be looked for, and taken out of the set once their rows are written.
        self._is_again_due = True
        self._again: set[bytes] = set()
        self.rows_written = 0

    @property
    def waiting(self) -> int:
        """Users and items whose rows are older than what is known."""
        return len(self._fresh) + len(self._behind)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow until *stop*. Redis being away is waited out; without computed features there is nothing to do."""
        wait_s, last_s = BACKOFF_S
        while not stop.is_set():
            try:
                if self._known is None and not await self._begin():
                    await _sleep(self._look_every_s, stop)
                    continue
                await self._turn()
                wait_s = BACKOFF_S[0]
            except (RedisError, OSError, FeatureError) as error:
                self._log.warning("features interrupted; trying again", reason=str(error), wait_s=wait_s)
                # Entries may have been read and not counted; reading them again changes nothing.
                self._known = None
                await _sleep(wait_s, stop)
                wait_s = min(wait_s * 2, last_s)

    async def rebuild(self, since_us: int | None = None) -> int:
        """
        Compute and write all that the log speaks of, and with *since_us* all that anybody did from then on, and return
        how many rows that were. For `replay`; the stream is read as far as it goes.

        Raises:
            FeatureError: no features were computed in this data directory.
        """
        if not await self._begin():
            raise FeatureError(f"no {live_views.FILE} in {self._data}; `tutti train` computes features")
        known = self._begun()
        self._behind.add(known.live() if since_us is None else known.live() | known.live(since_us))
        while await self._read(block_s=None):
            pass
        before = self.rows_written
        while self.waiting:
            await self._write()
        return self.rows_written - before

    async def _begin(self) -> bool:
        """Read what is known, and find where to read on; False while there are no features to keep."""
        views = live_views.load(self._data)
        if views is None or not (self._data / "events.parquet").is_file():
            if not self._is_idle_told:
                self._log.warning("no features to keep fresh; `tutti train` computes them", data=str(self._data))
                self._is_idle_told = True
            return False
        # Before the files are read: what is acknowledged by now is in them.
        settled: bytes | None = await self._client.get(POSITION)
        self._settled = settled if await self._tail.begin(settled) else None
        self._erased_of = self._stamp()
        erased = await asyncio.to_thread(redactions.read, self._data)
        self._known = await asyncio.to_thread(KnownEvents, self._data, views.views, erased)
        self._views = views
        await self._identify(self._known.guests())
        self._fresh, self._behind = _Waiting(), _Waiting()
        self._fresh.add(self._known.forgotten)
        self._fresh.add(_named(await self._asked_again()))
        self._is_again_due = True
        if self._settled is None:
            self._behind.add(self._known.live())
        self._log.info(
            "features followed", events=len(self._known), position=self._tail.position.decode(), waiting=self.waiting
        )
        return True

    async def _turn(self) -> None:
        known = self._begun()
        now = time.monotonic()
        if now - self._looked_at >= self._look_every_s:
            self._looked_at = now
            await self._look(known)
        if now - self._swept_at >= SWEEP_EVERY_S:
            self._swept_at = now
            self._behind.add(Touched(frozenset(), known.items()))
        due_s = self._every_s - (time.monotonic() - self._written_at)
        await self._read(block_s=0.001 if self._behind else max(due_s, 0.001) if self._fresh else 2 * self._every_s)
        if self.waiting and time.monotonic() - self._written_at >= (self._every_s if self._fresh else 0.0):
            self._written_at = time.monotonic()
            await self._write()
        if self._again and not self._fresh:
            # redis-py's stubs answer for the client that does not await, too.
            taken_out: Any = self._client.srem(live_features.AGAIN, *self._again)
            await taken_out
            self._again = set()
        if not self.waiting and self._settled != self._tail.position:
            position = self._tail.position
            await self._client.set(POSITION, position)
            self._settled = position
            self._step("features.settled")

    async def _read(self, block_s: float | None) -> int:
        """Take in what the stream has; returns how many entries that were."""
        entries = await self._tail.read(block_s)
        if not entries:
            return 0
        self._step("features.read")
        events = [event for entry in entries if (event := _event(entry.fields)) is not None]
        known = self._begun()
        touched = await asyncio.to_thread(known.add, events)
        visitors = [one.columns["visitor_id"] for one in events if one.columns["visitor_id"] is not None]
        touched |= await self._identify(await asyncio.to_thread(known.guests, visitors))
        self._fresh.add(touched)
        return len(entries)

    async def _identify(self, visitor_ids: list[str]) -> Touched:
        """What merged visitors did is the users'; which ones are, Redis knows."""
        users: dict[str, str] = {}
        for start in range(0, len(visitor_ids), ASK_AT_ONCE):
            some = visitor_ids[start : start + ASK_AT_ONCE]
            found = await self._client.mget([identity_key(one) for one in some])
            users |= {one: user.decode() for one, user in zip(some, found, strict=True) if user is not None}
        return await asyncio.to_thread(self._begun().identify, users) if users else Touched()

    async def _look(self, known: KnownEvents) -> None:
        """Erased people leave what is known; a position that was deleted means that the store was filled anew."""
        stamp = self._stamp()
        if stamp != self._erased_of:
            self._erased_of = stamp
            erased = await asyncio.to_thread(redactions.read, self._data)
            self._fresh.add(await asyncio.to_thread(known.forget, erased))
            self._is_again_due = True
        if self._is_again_due and not await self._client.xlen(REDACTIONS):
            # No erasure is on its way, so what is known is without all who are named here.
            self._again = await self._asked_again()
            self._fresh.add(_named(self._again))
            self._is_again_due = False
        if self._settled is not None and await self._client.get(POSITION) is None:
            self._log.warning("the store was filled anew; computing all that the log speaks of")
            self._settled = None
            self._behind.add(known.live())

    async def _asked_again(self) -> set[bytes]:
        members: Any = self._client.smembers(live_features.AGAIN)
        return set(await members)

    async def _write(self) -> None:
        known, store = self._begun(), OnlineStore(self._client, self._views)
        touched = self._fresh.first(BATCH) or self._behind.first(BATCH)
        rows = await asyncio.to_thread(known.features, touched)
        self._step("features.computed")
        self.rows_written += await store.write(rows, touched)
        self._step("features.stored")
        self._fresh.drop(touched)
        self._behind.drop(touched)

    def _begun(self) -> KnownEvents:
        if self._known is None:
            raise RuntimeError("nothing is known yet; `_begin` comes first")
        return self._known

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = (self._data / redactions.FILE_NAME).stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino

    def __repr__(self) -> str:
        return f"<FeatureFollower {self._known!r} at {self._tail.position.decode()}, {self.waiting} waiting>"


class _Waiting:
    """Users and items in the order in which they came, each once."""

    def __init__(self) -> None:
        self._users: dict[str, None] = {}
        self._items: dict[str, None] = {}

    def add(self, touched: Touched) -> None:
        self._users |= dict.fromkeys(sorted(touched.users))
        self._items |= dict.fromkeys(sorted(touched.items))

    def first(self, count: int) -> Touched:
        return Touched(_first(self._users, count), _first(self._items, count))

    def drop(self, touched: Touched) -> None:
        for one in touched.users:
            self._users.pop(one, None)
        for one in touched.items:
            self._items.pop(one, None)

    def __len__(self) -> int:
        return len(self._users) + len(self._items)


def _first(waiting: Iterable[str], count: int) -> frozenset[str]:
    return frozenset(one for one, _ in zip(waiting, range(count), strict=False))


def _named(members: Iterable[bytes]) -> Touched:
    """What `live_features.AGAIN` holds."""
    texts = [member.decode() for member in members]
    users, items = ([one[2:] for one in texts if one.startswith(kind)] for kind in ("u:", "i:"))
    return Touched(frozenset(users), frozenset(items))


def _event(fields: Mapping[bytes, bytes] | None) -> LoggedEvent | None:
    """The event of an entry; None for poison, which the consumer buries."""
    try:
        return parse((fields or {}).get(b"event"))
    except Poison:
        return None


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
