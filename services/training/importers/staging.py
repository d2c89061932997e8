"""
Where an importer puts its rows: two Parquet files beside the output, written a chunk at a time.

Whatever is handed in is counted, so that the report adds up by construction. Nothing here sorts or compares
rows of different chunks; that is finish.py, which may spill to disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# One column more than the canonical schema for three purposes: `row` gives a stable order and an event id,
# `title` feeds items without a catalogue, equal `duplicate_key`s mark rows of which only the first counts.
EVENTS = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("event_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("event_type", pa.string()),
        pa.field("timestamp_us", pa.int64()),
        pa.field("session_id", pa.string()),
        pa.field("quantity", pa.float64()),
        pa.field("price", pa.float64()),
        pa.field("title", pa.string()),
        pa.field("duplicate_key", pa.string()),
    ]
)
ITEMS = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("item_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("description", pa.string()),
        pa.field("category", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("in_stock", pa.bool_()),
        pa.field("attributes", pa.string()),
    ]
)

# The reason under which finish.py counts rows that share a duplicate key.
DUPLICATE = "exact duplicate"


class Sieve:
    """
    The cleaning of one chunk: a mask of the rows still kept, and how many each reason took.

    A row counts under the first reason that meets it, so reasons never overlap.
    """

    def __init__(self, rows: int) -> None:
        self.kept = np.ones(rows, dtype=bool)
        self.dropped: Counter[str] = Counter()

    def drop(self, reason: str, where: pa.Array | pa.ChunkedArray) -> None:
        """Drop the rows where *where* (boolean, null means no) is true, under *reason*."""
        hit = np.asarray(pc.fill_null(where, False).to_numpy(zero_copy_only=False), dtype=bool) & self.kept
        self.dropped[reason] += int(hit.sum())
        self.kept &= ~hit

    def mask(self) -> pa.Array:
        """The kept rows as an Arrow boolean array."""
        return pa.array(self.kept)


class Staging:
    """The two staged tables of one import, and its counts. Use as a context manager: leaving closes the files."""

    def __init__(self, folder: Path) -> None:
        self.events_path = folder / "staged_events.parquet"
        self.items_path = folder / "staged_items.parquet"
        self.duplicate_reason = DUPLICATE
        self.rows_read = 0
        self.rows_staged = 0
        self.rows_dropped: Counter[str] = Counter()
        self.items_read = 0
        self.items_staged = 0
        self.items_dropped: Counter[str] = Counter()
        # Level 1 of zstd: staged rows are written once and read twice, so speed counts more than size.
        self._events = pq.ParquetWriter(self.events_path, EVENTS, compression="zstd", compression_level=1)
        self._items = pq.ParquetWriter(self.items_path, ITEMS, compression="zstd", compression_level=1)

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
        self._items.close()

    def add_events(self, columns: Mapping[str, pa.Array | pa.ChunkedArray | str], sieve: Sieve) -> None:
        """
        Stage one chunk of the source's events.

        Args:
            columns: name in `EVENTS` → values, one for every row that was *read*; a plain string stands for
                that value in every row; absent columns are null. `row` is given here.
            sieve: which of those rows are kept, and why the others are not.
        """
        rows = pa.array(np.arange(self.rows_read + 1, self.rows_read + 1 + len(sieve.kept), dtype=np.int64))
        table = _assemble(EVENTS, {"row": rows, **columns}, len(sieve.kept)).filter(sieve.mask())
        self.rows_read += len(sieve.kept)
        self.rows_staged += table.num_rows
        self.rows_dropped.update(sieve.dropped)
        if table.num_rows:
            self._events.write_table(table)

    def add_items(self, columns: Mapping[str, pa.Array | pa.ChunkedArray | str], sieve: Sieve) -> None:
        """Stage one chunk of the source's catalogue; as `add_events`, with the columns of `ITEMS`."""
        rows = pa.array(np.arange(self.items_read + 1, self.items_read + 1 + len(sieve.kept), dtype=np.int64))
        table = _assemble(ITEMS, {"row": rows, **columns}, len(sieve.kept)).filter(sieve.mask())
        self.items_read += len(sieve.kept)
        self.items_staged += table.num_rows
        self.items_dropped.update(sieve.dropped)
        if table.num_rows:
            self._items.write_table(table)


def _assemble(schema: pa.Schema, columns: Mapping[str, pa.Array | pa.ChunkedArray | str], rows: int) -> pa.Table:
    unknown = sorted(set(columns) - set(schema.names))
    if unknown:
        raise KeyError(f"no staged column {unknown}; columns are {schema.names}")
    arrays = []
    for field in schema:
        value = columns.get(field.name)
        if value is None:
            arrays.append(pa.nulls(rows, field.type))
        elif isinstance(value, str):
            arrays.append(pa.repeat(pa.scalar(value, field.type), rows))
        else:
            arrays.append(value.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)
