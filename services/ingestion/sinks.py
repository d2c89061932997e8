"""
Events → `DIR/event_log/date=YYYY-MM-DD/part-….parquet`.

The rule: a file is written aside and renamed, so that a reader never sees half of one.
The partition is the UTC day of the event's own timestamp. Delivery is at least once: after a crash an event may
stand in two files, with the same event_id; readers take the first.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("visitor_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("session_id", pa.string()),
        ("quantity", pa.float64()),
        ("price", pa.float64()),
        ("recommendation_id", pa.string()),
        ("position", pa.int32()),
        ("received_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""The canonical event table, and what only a live event has: visitor, slate, position, when the edge took it."""

_REQUIRED = ("event_id", "event_type", "timestamp")
_EVENT_TYPES = {"view", "click", "impression", "add_to_cart", "remove_from_cart", "purchase"}
_MOMENTS = ("timestamp", "received_at")
_NUMBERS = ("quantity", "price")


class Poison(ValueError):
    """An entry that will never become an event, however often it is delivered."""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event as it will stand in the log: a value for each column of SCHEMA, None where absent."""

    columns: Mapping[str, Any]

    @property
    def day(self) -> str:
        """The partition: UTC day of the event, `YYYY-MM-DD`."""
        moment: datetime = self.columns["timestamp"]
        return moment.strftime("%Y-%m-%d")


def parse(raw: bytes | None) -> LoggedEvent:
    """
    The JSON of a stream entry → event. Fields the table has no column for are dropped.

    Raises:
        Poison: no JSON object, a required field missing, or a value of another kind than its column.
    """
    try:
        document = json.loads(raw or b"")
    except ValueError as error:
        raise Poison(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Poison(f"a JSON object was expected; found {type(document).__name__}")
    if missing := [name for name in _REQUIRED if document.get(name) is None]:
        raise Poison(f"without {', '.join(missing)}")
    if document["event_type"] not in _EVENT_TYPES:
        raise Poison(f"event_type {document['event_type']!r:.40} is none of {', '.join(sorted(_EVENT_TYPES))}")
    return LoggedEvent({name: _value(name, document.get(name)) for name in SCHEMA.names})


class ParquetLog:
    """The event log of one data directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, events: Sequence[LoggedEvent]) -> list[Path]:
        """
        One new file a day; returns the files. Blocks: call it outside the event loop.

        Raises:
            OSError: nothing of the failed day is visible; days before it may be written, which is harmless (see above).
        """
        days: dict[str, list[LoggedEvent]] = {}
        for event in events:
            days.setdefault(event.day, []).append(event)
        return [self._write_day(day, of_day) for day, of_day in sorted(days.items())]

    def _write_day(self, day: str, events: Sequence[LoggedEvent]) -> Path:
        columns = {name: [event.columns[name] for event in events] for name in SCHEMA.names}
        folder = self._folder / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        return add_part(folder, pa.table(columns, schema=SCHEMA))


def add_part(folder: Path, table: pa.Table) -> Path:
    """
    *table* as one more file of *folder*, there whole or not at all, and on the disk. Names sort by time of writing.

    Raises:
        OSError: nothing is visible.
    """
    final = folder / f"part-{_sortable_id()}.parquet"
    # A leading dot: Parquet readers skip such files when they list a dataset.
    partial = folder / f".{final.name}.partial"
    try:
        pq.write_table(table, partial, compression="zstd", coerce_timestamps="us")
        to_disk(partial)
        partial.replace(final)
        to_disk(folder)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return final


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _MOMENTS:
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError) as error:
            raise Poison(f"{name} {value!r:.40} is no moment of RFC 3339") from error
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    if name in _NUMBERS or name == "position":
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Poison(f"{name} {value!r:.40} is no number")
        return int(value) if name == "position" else float(value)
    if not isinstance(value, str):
        raise Poison(f"{name} {value!r:.40} is no string")
    return value


def _sortable_id() -> str:
    """Milliseconds, then chance: names sort by the time of writing, and two writers never meet."""
    return f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(6)}"


def to_disk(path: Path) -> None:
    """What is acknowledged must survive a power cut: file first, then the name in its folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
