"""
Events to Parquet as they come, in canonical columns, in row groups of bounded size.

Rule: nothing but the current row group is held, so ten million events need no more memory than a hundred thousand.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from services.training.synthetic.behaviour import EVENT_TYPES, DayEvents
from services.training.synthetic.shoppers import Shoppers

EVENTS_SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("timestamp", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("session_id", pa.string()),
        pa.field("quantity", pa.float64()),
        pa.field("price", pa.float64()),
    ]
)
"""Canonical events (docs/importing.md)."""

ROW_GROUP = 250_000
"""Events a row group: chosen; about 30 MB while it is being built."""


class EventWriter:
    """Appends days to `events.parquet`; a context manager that closes the file and forgets it on failure."""

    def __init__(self, path: Path, shoppers: Shoppers, item_ids: list[str]) -> None:
        self._path, self._partial = path, path.with_suffix(".parquet.partial")
        self._items = pa.array(item_ids, pa.string())
        self._people = pa.array([*shoppers.user_ids, *shoppers.visitor_ids], pa.string())
        self._logs_in = shoppers.logs_in
        self._types = pa.array(EVENT_TYPES, pa.string())
        self._waiting: list[pa.RecordBatch] = []
        self._rows_waiting = 0
        self.rows = 0
        self.first_us: int | None = None
        self.last_us = 0
        self._seen = np.zeros(len(self._people), bool)
        self._writer = pq.ParquetWriter(self._partial, EVENTS_SCHEMA, compression="zstd", coerce_timestamps="us")

    def __repr__(self) -> str:
        return f"<EventWriter {self.rows} events, {self._rows_waiting} not yet written>"

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    @property
    def users(self) -> int:
        """Distinct user ids seen so far, visitors included."""
        return int(self._seen.sum())

    def append(self, events: DayEvents, day: int, midnight_us: int) -> None:
        """Add one day's events (sorted by time)."""
        if not len(events):
            return
        guest = day < self._logs_in[events.shopper]
        person = np.where(guest, events.shopper + len(self._logs_in), events.shopper)
        self._seen[person] = True
        at = midnight_us + events.offset_us
        self.first_us = int(at[0]) if self.first_us is None else self.first_us
        self.last_us = int(at[-1])
        self._waiting.append(
            pa.record_batch(
                [
                    _numbered("e", self.rows + 1 + np.arange(len(events)), 8),
                    self._people.take(pa.array(person)),
                    self._items.take(pa.array(events.item)),
                    self._types.take(pa.array(events.kind)),
                    pa.array(at, pa.timestamp("us", "UTC")),
                    _numbered("s", events.session + 1, 7),
                    pa.array(events.quantity, pa.float64(), from_pandas=True),
                    pa.array(events.price, pa.float64()),
                ],
                schema=EVENTS_SCHEMA,
            )
        )
        self.rows += len(events)
        self._rows_waiting += len(events)
        if self._rows_waiting >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, EVENTS_SCHEMA)
            self._writer.write_table(table, row_group_size=ROW_GROUP)
        self._waiting, self._rows_waiting = [], 0


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _numbered(prefix: str, numbers: NDArray[np.int64], width: int) -> pa.Array:
    text = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), text, "")
