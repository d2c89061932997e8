"""Features from definitions: point in time, one line a feature, and errors that name the line."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from services.training import feature_parts, feature_tables
from services.training.feature_store import FeatureError
from services.training.feature_tables import FieldSql, ViewSql

NOW = datetime(2024, 3, 1, tzinfo=UTC)


def events(path: Path, *rows: tuple[str, str, str, float]) -> pa.Table:
    """Rows of (user, item, type, days before NOW), written and read as the pipeline does; no optional columns."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "days"])
    frame["timestamp"] = [NOW - timedelta(days=d) for d in frame.pop("days")]
    frame["event_id"] = [f"e{i}" for i in range(len(frame))]
    frame.to_parquet(path / "events.parquet", coerce_timestamps="us")
    return feature_tables.load_events(path / "events.parquet")


def items(path: Path, *rows: tuple[str, str, float]) -> pa.Table:
    frame = pd.DataFrame(rows, columns=["item_id", "category", "price"]).assign(title="a title")
    frame.to_parquet(path / "items.parquet")
    return feature_tables.load_items(path / "items.parquet")


def a_view(*fields: tuple[str, str, str], key: str = "item_id", origin: str = "events", where: str = "") -> ViewSql:
    return ViewSql("view", key, origin, where, tuple(FieldSql(*field) for field in fields))


def rows(view: ViewSql, events: pa.Table, items: pa.Table, moment: datetime = NOW) -> list[dict]:
    table = feature_tables.snapshot([view], events, items, moment)["view"]
    return table.drop_columns(["event_timestamp", "created_timestamp"]).to_pylist()


AS_FIELDS = (
    ("count", "INT64", "count(*)"),
    ("recency", "FLOAT", "min(age_d)"),
    ("repeats", "INT64", "count(*) FILTER (repetition > 1)"),
    ("loved", "INT64", "max(item_events)"),
    ("users", "STRING_LIST", "list(DISTINCT user_id ORDER BY user_id)"),
    ("last", "UNIX_TIMESTAMP", "max(timestamp)"),
)
EVERYTHING = a_view(*AS_FIELDS)


def test_a_planted_future_does_not_change_a_snapshot(tmp_path: Path) -> None:
    shop = items(tmp_path, ("a", "X", 1.0), ("b", "X", 2.0))
    past = [("u", "a", "view", 3), ("u", "a", "view", 2), ("v", "a", "purchase", 1.5), ("v", "b", "view", 9)]
    future = [("u", "a", "view", 1), ("w", "a", "view", 0), ("u", "c", "view", 0.5), ("v", "b", "view", 0.9)]
    moment = NOW - timedelta(days=1)

    known_then = rows(EVERYTHING, events(tmp_path, *past), shop, moment)
    known_now = rows(EVERYTHING, events(tmp_path, *past, *future), shop, moment)

    assert known_now == known_then
    assert [(r["item_id"], r["count"], r["repeats"], r["users"]) for r in known_then] == [
        ("a", 3, 1, ["u", "v"]),
        ("b", 1, 0, ["v"]),
    ]


def test_an_event_at_the_moment_itself_is_not_seen(tmp_path: Path) -> None:
    shop = items(tmp_path, ("a", "X", 1.0))
    both = events(tmp_path, ("u", "a", "view", 1), ("u", "a", "view", 0))

    assert [r["count"] for r in rows(EVERYTHING, both, shop, NOW)] == [1]
    assert [r["count"] for r in rows(EVERYTHING, both, shop, NOW + timedelta(microseconds=1))] == [2]


def test_no_expression_can_reach_the_future_or_a_file(tmp_path: Path) -> None:
    shop = items(tmp_path, ("a", "X", 1.0))
    known = events(tmp_path, ("u", "a", "view", 2), ("u", "a", "view", 0))
    moment = NOW - timedelta(days=1)
    for table in ("events", "before_moment", "items", "known", f"'{tmp_path / 'events.parquet'}'"):
        view = a_view(("leak", "INT64", f"(SELECT count(*) FROM {table})"))

        with pytest.raises(FeatureError, match="view:leak"):
            rows(view, known, shop, moment)


def test_an_entity_nobody_has_seen_has_no_activity_and_is_in_the_catalogue(tmp_path: Path) -> None:
    shop = items(tmp_path, ("a", "X > Y", 1.0), ("b", "X", 3.0))
    known = events(tmp_path, ("u", "a", "view", 1))
    catalogue = a_view(
        ("department", "STRING", "department"),
        ("cheaper", "FLOAT", "percent_rank() OVER (ORDER BY price)"),
        origin="items",
    )

    assert [r["item_id"] for r in rows(EVERYTHING, known, shop)] == ["a"]
    assert rows(catalogue, known, shop, NOW - timedelta(days=9)) == [
        {"item_id": "a", "department": "X", "cheaper": 0.0},
        {"item_id": "b", "department": "X", "cheaper": 1.0},
    ]


def test_an_empty_past_gives_a_table_of_the_right_types_without_rows(tmp_path: Path) -> None:
    shop = items(tmp_path, ("a", "X", 1.0))
    known = events(tmp_path, ("u", "a", "view", 1))

    table = feature_tables.snapshot([EVERYTHING], known, shop, NOW - timedelta(days=99))["view"]

    assert table.num_rows == 0
    assert table.schema.field("recency").type == pa.float32()
    assert table.schema.field("event_timestamp").type == pa.timestamp("us", "UTC")


def a_busy_shop(path: Path) -> tuple[pa.Table, pa.Table]:
    shop = items(path, *((f"i{n}", "X" if n % 2 else "Y", float(n)) for n in range(7)))
    drawn = random.Random(3)
    known = events(
        path,
        *(
            (f"u{drawn.randrange(12)}", f"i{drawn.randrange(7)}", drawn.choice(["view", "purchase"]), float(90 - n))
            for n in range(90)
        ),
    )
    return known, shop


def in_parts(path: Path, views: list[ViewSql], moments: list[datetime], **given) -> dict[str, list[pa.Table]]:
    found: dict[str, list[pa.Table]] = {view.name: [] for view in views}
    shop = feature_tables.load_items(path / "items.parquet")
    parts = feature_parts.snapshots(views, path / "events.parquet", shop, moments, path / "parts", **given)
    for name, table in parts:
        found[name].append(table)
    return found


@pytest.mark.parametrize("key", ["user_id", "item_id"])
def test_many_events_are_computed_part_by_part_and_come_out_the_same(tmp_path: Path, monkeypatch, key: str) -> None:
    known, shop = a_busy_shop(tmp_path)
    fields = (
        *EVERYTHING.fields,
        FieldSql("mean", "FLOAT", "avg(ln(item_events) * item_age_d)"),
        FieldSql("favourite", "STRING", "mode(category)"),
    )
    view = ViewSql("view", key, "events", "event_type = 'view'", fields)
    catalogue = ViewSql("catalogue", "item_id", "items", "", (FieldSql("price", "DOUBLE", "price"),))
    moments = [NOW - timedelta(days=days) for days in (60, 20)]
    whole = [feature_tables.snapshot([view, catalogue], known, shop, moment) for moment in moments]
    monkeypatch.setattr(feature_tables, "SEEN_AT_ONCE", 10)

    parts = in_parts(tmp_path, [view, catalogue], moments)

    assert min(one["view"].num_rows for one in whole) > 5
    assert parts == {name: [one[name] for one in whole] for name in ("view", "catalogue")}
    assert not (tmp_path / "parts").exists()


def test_a_part_holds_only_who_is_asked_about_where_somebody_says_who(tmp_path: Path, monkeypatch) -> None:
    known, shop = a_busy_shop(tmp_path)
    by_user, by_item = a_view(*AS_FIELDS, key="user_id"), replace(a_view(*AS_FIELDS), name="items")
    early, late = NOW - timedelta(days=60), NOW - timedelta(days=20)
    whole = [feature_tables.snapshot([by_user, by_item], known, shop, moment) for moment in (early, late)]
    some = whole[0]["view"]["user_id"].to_pylist()[1:3]
    monkeypatch.setattr(feature_tables, "SEEN_AT_ONCE", 10)

    found = in_parts(tmp_path, [by_user, by_item], [early, late], only={early: [*some, "nobody"]})

    at_early, at_late = found["view"]
    assert at_early.equals(whole[0]["view"].filter(pc.is_in(whole[0]["view"]["user_id"], pa.array(some))))
    assert at_early.num_rows == 2
    assert at_late.equals(whole[1]["view"])
    assert found["items"] == [one["items"] for one in whole]


def test_no_expression_of_a_part_can_reach_the_future_or_a_file(tmp_path: Path, monkeypatch) -> None:
    a_busy_shop(tmp_path)
    monkeypatch.setattr(feature_tables, "SEEN_AT_ONCE", 10)
    for table in ("part", "events", "before_moment", f"'{tmp_path / 'events.parquet'}'"):
        view = a_view(("leak", "INT64", f"(SELECT count(*) FROM {table})"))

        with pytest.raises(FeatureError, match="view:leak"):
            in_parts(tmp_path, [view], [NOW - timedelta(days=20)])

        assert not (tmp_path / "parts").exists()


def test_it_is_told_how_many_parts_are_done(tmp_path: Path, monkeypatch) -> None:
    a_busy_shop(tmp_path)
    monkeypatch.setattr(feature_tables, "SEEN_AT_ONCE", 10)
    told: list[tuple[int, int]] = []

    in_parts(tmp_path, [EVERYTHING], [NOW], tell=lambda done, of: told.append((done, of)))

    assert told == [(done, 19) for done in range(1, 20)]


def test_where_holds_for_every_field_of_the_view(tmp_path: Path) -> None:
    shop = items(tmp_path, ("a", "X", 1.0))
    known = events(tmp_path, ("u", "a", "impression", 1), ("u", "a", "view", 2), ("w", "a", "impression", 1))
    view = a_view(("n", "INT64", "count(*)"), key="user_id", where="event_type <> 'impression'")

    assert rows(view, known, shop) == [{"user_id": "u", "n": 1}]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("count(*) FILTER (evnt_type = 'view')", "evnt_type"),
        ("count(*", "syntax"),
        ("max(item_id)", "could not convert"),
        ("price", "GROUP BY"),
    ],
)
def test_a_bad_expression_is_named_with_view_field_and_duckdbs_words(tmp_path: Path, sql: str, said: str) -> None:
    shop = items(tmp_path, ("a", "X", 1.0))
    known = events(tmp_path, ("u", "a", "view", 1))
    view = a_view(("fine", "INT64", "count(*)"), ("wrong", "INT64", sql))

    with pytest.raises(FeatureError) as error:
        rows(view, known, shop)

    message = str(error.value)
    assert "view:wrong" in message
    assert sql in message
    assert said.lower() in message.lower()


def test_a_moment_without_time_zone_is_refused(tmp_path: Path) -> None:
    shop = items(tmp_path, ("a", "X", 1.0))

    with pytest.raises(FeatureError, match="time zone"):
        rows(EVERYTHING, events(tmp_path, ("u", "a", "view", 1)), shop, datetime(2024, 1, 1))


def test_files_are_written_in_microseconds(tmp_path: Path) -> None:
    shop = items(tmp_path, ("a", "X", 1.0))
    table = feature_tables.snapshot([EVERYTHING], events(tmp_path, ("u", "a", "view", 1)), shop, NOW)["view"]

    feature_tables.write(tmp_path / "features" / "view.parquet", table)

    schema = pq.read_schema(tmp_path / "features" / "view.parquet")
    assert {schema.field(c).type for c in ("event_timestamp", "created_timestamp", "last")} == {
        pa.timestamp("us", "UTC")
    }
