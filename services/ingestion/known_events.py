"""
Every event of a shop in memory, and the features of whoever an event has touched, by the very SQL of training.

Base (`events.parquet`) and log (`event_log/`) are one table, an event_id once. A row of features is computed anew from
all events of its entity, never added to: so it does not matter how often an event comes, in which order, or who died in
between. Not thread-safe: one call at a time.

Measured, one core, in-memory DuckDB 1.5: see docs/features.md, "While the shop is open".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from protos.redactions import Redactions
from services.ingestion.sinks import LoggedEvent
from services.training import feature_tables
from services.training.feature_tables import ViewSql

GUEST = "\x1f"
"""Goes before a visitor's id where a user's would stand: a guest is somebody, and never a user (ids hold no control
characters)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("session_id", pa.string()),
        ("quantity", pa.float64()),
        ("price", pa.float64()),
    ]
)

_LOG_COLUMNS = [*_SCHEMA.names, "visitor_id"]

_KNOWN = """
CREATE TABLE known AS SELECT event_id, user_id, item_id, event_type, timestamp, session_id, quantity, price,
    false AS is_live FROM base
"""
_KNOWN_BY_ITEM = "CREATE TABLE known_by_item AS SELECT * FROM known WHERE false"

TABLES = ("known", "known_by_item")
"""The same events twice: as they lie beside each other when a person's are wanted, and when an item's are."""

_SORTED = """
CREATE OR REPLACE TABLE known_by_item AS SELECT * FROM known ORDER BY item_id;
CREATE TABLE known_by_user AS SELECT * FROM known ORDER BY user_id;
DROP TABLE known;
ALTER TABLE known_by_user RENAME TO known
"""

# Of several rows of one event the first counts, as readers of the log have it.
_FRESH = """
CREATE OR REPLACE TEMP TABLE fresh AS SELECT * EXCLUDE (place), true AS is_live FROM arrived
WHERE event_id NOT IN (SELECT event_id FROM known WHERE event_id IN (SELECT event_id FROM arrived))
QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY place) = 1
"""

# Whatever decides the features of those who were touched: their own events. What everybody did with these items is
# counted beside (`item_totals`), over all events.
_OF_USERS = "SELECT * EXCLUDE (is_live) FROM known WHERE user_id"
_OF_ITEMS = """
SELECT * EXCLUDE (is_live) FROM known_by_item
WHERE (user_id IS NULL OR user_id NOT IN (SELECT id FROM touched_user_id)) AND item_id
"""
_AMONG = " IN (SELECT id FROM {})"

FEW = 20
"""
Users, and items, up to which each is asked for by its own condition: DuckDB then leaves out all parts of a sorted table
where it cannot be. Measured, a million events: 1 + 1 in 40 → 6 ms of CPU, 5 + 5 in 108 → 20, 9 + 9 in 110 → 34; a list
of ids is compared one by one with every row, or joined with all of them, 110 ms however many.
"""

_ADD = "INSERT INTO {} SELECT * FROM fresh"

# What everybody did with an item, kept for all items, because counting for whoever was touched looks at all events each
# time (40 to 100 ms of a million, measured). What comes is added; where something goes, its items are counted anew.
_TOTALS = """
CREATE TABLE item_totals AS SELECT item_id, count(*) AS item_events, min(timestamp) AS first FROM known GROUP BY item_id
"""
_TOTALS_MORE = """
UPDATE item_totals SET item_events = item_events + more.n, first = least(first, more.at)
FROM (SELECT item_id, count(*) AS n, min(timestamp) AS at FROM fresh GROUP BY item_id) more
WHERE item_totals.item_id = more.item_id
"""
_TOTALS_NEW = """
INSERT INTO item_totals SELECT item_id, count(*), min(timestamp) FROM fresh
WHERE item_id NOT IN (SELECT item_id FROM item_totals) GROUP BY item_id
"""
_TOTALS_WITHOUT = "DELETE FROM item_totals WHERE item_id IN (SELECT id FROM changed)"
_TOTALS_OF = """
INSERT INTO item_totals SELECT item_id, count(*), min(timestamp)
FROM known WHERE item_id IN (SELECT id FROM changed) GROUP BY item_id
"""


_ERASED = "known.user_id = gone.who AND epoch_us(known.timestamp) <= gone.until_us"
_FORGET = f"DELETE FROM {{}} AS known USING gone WHERE {_ERASED}"  # noqa: S608  # tables of ours
_IDENTIFY = "UPDATE {} AS known SET user_id = merged.owner FROM merged WHERE known.user_id = merged.guest"


@dataclass(frozen=True, slots=True)
class Touched:
    """Ids of users and items whose features an event has changed; guests are no users and not among them."""

    users: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.users | other.users, self.items | other.items)

    def __bool__(self) -> bool:
        return bool(self.users or self.items)


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """
    What the views say of some entities.

    at_us   the moment they are of: right after the newest event, microseconds since the epoch
    tables  view → its rows; an entity that was asked for and is not in it has nothing to be said of
    """

    at_us: int
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


class KnownEvents:
    """The events of one data directory, and those that come."""

    def __init__(self, data: Path, views: Sequence[ViewSql], erased: Redactions) -> None:
        """
        Read base and log. Blocks.

        Raises:
            FeatureError: the data directory has no events or no catalogue; OSError: a file cannot be read.
        """
        self._views = tuple(views)
        self._erased = erased
        self._database = feature_tables.new_database()
        base = feature_tables.load(data / "events.parquet", feature_tables.OPTIONAL_EVENTS)
        base = base.select(_SCHEMA.names).cast(_SCHEMA)
        items = feature_tables.load_items(data / "items.parquet")
        # The moment of the catalogue is read by views over the catalogue alone, which are training's.
        feature_tables.fill_catalogue(self._database, items, _EPOCH)
        self._database.register("base", base)
        self._database.execute(_KNOWN)
        self._database.unregister("base")
        self._database.execute(_TOTALS)
        self._database.execute(_KNOWN_BY_ITEM)
        self._append(_of_log(data / "event_log"))
        self._database.execute(_SORTED)
        newest = self._database.execute("SELECT max(epoch_us(timestamp)) FROM known").fetchone()[0]
        self._newest_us = int(newest or 0)
        self.forgotten = self.forget(erased)
        """Whom the files still held and were erased, and what they had touched: rows that may be older than that."""

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM known").fetchone()[0])

    def add(self, events: Sequence[LoggedEvent]) -> Touched:
        """
        Take *events* in; those that are known already change nothing.

        Returns:
            Whom they are about, also where they were known: whoever asks again wants the answer again.
        """
        rows = [event.columns for event in events if event.columns["item_id"] is not None]
        if self._erased.erased_at_us:
            # A topic gives again what an erased person did; the stream has been rid of it.
            users = self._erased.of_users({row["user_id"] for row in rows if row["user_id"] is not None})
            guests = self._erased.of_visitors({row["visitor_id"] for row in rows if row["visitor_id"] is not None})
            rows = [row for row in rows if not _is_before(row, users, guests)]
        table = pa.table({name: [row[name] for row in rows] for name in _LOG_COLUMNS}, schema=_with_visitor())
        self._append(table)
        people = _people(table)
        self._newest_us = max([self._newest_us, *(_us(row["timestamp"]) for row in rows)])
        return Touched(
            frozenset(one for one in people if one is not None and not one.startswith(GUEST)),
            frozenset(row["item_id"] for row in rows),
        )

    def guests(self, among: Iterable[str] | None = None) -> list[str]:
        """Visitors with events of their own, all or those *among*."""
        wanted = None if among is None else [GUEST + one for one in among]
        if wanted == []:
            return []
        where = f"starts_with(user_id, '{GUEST}')"  # a constant of ours
        if wanted is not None:
            where = "user_id IN (SELECT unnest($wanted::VARCHAR[]))"
        found = self._database.execute(
            f"SELECT DISTINCT user_id FROM known WHERE {where} ORDER BY 1",  # noqa: S608
            None if wanted is None else {"wanted": wanted},
        ).fetchall()
        return [one.removeprefix(GUEST) for (one,) in found]

    def identify(self, users: Mapping[str, str]) -> Touched:
        """From now on what these visitors did is the users': visitor id → user id."""
        if not users:
            return Touched()
        pairs = pa.table({"guest": [GUEST + one for one in users], "owner": list(users.values())})
        self._database.register("merged", pairs)
        items = self._ids("SELECT DISTINCT item_id FROM known WHERE user_id IN (SELECT guest FROM merged)")
        self._for_each_table(_IDENTIFY)
        self._database.unregister("merged")
        return Touched(frozenset(users.values()), items) if items else Touched()

    def forget(self, erased: Redactions) -> Touched:
        """
        Drop what erased people did up to their erasure.

        Returns:
            These people, so that their features are taken away, and the items they had touched.
        """
        self._erased = erased
        if not erased.erased_at_us:
            return Touched()
        everybody = self._ids("SELECT DISTINCT user_id FROM known WHERE user_id IS NOT NULL")
        users = erased.of_users(one for one in everybody if not one.startswith(GUEST))
        guests = erased.of_visitors(one.removeprefix(GUEST) for one in everybody if one.startswith(GUEST))
        until_us = users | {GUEST + one: at_us for one, at_us in guests.items()}
        if not until_us:
            return Touched()
        gone = pa.table({"who": list(until_us), "until_us": list(until_us.values())})
        self._database.register("gone", gone)
        items = self._ids(f"SELECT DISTINCT item_id FROM known, gone WHERE {_ERASED}")  # noqa: S608  # ours
        self._for_each_table(_FORGET)
        self._database.unregister("gone")
        self._count_again(items)
        return Touched(frozenset(users), items)

    def live(self, since_us: int = -(2**62)) -> Touched:
        """Whom the log speaks of, and from *since_us* on the base too: whose features the seeding of a store lacks."""
        condition = "is_live" if since_us == -(2**62) else f"epoch_us(timestamp) >= {int(since_us)}"
        users = self._ids(f"SELECT DISTINCT user_id FROM known WHERE {condition} AND user_id IS NOT NULL")  # noqa: S608
        items = self._ids(f"SELECT DISTINCT item_id FROM known WHERE {condition}")  # noqa: S608
        return Touched(frozenset(one for one in users if not one.startswith(GUEST)), items)

    def items(self) -> frozenset[str]:
        """Every item with an event."""
        return self._ids("SELECT DISTINCT item_id FROM known")

    def features(self, touched: Touched) -> FeatureRows:
        """
        The features of whom *touched* names, as of right after the newest event.

        Raises:
            FeatureError: an expression that DuckDB refuses, which training would have refused.
        """
        at_us = self._newest_us + 1
        moment = _EPOCH + timedelta(microseconds=at_us)
        database = self._database
        for name, ids in (("touched_user_id", touched.users), ("touched_item_id", touched.items)):
            database.register(name, pa.table({"id": pa.array(sorted(ids), pa.string())}))
        made = ("seen", "before_moment", "concerned")
        try:
            self._select_concerned(touched)
            database.execute(f"CREATE TABLE before_moment AS {feature_tables.REPEATED.format(events='concerned')}")
            feature_tables.fill_seen(database, moment)
            tables = {view.name: feature_tables.rows(database, view, f"touched_{view.key}") for view in self._views}
        finally:
            for name in made:
                database.execute(f"DROP TABLE IF EXISTS {name}")
            for name in ("touched_user_id", "touched_item_id"):
                database.unregister(name)
        return FeatureRows(at_us, tables)

    def _append(self, table: pa.Table) -> None:
        """Add the rows of *table* (`_with_visitor`) that are new, in their order, under the person they are of."""
        if not table.num_rows:
            return
        columns = {name: table.column(name) for name in _SCHEMA.names} | {"user_id": _people(table)}
        arrived = pa.table(columns, schema=_SCHEMA).append_column("place", pa.array(range(table.num_rows), pa.int64()))
        self._database.register("arrived", arrived)
        self._database.execute(_FRESH)
        self._for_each_table(_ADD)
        for statement in (_TOTALS_MORE, _TOTALS_NEW):
            self._database.execute(statement)
        self._database.unregister("arrived")

    def _select_concerned(self, touched: Touched) -> None:
        """Make the table `concerned`; `touched_user_id` and `touched_item_id` are registered."""
        parts, values = [], []
        wanted = ((_OF_USERS, "touched_user_id", touched.users), (_OF_ITEMS, "touched_item_id", touched.items))
        for query, name, ids in wanted:
            if len(ids) <= FEW:
                parts += [f"{query} = ?"] * len(ids)
                values += sorted(ids)
            else:
                parts.append(query + _AMONG.format(name))
        if parts:
            self._database.execute(f"CREATE TABLE concerned AS {' UNION ALL '.join(parts)}", values)
        else:
            self._database.execute("CREATE TABLE concerned AS SELECT * EXCLUDE (is_live) FROM known WHERE false")

    def _for_each_table(self, statement: str) -> None:
        for name in TABLES:
            self._database.execute(statement.format(name))

    def _count_again(self, item_ids: Iterable[str]) -> None:
        self._database.register("changed", pa.table({"id": pa.array(sorted(item_ids), pa.string())}))
        self._database.execute(_TOTALS_WITHOUT)
        self._database.execute(_TOTALS_OF)
        self._database.unregister("changed")

    def _ids(self, query: str) -> frozenset[str]:
        return frozenset(one for (one,) in self._database.execute(query).fetchall())

    def __repr__(self) -> str:
        return f"<KnownEvents {len(self)} until {_EPOCH + timedelta(microseconds=self._newest_us)}>"


def _of_log(folder: Path) -> pa.Table:
    """Every row of the log with an item, the first written first. A file that goes meanwhile was somebody's erasure."""
    parts = []
    for path in sorted(folder.rglob("part-*.parquet"), key=lambda one: one.name):
        try:
            # Not read_table, which would add the folder's day as a column.
            parts.append(pq.ParquetFile(path).read(columns=_LOG_COLUMNS).select(_LOG_COLUMNS))
        except FileNotFoundError:
            continue
    table = pa.concat_tables(parts) if parts else _with_visitor().empty_table()
    return table.filter(table.column("item_id").is_valid())


def _people(table: pa.Table) -> list[str | None]:
    """Who did it, a row each: the user, or the guest."""
    users, visitors = table.column("user_id").to_pylist(), table.column("visitor_id").to_pylist()
    return [
        user if user is not None else None if visitor is None else GUEST + visitor
        for user, visitor in zip(users, visitors, strict=True)
    ]


def _with_visitor() -> pa.Schema:
    return _SCHEMA.append(pa.field("visitor_id", pa.string()))


def _is_before(row: Mapping[str, object], users: Mapping[str, int], guests: Mapping[str, int]) -> bool:
    """Whether the person whose row this is was erased after it; *users*, *guests*: erased, with the moment."""
    who, erased = (row["user_id"], users) if row["user_id"] is not None else (row["visitor_id"], guests)
    return who in erased and _us(row["timestamp"]) <= erased[who]  # type: ignore[arg-type,index]  # columns by name


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
