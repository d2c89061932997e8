"""
Carries out redactions: takes erased people out of the event stream, its dead letters and the log's files.

    order in tutti:redactions
      → what this process holds and reads is redacted on its way      (consume)
      → every entry from before the erasure is written or dropped     (is_consumed; also by other consumers)
      → stream, dead letters → files → redactions.parquet → slates    (carry_out)
      → order deleted

Every step may be repeated, and the order goes last: whoever dies in between leaves it to the next start. A file is
written aside and renamed, so that a reader sees the old rows or the new ones.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis.asyncio
import structlog

from protos import live_features, redactions, slate_log
from protos.history import REDACTIONS, slates_key
from services.ingestion import steps
from services.ingestion.sinks import LoggedEvent, to_disk
from services.training import live_views

CLOCKS_APART_MS = 300_000
"""Rows carry an edge's clock, orders Redis': what was received up to this long after an erasure goes too. Borrowed from
what the edge allows a shopper's clock; rather a newcomer's first minutes than an erased person's last."""

ABANDONED_S = 3_600
"""A file that was being written this long ago is of a process that died: judged, writing one takes seconds."""

_LONG_AGO_US = -(2**62)

PAGE = 1_000
"""Entries a read asks for, as in `consume`."""


@dataclass(frozen=True)
class Order:
    """
    One erasure that is not carried out yet.

    until   the last entry of the stream that may be about these people, (milliseconds, sequence)
    at_ms   when they were erased, by Redis' clock
    """

    entry_id: bytes
    user_ids: tuple[str, ...]
    visitor_ids: tuple[str, ...]
    until: tuple[int, int]
    at_ms: int

    def redacted(self, event: LoggedEvent) -> LoggedEvent | None:
        """
        *event* as it may stand in the log: not at all when it is theirs; another user's, without the erased visitor.

        An event of nobody known by user id is its visitor's.
        """
        user_id, visitor_id = event.columns["user_id"], event.columns["visitor_id"]
        if user_id in self.user_ids or (user_id is None and visitor_id in self.visitor_ids):
            return None
        if visitor_id in self.visitor_ids:
            return replace(event, columns={**event.columns, "visitor_id": None})
        return event

    def covers(self, entry_id: bytes) -> bool:
        """Whether this entry of the stream is from before the erasure."""
        return position(entry_id) <= self.until

    def is_mentioned_in(self, raw: bytes) -> bool:
        """Whether *raw*, a stream entry's JSON, names one of them; of what is no JSON, whether it may."""
        if not any(token in raw for token in self._tokens):
            return False
        try:
            document = json.loads(raw)
        except ValueError:
            return True
        if not isinstance(document, dict):
            return True
        return document.get("user_id") in self.user_ids or document.get("visitor_id") in self.visitor_ids

    @cached_property
    def _tokens(self) -> tuple[bytes, ...]:
        """The ids as JSON writes them, with and without escapes; bytes that spare most entries the parsing."""
        ids = (*self.user_ids, *self.visitor_ids)
        return tuple({json.dumps(one, ensure_ascii=escapes).encode() for one in ids for escapes in (False, True)})

    def subjects(self) -> list[str]:
        """Whose keys in Redis these people's are."""
        return [f"u:{one}" for one in self.user_ids] + [f"v:{one}" for one in self.visitor_ids]

    def __repr__(self) -> str:
        return f"<Order {self.entry_id.decode()}, {len(self.user_ids)} users, {len(self.visitor_ids)} visitors>"


class Redactor:
    """
    Args:
        stream, group, dead: what `consume` reads, as whom, and where its poison lies.
        data: the data directory; its `event_log/` and `slate_log/` are rewritten, its `redactions.parquet` is added to.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        stream: str,
        group: str,
        dead: str,
        data: Path,
        log: structlog.stdlib.BoundLogger,
        step: steps.Step = steps.nothing,
    ) -> None:
        self._client, self._stream, self._group, self._dead = client, stream, group, dead
        self._data, self._log, self._step = data, log, step
        self._unreadable: set[bytes] = set()

    async def close(self) -> None:
        """Give up what belongs to this redactor alone: nothing."""

    async def orders(self) -> list[Order]:
        """What waits, the oldest first; one page, the rest next time. What is no order stays, for people to look at."""
        entries: Any = await self._client.xrange(REDACTIONS, count=PAGE)
        found = []
        for entry_id, fields in entries:
            try:
                found.append(_order(entry_id, fields))
            except (KeyError, ValueError) as error:
                if entry_id not in self._unreadable:
                    self._unreadable.add(entry_id)
                    self._log.error("redaction unreadable", entry=entry_id.decode(), reason=repr(error))
        return found

    def covers(self, order: Order, entry_id: bytes, event: LoggedEvent) -> bool:
        """Whether this entry, which is *event*, is from before the erasure."""
        return order.covers(entry_id)

    async def left_out(self, event: LoggedEvent) -> None:
        """*event*, an erased person's, will be in no file. Here its entry stays in the stream: `carry_out` finds it."""

    async def is_consumed(self, order: Order) -> bool:
        """Whether every entry from before the erasure was read, and is held by no consumer of the group."""
        until = f"{order.until[0]}-{order.until[1]}"
        pending: Any = await self._client.xpending_range(self._stream, self._group, "-", until, 1)
        if pending:
            return False
        groups: Any = await self._client.xinfo_groups(self._stream)
        delivered = next(one["last-delivered-id"] for one in groups if _text(one["name"]) == self._group)
        if position(delivered) >= order.until:
            return True
        return not await self._client.xrange(self._stream, f"({_text(delivered)}", until, count=1)

    async def carry_out(self, orders: Sequence[Order]) -> None:
        """
        Redact stream, dead letters and files, and tell the offline way; then the orders are done.

        Raises:
            redis.exceptions.RedisError, OSError: somewhere on the way; the orders stand, and doing it again is right.
        """
        if not orders:
            return
        last = max(order.until for order in orders)
        n_entries = await self._without(self._stream, orders, f"{last[0]}-{last[1]}")
        n_entries += await self._without(self._dead, orders, "+")
        self._step("redact.stream")
        # Before the files: afterwards nobody knows any more what these people had touched.
        await self._again(await asyncio.to_thread(self._rows_of, orders))
        n_rows = await asyncio.to_thread(self._files, orders)
        # A slate that was being made during the erasure may have been stored after it.
        await self._client.delete(*(slates_key(subject) for order in orders for subject in order.subjects()))
        await self._client.xdel(REDACTIONS, *(order.entry_id for order in orders))
        self._step("redact.done")
        self._log.info("redacted", orders=len(orders), entries=n_entries, rows=n_rows)

    async def _again(self, rows: set[str]) -> None:
        """Have the features of these computed again, where features are kept at all."""
        if rows and (self._data / live_views.FILE).is_file():
            # Its stub answers for the client that does not await, too.
            named: Any = self._client.sadd(live_features.AGAIN, *sorted(rows))
            await named

    async def _without(self, stream: str, orders: Sequence[Order], until: str) -> int:
        """Delete the entries of *stream* that name these people; returns how many."""
        n_deleted, start = 0, "-"
        while True:
            entries: Any = await self._client.xrange(stream, start, until, count=PAGE)
            theirs = [
                entry_id for entry_id, fields in entries if _is_theirs(entry_id, fields, orders, stream == self._dead)
            ]
            if theirs:
                # Features may have been computed from entries that never came into a file.
                gone = set(theirs)
                items = (_item_of(fields) for entry_id, fields in entries if entry_id in gone)
                await self._again({item for item in items if item is not None})
                n_deleted += int(await self._client.xdel(stream, *theirs))
            if len(entries) < PAGE:
                return n_deleted
            start = f"({entries[-1][0].decode()}"

    def _rows_of(self, orders: Sequence[Order]) -> set[str]:
        """Users and items whose features these erasures change, as members of `live_features.AGAIN`."""
        users, visitors = _all(orders, "user_ids"), _all(orders, "visitor_ids")
        found = {f"u:{one}" for one in users}
        for path in (self._data / "event_log").rglob("part-*.parquet"):
            table = pq.ParquetFile(path).read(columns=["user_id", "visitor_id", "item_id"])
            theirs = pc.or_(
                pc.is_in(table.column("user_id"), value_set=pa.array(users, pa.string())),
                pc.is_in(table.column("visitor_id"), value_set=pa.array(visitors, pa.string())),
            )
            items = pc.unique(table.filter(theirs).column("item_id")).to_pylist()
            found |= {f"i:{one}" for one in items if one is not None}
        return found

    def _files(self, orders: Sequence[Order]) -> int:
        with alone(self._data):
            n_rows = sum(rewrite(self._data / one, orders) for one in ("event_log", slate_log.FOLDER))
            self._step("redact.files")
            for order in orders:
                redactions.add(self._data, order.user_ids, order.visitor_ids, order.at_ms * 1000)
            self._step("redact.told")
        return n_rows


def _item_of(fields: Mapping[bytes, bytes]) -> str | None:
    """The item an entry is about, as a member of `live_features.AGAIN`."""
    try:
        item_id = json.loads(fields.get(b"event") or b"{}").get("item_id")
    except (ValueError, AttributeError):
        return None
    return f"i:{item_id}" if item_id else None


def rewrite(folder: Path, orders: Sequence[Order]) -> int:
    """
    Rewrite the files of the log in *folder* that hold rows of these people; returns how many rows went or changed.

    Raises:
        OSError: this file is as it was; those before it are rewritten, which is right.
    """
    for partial in folder.rglob(".*.partial"):
        if time.time() - partial.stat().st_mtime > ABANDONED_S:
            partial.unlink(missing_ok=True)
    return sum(_rewrite_one(path, orders) for path in sorted(folder.rglob("part-*.parquet")))


def _rewrite_one(path: Path, orders: Sequence[Order]) -> int:
    # Not read_table, which would add the folder's day as a column.
    table = pq.ParquetFile(path).read(columns=["user_id", "visitor_id"])
    users, visitors = (pa.array(_all(orders, name), pa.string()) for name in ("user_ids", "visitor_ids"))
    named = pc.or_(
        pc.is_in(table.column("user_id"), value_set=users), pc.is_in(table.column("visitor_id"), value_set=visitors)
    )
    if not pc.any(named).as_py():
        return 0
    table, n_changed = pq.ParquetFile(path).read(), 0
    for order in orders:
        is_before = pc.fill_null(
            pc.less_equal(table.column("received_at").cast("int64"), (order.at_ms + CLOCKS_APART_MS) * 1000), True
        )
        is_users = pc.is_in(table.column("user_id"), value_set=pa.array(order.user_ids, pa.string()))
        is_visitors = pc.is_in(table.column("visitor_id"), value_set=pa.array(order.visitor_ids, pa.string()))
        is_nobodys = pc.is_null(table.column("user_id"))
        gone = pc.and_(is_before, pc.or_(is_users, pc.and_(is_nobodys, is_visitors)))
        blank = pc.and_(is_before, pc.and_(is_visitors, pc.invert(gone)))
        n_changed += int(pc.sum(gone).as_py() or 0) + int(pc.sum(blank).as_py() or 0)
        without = pc.if_else(blank, pa.scalar(None, pa.string()), table.column("visitor_id"))
        table = table.set_column(table.schema.get_field_index("visitor_id"), table.schema.field("visitor_id"), without)
        table = table.filter(pc.invert(gone))
    if n_changed:
        _replace(path, table)
    return n_changed


def _replace(path: Path, table: pa.Table) -> None:
    if not table.num_rows:
        path.unlink(missing_ok=True)
    else:
        partial = path.with_name(f".{path.name}.partial")
        try:
            pq.write_table(table, partial, compression="zstd", coerce_timestamps="us")
            to_disk(partial)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    to_disk(path.parent)


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """One at a time: two that rewrite one file of a data directory would each bring back what the other took out."""
    with (data / ".redacting").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def without(erased: redactions.Redactions, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """
    *rows* without those of erased people from before their erasure; another user's, without the erased visitor.

    `received_at` of a row is microseconds since the epoch or a moment; a row without it is from before.
    """
    users = erased.of_users({row["user_id"] for row in rows if row["user_id"] is not None})
    visitors = erased.of_visitors({row["visitor_id"] for row in rows if row["visitor_id"] is not None})
    if not users and not visitors:
        return list(rows)
    apart_us, kept = CLOCKS_APART_MS * 1000, []
    for row in rows:
        at_us, user_id = _received_us(row["received_at"]), row["user_id"]
        is_visitors = row["visitor_id"] in visitors and at_us <= visitors[row["visitor_id"]] + apart_us
        is_users = user_id in users and at_us <= users[user_id] + apart_us
        if is_users or (user_id is None and is_visitors):
            continue
        kept.append({**row, "visitor_id": None} if is_visitors else row)
    return kept


def _received_us(moment: datetime | int | None) -> int:
    if moment is None:
        return _LONG_AGO_US
    return moment if isinstance(moment, int) else round(moment.timestamp() * 1e6)


def _is_theirs(entry_id: bytes, fields: dict[bytes, bytes], orders: Sequence[Order], is_dead: bool) -> bool:
    return any(
        (is_dead or order.covers(entry_id)) and any(order.is_mentioned_in(value) for value in fields.values())
        for order in orders
    )


def _all(orders: Sequence[Order], name: str) -> list[str]:
    return [one for order in orders for one in getattr(order, name)]


def _order(entry_id: bytes, fields: dict[bytes, bytes]) -> Order:
    user_ids, visitor_ids = (
        tuple(one for one in fields[name].decode().split("\n") if one) for name in (b"users", b"visitors")
    )
    return Order(entry_id, user_ids, visitor_ids, position(fields[b"until"]), int(fields[b"at_ms"]))


def position(entry_id: bytes | str) -> tuple[int, int]:
    """An entry's place in its stream, comparable: `1700-3` → (1700, 3)."""
    milliseconds, _, sequence = _text(entry_id).partition("-")
    return int(milliseconds), int(sequence or 0)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
