"""
Every item's features in memory, by item key, followed from Feast's online store in the background.

A request then costs an index into an array instead of 200 reads (0.8 ms of Redis each time, docs/features.md). What
ingestion wrote is named in a stream and read at once, item by item; everything is read again now and then, because the
stream is a hint. An item that comes later gets its row when the catalogue tells its key (`know`).

The rule: one thread reads and writes, a slice of items at a time, and whoever answers calls is told what changed; so
no call waits for more than a slice, and nothing that Redis does can take features away that we once had.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import redis
import structlog
from numpy.typing import NDArray
from redis.backoff import NoBackoff
from redis.retry import Retry

from protos import live_features
from protos.arrays import Float32
from protos.feast_layout import ReadPlan

Columns = tuple[Float32, NDArray[np.object_]]
"""numeric (n_items, k) float32, NaN where missing; categorical (n_items, c) str, "" where missing."""


class Follower(Protocol):
    """Who answers calls by these features. Called in the thread that reads, between two calls of nobody's."""

    def take(self, keys: NDArray[np.int64], numeric: Float32, categorical: NDArray[np.object_]) -> None:
        """A slice of items, by key, and what they became, (m, k) and (m, c); no call sees it before `publish`."""
        ...

    def publish(self) -> None:
        """Calls may see all that was taken."""
        ...


REFRESH_EVERY_S = 60.0
"""Judged: what changes is named in the stream and read at once; this is for hints that were missed."""

BLOCK_S = 0.5
"""Longest wait inside Redis for a change; also how late a stop, and a new item, is noticed. As ingestion."""

AT_ONCE_S = 0.001
"""The shortest wait for a change that Redis takes for one."""

RETRY_S = 0.5
"""Before Redis is asked again that did not answer. Judged: half a second is nothing beside what was missed."""

SLICE = 50
"""
Items read, decoded and encoded in one go. Derived: some 30 µs each of Python, and for longer than 1.5 ms a call should
not wait for the interpreter's lock; as the catalogue's tail.
"""

HEAR_AFTER = 20
"""Slices after which what changed meanwhile is read in between. Derived: 0.1 s, a tenth of the second within which an
event is to count; reading all of 50,000 items takes four and a half."""

REST = 3.0
"""Reading everything rests for at least this many times as long as it took. Derived: a million items are one and a half
minutes, a third of a core all the while; with this it is a tenth."""

PAUSE_S = 0.003
"""Between two slices, so that a call gets its turn. Derived: twice a slice, so a refresh is a third of a core."""

MAX_LEAP = 1_000_000
"""Keys that may be missing before a new one, as in the orchestrator's catalogue: beyond it a key is not ours."""

# Borrowed: a batch takes milliseconds; whoever takes seconds is not there, and we have the last columns.
_TIMEOUT_S = 5.0

log = structlog.get_logger("tutti.item_matrix")


class ItemMatrix:
    """
    The columns of all items by key. One thread reads and tells; `know` and what only looks belongs to any.

    An item that the store does not know keeps its row of the *snapshot*, or is missing without one.
    """

    def __init__(
        self,
        plan: ReadPlan,
        item_ids: Sequence[str],
        redis_url: str,
        snapshot: Columns | None = None,
        *,
        client: redis.Redis | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """
        Start with the snapshot; nothing is read before `refresh` or `start`.

        Args:
            item_ids: the vocabulary, in key order.
            snapshot: the columns that training saw, for at least the first rows of the vocabulary.
            client, pause: in place of a connection to *redis_url*, and of waiting so many seconds between slices.

        Raises:
            ValueError: a snapshot of other columns than the plan's, or of more items than the vocabulary.
        """
        self._plan = plan.item
        self._base = _base(plan, len(item_ids), snapshot)
        self._columns: Columns = self._base[0].copy(), self._base[1].copy()
        self._names: list[bytes | None] = [plan.item.redis_key(item_id) for item_id in item_ids]
        self._rows = {item_id: row for row, item_id in enumerate(item_ids)}
        self._came: deque[tuple[str, int]] = deque()
        self._client = client or redis.Redis.from_url(
            redis_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        self._read_at: float | None = None
        self._last: Any = b"0-0"
        self._follower: Follower | None = None
        self._is_told = False
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self._thread: threading.Thread | None = None

    @property
    def numeric(self) -> Float32:
        """(n_items, k) float32 in plan order: a copy, of rows as they were last read."""
        return self._columns[0].copy()

    @property
    def categorical(self) -> NDArray[np.object_]:
        """(n_items, c) object array of str in plan order: a copy."""
        return self._columns[1].copy()

    @property
    def age_s(self) -> float | None:
        """Seconds since all items were read; None before the first time."""
        return None if self._read_at is None else time.monotonic() - self._read_at

    def __len__(self) -> int:
        return len(self._names)

    def know(self, item_id: str, key: int) -> None:
        """An item has this key: from the next turn of the reading thread on it has a row, missing at first."""
        if item_id not in self._rows:
            self._came.append((item_id, key))

    def refresh(self) -> int:
        """
        Read every item now, slice by slice, and tell what changed; what the stream names meanwhile is read in between.

        Returns:
            Items that the store knew.

        Raises:
            redis.exceptions.RedisError: Redis is not there or refuses; what was not read stays as it is.
        """
        if not self._plan.fields:
            return 0
        newest: Any = self._client.xrevrange(live_features.CHANGES, count=1)
        # Before anything is read: what is named from here on is read once more.
        self._last = newest[0][0] if newest else b"0-0"
        rows = np.array([row for row, name in enumerate(self._names) if name is not None], np.int64)
        n_found = 0
        for start in range(0, len(rows), HEAR_AFTER * SLICE):
            if start:
                self._pause(PAUSE_S)
                self.update(self._changed(AT_ONCE_S))
            n_found += self._read(rows[start : start + HEAR_AFTER * SLICE])
        self._read_at = time.monotonic()
        return n_found

    def update(self, ids: Sequence[str]) -> int:
        """
        Read these items now; those nobody knows are left out.

        Returns:
            Items that were read.

        Raises:
            redis.exceptions.RedisError: as `refresh`.
        """
        known = self._grown()
        rows = np.array(sorted({self._rows[one] for one in (*ids, *known) if one in self._rows}), np.int64)
        if len(rows) and self._plan.fields:
            self._read(rows)
        return len(rows)

    def start(self, every_s: float = REFRESH_EVERY_S, follower: Follower | None = None) -> None:
        """Refresh now, if Redis lets us, and then follow in the background until `stop`. Never raises for Redis."""
        if self._thread is None:
            self._follower = follower
            # Nobody asks yet, so nobody has to be let pass.
            self._pause, pause = _at_once, self._pause
            self._try_refresh()
            self._pause = pause
            self._thread = threading.Thread(target=self._follow, args=(every_s,), name="item-matrix", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the background reading."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._client.close()

    def _follow(self, every_s: float) -> None:
        """Changes as they are named; everything every *every_s*, and whenever Redis had been away."""
        due_at = time.monotonic() + every_s
        is_away = self._read_at is None
        while not self._stop.is_set():
            if is_away or time.monotonic() >= due_at:
                began_at = time.monotonic()
                is_away = not self._try_refresh()
                due_at = time.monotonic() + max(every_s, REST * (time.monotonic() - began_at))
            if is_away:
                self._stop.wait(min(RETRY_S, every_s))
                continue
            try:
                self.update(self._changed(min(BLOCK_S, max(due_at - time.monotonic(), 0.001))))
            except redis.exceptions.RedisError:
                # The refresh that comes next says what is the matter.
                is_away = True

    def _changed(self, block_s: float) -> list[str]:
        """Items named in the stream since the last look; waits for the next."""
        found: Any = self._client.xread({live_features.CHANGES: self._last}, block=max(1, int(block_s * 1000)))
        # redis-py answers [[stream, entries]] with protocol 2 and {stream: [entries]} with protocol 3.
        parts = [p for x in found.values() for p in x] if isinstance(found, dict) else [e for _, e in found or ()]
        entries = [entry for part in parts for entry in part]
        if entries:
            self._last = entries[-1][0]
        return [one for _, fields in entries for one in live_features.item_ids(fields)]

    def _grown(self) -> list[str]:
        """Rows for the items that came since, in which everything is missing; these items."""
        came: dict[str, int] = {}
        while self._came:
            item_id, key = self._came.popleft()
            if item_id not in self._rows and 0 <= key < len(self._names) + MAX_LEAP:
                came[item_id] = key
        for item_id, key in came.items():
            try:
                name = self._plan.redis_key(item_id)
            except ValueError as error:
                log.warning("item_without_features", item_id=item_id[:60], reason=str(error))
                continue
            self._names += [None] * (key + 1 - len(self._names))
            self._names[key], self._rows[item_id] = name, key
        if len(self._names) > len(self._base[0]):
            # A quarter more, so that items that come one by one do not copy everything one by one.
            room = len(self._names) + len(self._names) // 4
            self._base = _wider(self._base, room)
            self._columns = _wider(self._columns, room)
        return list(came)

    def _read(self, rows: NDArray[np.int64]) -> int:
        """These *rows* as the store has them, what it knows not as in the snapshot; tells which became another."""
        n_found = 0
        try:
            for start in range(0, len(rows), SLICE):
                if start:
                    self._pause(PAUSE_S)
                n_found += self._read_slice(rows[start : start + SLICE])
        finally:
            # Also when Redis left half-way: what was read is so, and would not be told again.
            if self._follower is not None:
                self._follower.publish()
        return n_found

    def _read_slice(self, rows: NDArray[np.int64]) -> int:
        with self._client.pipeline(transaction=False) as pipe:
            for row in rows.tolist():
                pipe.hmget(self._names[row], list(self._plan.fields))
            columns = self._plan.decode(pipe.execute(), time.time())
        is_found = columns.found[:, None]
        numeric = np.where(is_found, columns.numeric, self._base[0][rows])
        categorical = np.where(is_found, columns.categorical, self._base[1][rows])
        known_numeric, known_words = self._columns[0][rows], self._columns[1][rows]
        is_same = (numeric == known_numeric) | (np.isnan(numeric) & np.isnan(known_numeric))
        changed = ~is_same.all(1) | (categorical != known_words).any(1)
        at = rows[changed]
        if len(at):
            self._columns[0][at], self._columns[1][at] = numeric[changed], categorical[changed]
            if self._follower is not None:
                self._follower.take(at, numeric[changed], categorical[changed])
        return int(columns.found.sum())

    def _try_refresh(self) -> bool:
        try:
            n_found = self.refresh()
        except redis.exceptions.RedisError as error:
            if not self._is_told:
                log.warning("item_features_not_refreshed", error=str(error), age_s=self.age_s)
            self._is_told = True
            return False
        self._is_told = False
        log.debug("item_features_refreshed", items=len(self), found=n_found)
        return True

    def __repr__(self) -> str:
        age = "never refreshed" if self.age_s is None else f"refreshed {self.age_s:.0f} s ago"
        return f"<ItemMatrix {len(self)} items × {self._base[0].shape[1]} + {self._base[1].shape[1]}, {age}>"


def _at_once(_: float) -> None:
    """Waits for nothing."""


def _wider(columns: Columns, n_items: int) -> Columns:
    """The same items and room for others, in which everything is missing."""
    numeric = np.full((n_items, columns[0].shape[1]), np.nan, np.float32)
    categorical = np.full((n_items, columns[1].shape[1]), "", object)
    numeric[: len(columns[0])], categorical[: len(columns[1])] = columns
    return numeric, categorical


def _base(plan: ReadPlan, n_items: int, snapshot: Columns | None) -> Columns:
    numeric = np.full((n_items, len(plan.item.numeric)), np.nan, np.float32)
    categorical = np.full((n_items, len(plan.item.categorical)), "", object)
    if snapshot is not None:
        found = snapshot[0].shape[1], snapshot[1].shape[1]
        if found != (numeric.shape[1], categorical.shape[1]) or len(snapshot[0]) > n_items:
            raise ValueError(
                f"a snapshot of {len(snapshot[0])} items with {found} numeric and categorical columns; the plan has "
                f"{(numeric.shape[1], categorical.shape[1])}, the vocabulary {n_items} items"
            )
        numeric[: len(snapshot[0])], categorical[: len(snapshot[1])] = snapshot
    return numeric, categorical
