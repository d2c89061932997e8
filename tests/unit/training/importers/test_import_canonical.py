"""Your own data: CSV and Parquet in the canonical schema, checked column by column."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.training.importers import DatasetError

EVENTS = """user_id,item_id,event_type,timestamp,event_id,session_id,quantity,price
u1,i1,view,2024-01-02T10:00:00Z,e1,s1,,
u1,i1,purchase,2024-01-02T12:30:00+02:00,e2,s1,2,9.5
u2,i2,add_to_cart,2024-01-01 09:00:00.123456,e3,,1,3
u2,i2,add_to_cart,2024-01-01 09:00:00.123456,e3,,1,3
,i2,view,2024-01-01,e4,,,
u2,,view,2024-01-01,e5,,,
u2,i2,purchase,2024-01-01,e6,,-1,3
u2,i2,purchase,2024-01-01,e7,,1,-3
"""
ITEMS = """item_id,title,category,price,in_stock,attributes
i1,"Lamp, red",Home > Lamps,9.5,true,"{""colour"": ""red""}"
i3,Never sold,,,0,
i1,Said twice,,,,
"""


def test_events_of_a_csv_keep_their_ids_and_come_out_in_utc_by_time(write, imported):
    shop = imported("canonical", write({"events.csv": EVENTS}))

    assert shop.columns("event_id", "timestamp", "session_id", "quantity", "price") == [
        ("e3", datetime(2024, 1, 1, 9, 0, 0, 123456, tzinfo=UTC), None, 1.0, 3.0),
        ("e1", datetime(2024, 1, 2, 10, tzinfo=UTC), "s1", None, None),
        ("e2", datetime(2024, 1, 2, 10, 30, tzinfo=UTC), "s1", 2.0, 9.5),
    ]
    assert shop.report.rows_dropped == {
        "no user_id": 1,
        "no item_id": 1,
        "quantity not positive": 1,
        "price negative": 1,
        "duplicate event_id": 1,
    }


def test_the_catalogue_keeps_unsold_items_and_gains_undescribed_ones(write, imported):
    shop = imported("canonical", write({"events.csv.gz": EVENTS, "items.csv": ITEMS}))

    assert {key: (item["title"], item["in_stock"], item["price"]) for key, item in shop.items.items()} == {
        "i1": ("Lamp, red", True, 9.5),
        "i2": ("Item i2", None, 3.0),
        "i3": ("Never sold", False, None),
    }
    assert shop.items["i1"]["attributes"] == '{"colour": "red"}'
    assert shop.report.items_dropped == {"duplicate item_id": 1}


def test_rows_without_event_ids_are_all_kept_and_named_after_their_row(write, imported):
    row = "u1,i1,view,2024-01-01\n"
    shop = imported("canonical", write({"events.csv": "user_id,item_id,event_type,timestamp\n" + 2 * row}))

    assert shop.columns("event_id") == [("canonical-1",), ("canonical-2",)]


def test_parquet_with_a_zone_or_nanoseconds_keeps_the_instant(write, imported):
    folder = write({})
    moments = [datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))]
    table = {"user_id": pa.array([7]), "item_id": ["i"], "event_type": ["view"]}
    pq.write_table(
        pa.table({**table, "timestamp": pa.array(moments, pa.timestamp("ns", tz="Europe/Berlin"))}),
        folder / "events.parquet",
    )

    shop = imported("canonical", folder)

    assert shop.columns("user_id", "timestamp") == [("7", datetime(2024, 1, 1, 10, tzinfo=UTC))]


def test_what_was_imported_can_be_imported_again_in_place(write, imported):
    first = imported("canonical", write({"events.csv": EVENTS, "items.csv": ITEMS}))

    again = imported("canonical", first.out, first.out)

    assert (again.events, again.items) == (first.events, first.items)
    assert again.report.sha256 == first.report.sha256


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("u,i,bought,2024-01-01,e,,,", "event_type"),
        ("u,i,view,yesterday,e,,,", "timestamp"),
        ("u,i,view,,e,,,", "timestamp"),
        ("u,i,view,2024-02-30,e,,,", "timestamp"),
        ("u,i,view,1024-02-20,e,,,", "timestamp"),
        ("u,i,view,2024-01-01,e,,many,", "quantity"),
        ("u,i,view,2024-01-01,e,,,inf", "price"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_line_and_column(row, column, write, imported):
    with pytest.raises(DatasetError) as refused:
        imported("canonical", write({"events.csv": f"{EVENTS}{row}\n"}))

    assert (refused.value.file.name, refused.value.line, refused.value.column) == ("events.csv", 10, column)


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("i4,Lamp,,cheap,,", "price"),
        ("i4,Lamp,,-1,,", "price"),
        ("i4,Lamp,,,perhaps,", "in_stock"),
        ("i4,Lamp,,,,[1]", "attributes"),
        ("i4,Lamp,,,,{", "attributes"),
        (",Lamp,,,,", "item_id"),
    ],
)
def test_a_wrong_item_is_refused_with_line_and_column(row, column, write, imported):
    with pytest.raises(DatasetError) as refused:
        imported("canonical", write({"events.csv": EVENTS, "items.csv": f"{ITEMS}{row}\n"}))

    assert (refused.value.file.name, refused.value.line, refused.value.column) == ("items.csv", 5, column)


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("user_id,item_id,event_type", "timestamp"),
        ("user_id,item_id,event_type,timestamp,sesion_id", "sesion_id"),
        ("user_id,item_id,event_type,timestamp,user_id", "user_id"),
    ],
)
def test_a_header_with_a_missing_unknown_or_repeated_column_names_it(header, column, write, imported):
    with pytest.raises(DatasetError) as refused:
        imported("canonical", write({"events.csv": f"{header}\n"}))

    assert (refused.value.line, refused.value.column) == (1, column)


def test_bytes_that_are_no_utf8_are_refused_with_their_line(write, imported):
    with pytest.raises(DatasetError) as refused:
        imported(
            "canonical", write({"events.csv": EVENTS.encode() + "u1,café,view,2024-01-01,e9,,,\n".encode("latin-1")})
        )

    assert refused.value.line == 10
    assert "0xe9" in refused.value.found


@pytest.mark.parametrize("column", ["user_id", "timestamp", "price"])
def test_a_parquet_column_of_a_hopeless_type_is_refused(column, write, imported):
    folder = write({})
    table = {"user_id": ["u"], "item_id": ["i"], "event_type": ["view"], "timestamp": ["2024-01-01"], "price": [1]}
    pq.write_table(pa.table({**table, column: [[1]]}), folder / "events.parquet")

    with pytest.raises(DatasetError) as refused:
        imported("canonical", folder)

    assert refused.value.column == column


def test_parquet_dates_are_midnights(write, imported):
    folder = write({})
    table = {"user_id": ["u"], "item_id": ["i"], "event_type": ["view"], "timestamp": [date(2024, 1, 1)]}
    pq.write_table(pa.table(table), folder / "events.parquet")

    assert imported("canonical", folder).columns("timestamp") == [(datetime(2024, 1, 1, tzinfo=UTC),)]


def test_a_cut_gzip_file_is_refused(write, imported):
    folder = write({"events.csv.gz": EVENTS * 200})
    packed = folder / "events.csv.gz"
    packed.write_bytes(packed.read_bytes()[:-20])

    with pytest.raises(DatasetError, match="broken gzip stream"):
        imported("canonical", folder)


def test_a_quote_that_never_closes_is_refused_where_it_opens(write, imported, monkeypatch):
    monkeypatch.setattr("services.training.importers.text.LONGEST_RECORD", 1000)
    folder = write({"events.csv": EVENTS + 'u1,"i1,view,2024-01-01,e9,,,\n' + "u1,i1,view,2024-01-01,e9,,,\n" * 100})

    with pytest.raises(DatasetError) as refused:
        imported("canonical", folder)

    assert refused.value.line == 10


def test_rows_are_the_same_however_the_file_falls_into_blocks(write, imported, monkeypatch, tmp_path):
    folder = write({"events.csv": EVENTS.replace("s1", '"s\n1"').replace("\n", "\r\n"), "items.csv": ITEMS})
    whole = imported("canonical", folder)

    monkeypatch.setattr("services.training.importers.text.BLOCK_BYTES", 7)
    pieces = imported("canonical", folder, tmp_path / "other")

    assert pieces.events == whole.events
    assert pieces.report == whole.report


def test_nothing_to_keep_is_refused(write, imported):
    with pytest.raises(DatasetError, match="no usable row among 1"):
        imported("canonical", write({"events.csv": "user_id,item_id,event_type,timestamp\n,i,view,2024-01-01\n"}))


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_is_refused(text, write, imported):
    with pytest.raises(DatasetError) as refused:
        imported("canonical", write({"events.csv": text}))

    assert refused.value.line == 1
