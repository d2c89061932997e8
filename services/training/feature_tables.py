"""
Offline feature tables, computed by DuckDB from the expressions that stand in the feature definitions.

Point in time by construction: for each moment the database holds the events strictly before it and nothing else, so
no expression, however written, can see the future. Files cannot be reached from an expression either. The SQL comes
from the feature repository, which is code; nothing is ever formatted from data.

What an expression may use is listed in docs/features.md; `_EVENTS` and `_ITEMS` below are its definition. Ingestion
runs the same statements over the same tables, of fewer entities (services/ingestion/known_events.py): a feature is
computed in one way, whenever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.training.feature_store import FeatureError

ORIGINS = ("events", "items")

_DUCKDB_TYPES = {
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
    "INT32": "INTEGER",
    "INT64": "BIGINT",
    "BOOL": "BOOLEAN",
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "UNIX_TIMESTAMP": "TIMESTAMPTZ",
}

# One row an item of the catalogue.
_ITEMS = """
CREATE TABLE catalogue AS SELECT
    item_id, title, description, category, split_part(category, ' > ', 1) AS department, brand,
    price, in_stock, attributes, $moment::TIMESTAMPTZ AS moment
FROM items
"""

# One row an event before the moment, with what the catalogue says about its item.
_EVENTS = """
CREATE TABLE seen AS SELECT
    e.user_id, e.item_id, e.event_type, e.timestamp, e.session_id, e.quantity,
    coalesce(e.price, c.price) AS price, c.price AS list_price,
    c.title, c.category, c.department, c.brand, c.in_stock, c.attributes,
    (epoch_us($moment::TIMESTAMPTZ) - epoch_us(e.timestamp)) / 86400e6 AS age_d,
    (epoch_us(e.timestamp) - epoch_us(i.first)) / 86400e6 AS item_age_d,
    e.repetition, i.item_events, $moment::TIMESTAMPTZ AS moment
FROM before_moment e
LEFT JOIN catalogue c USING (item_id)
JOIN item_totals i USING (item_id)
ORDER BY e.timestamp, e.event_id
"""
"""
Sorted, because an aggregate may ask what came first (`mode` does, of two that are as frequent), and the order in which
a join gives its rows depends on how many there are.
"""

# What everybody did with an item before the moment.
_ITEM_TOTALS = """
CREATE TABLE item_totals AS SELECT item_id, count(*) AS item_events, min(timestamp) AS first
FROM before_moment GROUP BY item_id
"""

# Looks back only, so it is the same at every later moment and is computed once.
REPEATED = """
SELECT *, row_number() OVER (PARTITION BY user_id, item_id, event_type ORDER BY timestamp, event_id) AS repetition
FROM {events}
"""
"""A SELECT over a relation with the canonical columns; in any order, for whoever sorts later (`fill_seen` does)."""

REPETITIONS = REPEATED + "ORDER BY timestamp, event_id"
"""The same, sorted by time."""

SEEN_AT_ONCE = 1_000_000
"""
Events in the table `seen` at most; of more, some of the entities are computed after the other (`feature_parts.py`).
Derived: a row of it is about 300 bytes, and it is sorted, so 600 MB, whatever the number of events.
"""

OPTIONAL_EVENTS = {"session_id": pa.string(), "quantity": pa.float64(), "price": pa.float64()}
_OPTIONAL_ITEMS = {
    "description": pa.string(),
    "category": pa.string(),
    "brand": pa.string(),
    "price": pa.float64(),
    "in_stock": pa.bool_(),
    "attributes": pa.string(),
}


@dataclass(frozen=True, slots=True)
class FieldSql:
    """One feature: its name, its Feast value type, and the expression that computes it."""

    name: str
    dtype: str
    sql: str


@dataclass(frozen=True, slots=True)
class ViewSql:
    """
    One feature view that is computed here.

    Attributes:
        key: its join key, `user_id` or `item_id`.
        origin: one of `ORIGINS`: aggregate over events, or expression over the catalogue row.
        where: condition on events, or "".
    """

    name: str
    key: str
    origin: str
    where: str
    fields: tuple[FieldSql, ...]


def load(path: Path, optional: dict[str, pa.DataType]) -> pa.Table:
    """A canonical table whose optional columns are there, null where the file has none."""
    if not path.is_file():
        raise FeatureError(f"no {path}; `tutti data synth` or `tutti data import` makes a data directory")
    table = pq.read_table(path)
    for name, kind in optional.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
        elif pa.types.is_null(table.schema.field(name).type):
            table = table.set_column(table.column_names.index(name), name, pa.nulls(table.num_rows, kind))
    return table


def load_events(path: Path) -> pa.Table:
    """Canonical events sorted by time, timestamps in microseconds UTC, with `repetition`."""
    events = load(path, OPTIONAL_EVENTS)
    at = events.column_names.index("timestamp")
    events = events.set_column(at, "timestamp", events.column("timestamp").cast(pa.timestamp("us", "UTC")))
    with new_database() as database:
        database.register("events", events)
        return database.sql(REPETITIONS.format(events="events")).to_arrow_table()


def load_items(path: Path) -> pa.Table:
    """Canonical items."""
    return load(path, _OPTIONAL_ITEMS)


def snapshot(views: Sequence[ViewSql], events: pa.Table, items: pa.Table, moment: datetime) -> dict[str, pa.Table]:
    """
    Every view's rows as they were known at *moment*.

    Args:
        events: of `load_events`; those at or after *moment* are not looked at.
        moment: with time zone.

    Returns:
        view → (key, event_timestamp, created_timestamp, features…), sorted by key. A view over events has a row for
        each entity with an event before the moment that passes `where`; one over items has a row for each item.

    Raises:
        FeatureError: an expression that DuckDB refuses, with view, field, expression and DuckDB's words.
    """
    if moment.tzinfo is None:
        raise FeatureError(f"moment {moment} has no time zone; give UTC")
    end = pc.sum(pc.less(events.column("timestamp"), pa.scalar(moment, pa.timestamp("us", "UTC")))).as_py() or 0
    with new_database() as database:
        fill_catalogue(database, items, moment)
        database.register("before_moment", events.slice(0, end))
        database.execute(_ITEM_TOTALS)
        fill_seen(database, moment)
        database.execute("DROP TABLE item_totals")
        database.unregister("before_moment")
        shut(database)
        return {view.name: stamped(rows(database, view), moment) for view in views}


def shut(database: Any) -> None:
    """From here on an expression reaches neither Python's variables nor files."""
    database.execute("SET python_enable_replacements = false; SET enable_external_access = false")


def fill_catalogue(database: Any, items: pa.Table, moment: datetime) -> None:
    """Make the table `catalogue`, which `fill_seen` and views over items read."""
    database.register("items", items)
    database.execute(_ITEMS, {"moment": moment})
    database.unregister("items")


def fill_seen(database: Any, moment: datetime) -> None:
    """
    Make the table `seen`, which views over events read: one row an event of `before_moment`, in its order.

    Needs `before_moment` (the events, with `repetition`), `item_totals` (item_id, item_events, first) and `catalogue`.
    """
    database.execute(_EVENTS, {"moment": moment})


def write(path: Path, table: pa.Table) -> None:
    """Replace *path* whole; timestamps in microseconds, because DuckDB 2 cannot materialise nanoseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd", coerce_timestamps="us")
    partial.replace(path)


def new_database() -> Any:
    """An empty database that gives the same answer every time."""
    # One thread: sums of floats and the winner of a tie must not depend on which thread was faster.
    database = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
    database.execute("SET TimeZone = 'UTC'")
    return database


def rows(database: Any, view: ViewSql, among: str = "") -> pa.Table:
    """
    The rows of *view*, by its key. Those of all entities, or of the ones in the column `id` of table *among*.

    Raises:
        FeatureError: an expression that DuckDB refuses.
    """
    columns = ", ".join(f"{_expression(field)} AS {_quoted(field.name)}" for field in view.fields)
    try:
        return database.sql(_query(view, columns, among)).to_arrow_table()
    except duckdb.Error as error:
        raise _explained(database, view, error) from error


def _query(view: ViewSql, columns: str, among: str = "") -> str:
    key = _quoted(view.key)
    conditions = [f"({view.where})"] if view.where else []
    if among:
        conditions.append(f"{key} IN (SELECT id FROM {among})")  # noqa: S608  # a table of ours
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    # No untrusted text: names and expressions come from the feature repository.
    if view.origin == "items":
        return f"SELECT {key}, {columns} FROM catalogue {where} ORDER BY {key}"  # noqa: S608
    return f"SELECT {key}, {columns} FROM seen {where} GROUP BY {key} ORDER BY {key}"  # noqa: S608


def _expression(field: FieldSql) -> str:
    return f"CAST(({field.sql}) AS {duckdb_type(field.dtype)})"


def duckdb_type(dtype: str) -> str:
    """
    DuckDB's type for a Feast value type.

    Raises:
        FeatureError: a type that no expression can produce here (maps, sets, structs).
    """
    element, is_list = dtype.removesuffix("_LIST"), dtype.endswith("_LIST")
    if element not in _DUCKDB_TYPES:
        raise FeatureError(f"a feature of type {dtype} cannot be computed by SQL; give its view a source of its own")
    return _DUCKDB_TYPES[element] + ("[]" if is_list else "")


def _explained(database: Any, view: ViewSql, error: duckdb.Error) -> FeatureError:
    """The field that is to blame, found by running each alone."""
    for field in view.fields:
        try:
            database.execute(_query(view, f"{_expression(field)} AS {_quoted(field.name)}"))
        except duckdb.Error as alone:
            return FeatureError(
                f"feature {view.name}:{field.name} cannot be computed from {view.origin}\n"
                f"  expression: {field.sql}\n  DuckDB: {alone}\n"
                "  the columns an expression may use: docs/features.md"
            )
    return FeatureError(
        f"feature view {view.name} cannot be computed; where: {view.where or 'none'}\n  DuckDB: {error}"
    )


def stamped(rows: pa.Table, moment: datetime) -> pa.Table:
    """*rows* with the moment they are of, as Feast wants to find it."""
    at = pa.array([moment.astimezone(UTC)] * rows.num_rows, pa.timestamp("us", "UTC"))
    return rows.add_column(1, "event_timestamp", at).add_column(2, "created_timestamp", at)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
