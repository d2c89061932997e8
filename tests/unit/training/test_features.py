"""Features from definitions: point in time, one line a feature, and errors that name the line."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.training import feature_tables
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


EVERYTHING = a_view(
    ("count", "INT64", "count(*)"),
    ("recency", "FLOAT", "min(age_d)"),
    ("repeats", "INT64", "count(*) FILTER (repetition > 1)"),
    ("loved", "INT64", "max(item_events)"),
    ("users", "STRING_LIST", "list(DISTINCT user_id ORDER BY user_id)"),
    ("last", "UNIX_TIMESTAMP", "max(timestamp)"),
)


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


@pytest.mark.parametrize("key", ["user_id", "item_id"])
def test_many_events_are_computed_part_by_part_and_come_out_the_same(tmp_path: Path, monkeypatch, key: str) -> None:
    shop = items(tmp_path, *((f"i{n}", "X", float(n)) for n in range(7)))
    drawn = random.Random(3)
    known = events(
        tmp_path,
        *(
            (f"u{drawn.randrange(12)}", f"i{drawn.randrange(7)}", drawn.choice(["view", "purchase"]), float(90 - n))
            for n in range(90)
        ),
    )
    fields = (*EVERYTHING.fields, FieldSql("mean", "FLOAT", "avg(ln(item_events) * item_age_d)"))
    view = ViewSql("view", key, "events", "event_type = 'view'", fields)
    catalogue = ViewSql("catalogue", "item_id", "items", "", (FieldSql("price", "DOUBLE", "price"),))
    moment = NOW - timedelta(days=20)
    whole = feature_tables.snapshot([view, catalogue], known, shop, moment)
    monkeypatch.setattr(feature_tables, "SEEN_AT_ONCE", 10)

    parts = feature_tables.snapshot([view, catalogue], known, shop, moment)

    assert list(parts) == list(whole)
    assert whole["view"].num_rows > 5
    for name in whole:
        assert parts[name].equals(whole[name])


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
