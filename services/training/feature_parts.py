"""
Offline feature tables of a shop whose events do not fit into memory at once: cut by shopper, then by item.

The rule: a part holds every event of its entities, so parts side by side are the whole, bit for bit, and nothing looks
at all events at once but a count by item. What is held is a part's rows for each worker, whatever there is in all.

    events.parquet ─▶ by_user/part=i ─▶ repetition ─▶ views by user
                                           └▶ by_item/part=j ─▶ views by item
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from services.training import feature_tables
from services.training.feature_tables import OPTIONAL_EVENTS, REPETITIONS, ViewSql

WORKERS = 2
"""
Parts computed at once, each by a database with one thread (`feature_tables.new_database` says why one). Judged: the
smallest machine that is promised anything has two cores, and a worker holds up to MEMORY.
"""

MEMORY = "1500MB"
"""
What a part's database may hold before it writes to disk. Derived: `SEEN_AT_ONCE` rows of 300 bytes, sorted, are twice
600 MB.
"""

_COLUMNS = ("event_id", "user_id", "item_id", "event_type", "session_id", "quantity", "price")
_SORT = "ORDER BY timestamp, event_id"
_WAITING = 20_000

Only = Mapping[datetime, Collection[str]]
"""Moment → users whose rows are wanted at it; at a moment that is not in it, those of everybody."""


def snapshots(
    views: Sequence[ViewSql],
    events: Path,
    items: pa.Table,
    moments: Sequence[datetime],
    workshop: Path,
    only: Only | None = None,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Iterator[tuple[str, pa.Table]]:
    """
    What `feature_tables.snapshot` gives at each of *moments*, as (view, rows), in no order of moments.

    Args:
        events: canonical events; they are read three times, one part at a time.
        moments: rising, with time zone.
        workshop: folder for the parts, which is made and removed: about twice the size of *events*.
        only: who is wanted; rows of others may be missing.
        tell: told the number of parts that are done, and of how many.

    Raises:
        FeatureError: an expression that DuckDB refuses.
    """
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(parents=True)
    try:
        cut = _Cut(tuple(views), events, items, tuple(moments), workshop, dict(only or {}), tell)
        for view, rows in cut.computed():
            yield view.name, rows
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def workers() -> int:
    """Parts computed at once on this machine."""
    return max(1, min(WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else WORKERS))


@dataclass
class _Cut:
    """One computation, its parts on disk."""

    views: tuple[ViewSql, ...]
    events: Path
    items: pa.Table
    moments: tuple[datetime, ...]
    workshop: Path
    only: dict[datetime, Collection[str]]
    tell: Callable[[int, int], None]
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        rows = pq.ParquetFile(self.events).metadata.num_rows
        self.parts = max(1, -(-rows // feature_tables.SEEN_AT_ONCE))
        self.of = 2 * self.parts + 1

    def computed(self) -> Iterator[tuple[ViewSql, pa.Table]]:
        of_items = [view for view in self.views if view.origin == "items"]
        for moment in self.moments:
            with feature_tables.new_database() as database:
                feature_tables.fill_catalogue(database, self.items, moment)
                feature_tables.shut(database)
                for view in of_items:
                    yield view, feature_tables.stamped(feature_tables.rows(database, view), moment)
        totals = self._divide()
        found: dict[tuple[str, datetime], list[pa.Table]] = {}
        for key, folder in (("user_id", "by_user"), ("item_id", "by_item")):
            own = [view for view in self.views if view.origin == "events" and view.key == key]
            compute = partial(self._part, own, key, self.workshop / folder, totals)
            with ThreadPoolExecutor(workers()) as pool:
                # In the order of the parts, however they end.
                for tables in pool.map(compute, range(self.parts)):
                    for (name, moment), table in tables.items():
                        found.setdefault((name, moment), []).append(table)
            for view in own:
                for moment in self.moments:
                    # Each entity is in one part with all its events, so parts side by side are the whole.
                    yield view, pa.concat_tables(found.pop((view.name, moment))).sort_by(key).combine_chunks()

    def _divide(self) -> dict[datetime, pa.Table]:
        """Write the events by user; what everybody did with each item before each moment."""
        present = {one.name: one.type for one in pq.read_schema(self.events)}
        columns = [
            f"NULL::{_SQL_TYPES[name]} AS {name}" if name not in present or pa.types.is_null(present[name]) else name
            for name in _COLUMNS
            if name in present or name in OPTIONAL_EVENTS
        ]
        with self._database("divide") as database:
            # As many rows of each part wait to be written; the default of half a million would be all there are.
            database.execute(f"SET partitioned_write_flush_threshold = {_WAITING}")
            self._copy(
                database,
                f"SELECT {', '.join(columns)}, timestamp::TIMESTAMPTZ AS timestamp, "  # noqa: S608  # names of ours
                f"hash(user_id) % {self.parts} AS part FROM read_parquet({_text(self.events)})",
                self.workshop / "by_user",
                "divided",
            )
            query = (
                "SELECT item_id, count(*) AS item_events, min(timestamp) AS first "  # noqa: S608  # ours
                f"FROM ({self._files('by_user', '*')}) WHERE timestamp < $moment GROUP BY item_id"
            )
            totals = {at: database.execute(query, {"moment": at}).to_arrow_table() for at in self.moments}
        self._tell()
        return totals

    def _part(
        self, views: Sequence[ViewSql], key: str, folder: Path, totals: Mapping[datetime, pa.Table], part: int
    ) -> dict[tuple[str, datetime], pa.Table]:
        found: dict[tuple[str, datetime], pa.Table] = {}
        if not (folder / f"part={part}").is_dir():
            self._tell()
            return found
        with self._database(f"{key}-{part}") as database:
            source = self._files(folder.name, str(part))
            if key == "item_id":
                database.execute(f"CREATE TABLE part AS {source} {_SORT}")
            else:
                # Repetitions are of one shopper, so a part of the shoppers knows them all.
                database.execute(f"CREATE TABLE part AS {REPETITIONS.format(events=f'({source})')}")
                database.execute(f"SET partitioned_write_flush_threshold = {_WAITING}")
                self._copy(
                    database,
                    f"SELECT *, hash(item_id) % {self.parts} AS part FROM part",  # noqa: S608  # ours
                    self.workshop / "by_item",
                    f"of-{part}",
                )
            for moment in self.moments:
                for view, rows in self._at(database, views, key, moment, totals[moment]):
                    found[view.name, moment] = rows
        shutil.rmtree(folder / f"part={part}", ignore_errors=True)
        self._tell()
        return found

    def _at(
        self, database: Any, views: Sequence[ViewSql], key: str, moment: datetime, totals: pa.Table
    ) -> Iterator[tuple[ViewSql, pa.Table]]:
        """The part's rows of *views* at one moment. An expression sees what it sees of a small shop, and no more."""
        query = "SELECT * FROM part WHERE timestamp < $moment"
        if key == "user_id" and (wanted := self.only.get(moment)) is not None:
            query += " AND user_id IN (SELECT id FROM wanted)"
            database.register("wanted", pa.table({"id": pa.array(sorted(wanted), pa.string())}))
        # Handed to a database that never held anything later.
        events = database.execute(query, {"moment": moment}).to_arrow_table()
        with feature_tables.new_database() as seeing:
            feature_tables.fill_catalogue(seeing, self.items, moment)
            seeing.register("before_moment", events)
            seeing.register("item_totals", totals)
            feature_tables.fill_seen(seeing, moment)
            for name in ("before_moment", "item_totals"):
                seeing.unregister(name)
            del events
            feature_tables.shut(seeing)
            for view in views:
                yield view, feature_tables.stamped(feature_tables.rows(seeing, view), moment)

    @contextmanager
    def _database(self, name: str) -> Iterator[Any]:
        """A database that writes to disk what is above MEMORY."""
        scratch = self.workshop / "scratch" / name
        scratch.mkdir(parents=True, exist_ok=True)
        with feature_tables.new_database() as database:
            database.execute(f"SET memory_limit = '{MEMORY}'; SET temp_directory = {_text(scratch)}")
            yield database

    def _copy(self, database: Any, query: str, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        database.execute(
            f"COPY ({query}) TO {_text(folder)} (FORMAT parquet, COMPRESSION lz4, PARTITION_BY (part), "
            f"FILENAME_PATTERN '{name}-{{i}}', OVERWRITE_OR_IGNORE)"
        )

    def _files(self, folder: str, part: str) -> str:
        path = _text(self.workshop / folder / f"part={part}" / "*.parquet")
        return f"SELECT * FROM read_parquet({path}, hive_partitioning = false)"  # noqa: S608  # ours

    def _tell(self) -> None:
        with self.lock:
            self.done += 1
            self.tell(self.done, self.of)


_SQL_TYPES = {"session_id": "VARCHAR", "quantity": "DOUBLE", "price": "DOUBLE"}


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
