import json
from datetime import UTC, datetime

import pyarrow.dataset as ds
import pytest

from services.ingestion.sinks import SCHEMA, ParquetLog, Poison, parse


def an_event(**changes):
    fields = {
        "event_id": "e1",
        "event_type": "purchase",
        "timestamp": "2026-03-01T23:59:59.123456Z",
        "user_id": "u1",
        "item_id": "i1",
        "quantity": 2,
        "price": 9.5,
    }
    return json.dumps({k: v for k, v in {**fields, **changes}.items() if v is not ...}).encode()


def test_an_event_keeps_its_columns_to_the_microsecond_and_drops_what_has_none():
    event = parse(an_event(mood="curious", position=3))

    assert set(event.columns) == set(SCHEMA.names)
    assert event.columns["timestamp"] == datetime(2026, 3, 1, 23, 59, 59, 123456, UTC)
    assert (event.columns["quantity"], event.columns["position"], event.columns["visitor_id"]) == (2.0, 3, None)
    assert event.day == "2026-03-01"


def test_the_day_is_utc_whatever_the_offset_said():
    assert parse(an_event(timestamp="2026-03-02T01:00:00+02:00")).day == "2026-03-01"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "object"),
        (an_event(event_id=...), "event_id"),
        (an_event(timestamp=None), "timestamp"),
        (an_event(timestamp="yesterday"), "yesterday"),
        (an_event(timestamp=5), "timestamp"),
        (an_event(event_type="explode"), "explode"),
        (an_event(quantity="many"), "quantity"),
        (an_event(price=True), "price"),
        (b'{"event_id": "e", "event_type": "view", "timestamp": "2026-03-01T00:00:00Z", "price": NaN}', "price"),
        (an_event(user_id=7), "user_id"),
    ],
)
def test_what_is_no_event_is_poison_with_its_reason(raw, reason):
    with pytest.raises(Poison, match=reason):
        parse(raw)


def test_events_land_in_the_partition_of_their_day_and_nothing_half_written_is_left(tmp_path):
    events = [parse(an_event()), parse(an_event(event_id="e2", timestamp="2026-03-02T00:00:00Z", user_id=None))]

    files = ParquetLog(tmp_path).write(events)

    assert [f.parent.name for f in files] == ["date=2026-03-01", "date=2026-03-02"]
    table = ds.dataset(tmp_path, format="parquet", partitioning="hive").to_table().sort_by("event_id")
    assert table.column("event_id").to_pylist() == ["e1", "e2"]
    assert table.column("user_id").to_pylist() == ["u1", None]
    assert table.schema.field("timestamp").type == SCHEMA.field("timestamp").type
    assert list(tmp_path.rglob(".*")) == []


def test_a_failed_write_leaves_no_file_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("services.ingestion.sinks.to_disk", full)

    with pytest.raises(OSError, match="no space"):
        ParquetLog(tmp_path).write([parse(an_event())])

    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
