"""
From staged rows to the canonical files: drop repeated rows, sort by time, complete the catalogue.

Memory stays within `MEMORY` whatever the number of rows: DuckDB spills to a folder beside the staged files, and
rows leave it in batches. Equal inputs give equal files, byte for byte: every order here is total.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.training.importers.base import Importer, Progress
from services.training.importers.errors import DatasetError
from services.training.importers.report import ImportReport
from services.training.importers.staging import Staging

# What DuckDB may hold before it spills. Derived from the promise of 4 GB for the whole import: its buffers are
# not counted in full by its own limit, and Python with Arrow needs a few hundred MB beside it.
MEMORY = "1500MB"
# Two sorting threads: each holds its own run in memory, so more threads spill earlier.
THREADS = 2
# Rows of one row group. Measured on Online Retail: 0.7 MB packed, so readers that stream hold little at a time.
BATCH_ROWS = 131_072

CANONICAL_EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("session_id", pa.string()),
        pa.field("quantity", pa.float64()),
        pa.field("price", pa.float64()),
    ]
)
CANONICAL_ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("category", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("in_stock", pa.bool_()),
        pa.field("attributes", pa.string()),
    ]
)

# Hashes first, because they are small and sort in memory; then only rows whose hash is shared are compared by
# their whole key, so that two different rows with one hash both stay.
_REPEATED = """
CREATE TEMP TABLE repeated AS
WITH suspects AS (
    SELECT hash(duplicate_key) AS h FROM staged_events WHERE duplicate_key IS NOT NULL GROUP BY h HAVING count(*) > 1
), ranked AS (
    SELECT "row", row_number() OVER (PARTITION BY duplicate_key ORDER BY "row") AS place
    FROM staged_events WHERE duplicate_key IS NOT NULL AND hash(duplicate_key) IN (SELECT h FROM suspects)
)
SELECT "row" FROM ranked WHERE place > 1
"""
_KEPT = """
CREATE TEMP VIEW kept AS
SELECT * FROM staged_events WHERE "row" NOT IN (SELECT "row" FROM repeated)
"""
_EVENTS = """
SELECT coalesce(event_id, $prefix || "row"::VARCHAR) AS event_id,
       user_id, item_id, event_type, timestamp_us, session_id, quantity, price
FROM kept ORDER BY timestamp_us, "row"
"""
_SOLD = """
CREATE TEMP TABLE sold AS
SELECT item_id, median(price) AS price FROM kept GROUP BY item_id
"""
_TITLES = """
CREATE TEMP TABLE titles AS
WITH counted AS (
    SELECT item_id, title, count(*) AS times FROM kept WHERE title IS NOT NULL GROUP BY item_id, title
), ranked AS (
    SELECT item_id, title, row_number() OVER (PARTITION BY item_id ORDER BY times DESC, title) AS place FROM counted
)
SELECT item_id, title FROM ranked WHERE place = 1
"""
_DESCRIBED = """
CREATE TEMP TABLE described AS
WITH ranked AS (
    SELECT *, row_number() OVER (PARTITION BY item_id ORDER BY "row") AS place FROM staged_items
)
SELECT * FROM ranked WHERE place = 1
"""
_UNSOLD = "DELETE FROM described WHERE item_id NOT IN (SELECT item_id FROM sold)"
_ITEMS = """
SELECT coalesce(d.item_id, s.item_id) AS item_id,
       coalesce(d.title, t.title, 'Item ' || coalesce(d.item_id, s.item_id)) AS title,
       d.description, d.category, d.brand,
       CASE WHEN d.item_id IS NULL THEN s.price ELSE d.price END AS price,
       d.in_stock, d.attributes
FROM described d
FULL OUTER JOIN sold s ON d.item_id = s.item_id
LEFT JOIN titles t ON t.item_id = coalesce(d.item_id, s.item_id)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Written:
    """The finished files, still beside the staged ones, and their account."""

    events: Path
    items: Path
    dataset: Path
    report: ImportReport


def finish(staging: Staging, importer: Importer, source: Path, folder: Path, progress: Progress) -> Written:
    """
    Write events.parquet, items.parquet and dataset.json into *folder*.

    Args:
        staging: closed, with everything the importer read.
        importer: names the generated event ids and says whether unsold items stay.
        source: what was imported, for messages.
        folder: holds the staged files; temporary files go there too and the caller removes them.
        progress: told about the stages.

    Raises:
        DatasetError: no row was left, or no room to sort in.
    """
    events_path, items_path, dataset_path = (
        folder / name for name in ("events.parquet", "items.parquet", "dataset.json")
    )
    with _engine(folder) as connection:
        connection.read_parquet(glob.escape(str(staging.events_path))).create_view("staged_events")
        connection.read_parquet(glob.escape(str(staging.items_path))).create_view("staged_items")
        progress.start("finding repeated rows", None, "rows")
        connection.sql(_REPEATED)
        connection.sql(_KEPT)
        repeated = _number(connection, "SELECT count(*) FROM repeated")
        kept = staging.rows_staged - repeated
        if kept == 0:
            raise DatasetError(
                source,
                found=f"no usable row among {staging.rows_read}, dropped: {dict(staging.rows_dropped)}",
                expected="at least one event to keep",
                hint="is this the right file, and the right source?",
            )

        progress.start("sorting events by time", kept, "rows")
        events = connection.sql(_EVENTS, params={"prefix": f"{importer.name}-"}).to_arrow_reader(BATCH_ROWS)
        first_us, last_us = _write_events(events, events_path, progress)
        users = _number(connection, "SELECT count(DISTINCT user_id) FROM kept")

        progress.start("completing the catalogue", None, "rows")
        connection.sql(_SOLD)
        connection.sql(_TITLES)
        connection.sql(_DESCRIBED)
        described = _number(connection, "SELECT count(*) FROM described")
        items_dropped = {**staging.items_dropped, "duplicate item_id": staging.items_staged - described}
        if not importer.keeps_unsold_items:
            connection.sql(_UNSOLD)
            left = _number(connection, "SELECT count(*) FROM described")
            items_dropped["no kept event"] = described - left
            described = left
        items = _write_items(connection.sql(_ITEMS).to_arrow_reader(BATCH_ROWS), items_path)

    rows_dropped = {**staging.rows_dropped, staging.duplicate_reason: repeated}
    report = ImportReport(
        source=importer.name,
        events=pq.read_metadata(events_path).num_rows,
        items=items,
        users=users,
        first_event_at=_moment(first_us),
        last_event_at=_moment(last_us),
        rows_read=staging.rows_read,
        rows_kept=kept,
        rows_dropped={reason: count for reason, count in rows_dropped.items() if count},
        items_read=staging.items_read,
        items_dropped={reason: count for reason, count in items_dropped.items() if count},
        items_from_events=items - described,
        sha256={path.name: _sha256(path) for path in (events_path, items_path)},
    )
    report.write(dataset_path)
    return Written(events_path, items_path, dataset_path, report)


@contextmanager
def _engine(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills into *folder*; out of disk or memory becomes a `DatasetError`."""
    settings = {
        "memory_limit": MEMORY,
        "threads": THREADS,
        "temp_directory": str(folder / "spill"),
        # Without this, batches of a sorted result may reach the Arrow reader out of order (seen with DuckDB 2.0).
        "preserve_insertion_order": True,
        "autoinstall_known_extensions": False,
    }
    try:
        with duckdb.connect(config=settings) as connection:
            yield connection
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise DatasetError(
            folder.parent,
            found=f"no room to sort in ({str(error).splitlines()[0]})",
            expected="free disk space of a few times the unpacked source",
            hint="make room, or give another --out",
        ) from error


def _write_events(batches: Iterator[pa.RecordBatch], path: Path, progress: Progress) -> tuple[int, int]:
    """Write the sorted batches; returns the first and the last timestamp in microseconds since 1970."""
    first: int | None = None
    last = 0
    with pq.ParquetWriter(path, CANONICAL_EVENTS, compression="zstd", coerce_timestamps="us") as writer:
        for batch in batches:
            if not batch.num_rows:
                continue
            times = batch.column("timestamp_us").to_numpy()
            if first is None:
                first = last = int(times[0])
            # Everything later relies on this order, and the engine has let us down before: look at every row.
            if times[0] < last or np.any(times[1:] < times[:-1]):
                raise AssertionError("the sorted events came back out of order")
            last = int(times[-1])
            table = pa.Table.from_batches([batch])
            place = table.schema.get_field_index("timestamp_us")
            moments = pc.cast(table.column(place), pa.timestamp("us", tz="UTC"))
            writer.write_table(table.set_column(place, "timestamp", moments).cast(CANONICAL_EVENTS))
            progress.advance(batch.num_rows)
    assert first is not None  # noqa: S101  the caller has counted at least one row
    return first, last


def _write_items(batches: Iterator[pa.RecordBatch], path: Path) -> int:
    rows = 0
    with pq.ParquetWriter(path, CANONICAL_ITEMS, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch]).cast(CANONICAL_ITEMS))
            rows += batch.num_rows
    return rows


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.sql(query).fetchall()[0][0])


def _moment(timestamp_us: int) -> str:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=timestamp_us)
    return moment.isoformat().replace("+00:00", "Z")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
