"""Online Retail: the cleaning, its reasons, and the same result from every container."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.training.importers import DatasetError
from services.training.importers.online_retail import COLUMNS

ROWS = [
    ("536365", "85123A", "WHITE HEART ", "6", "2010-12-01 08:26:00", "2.55", "17850", "United Kingdom"),
    ("536365", "85123A", "WHITE HEART ", "6", "2010-12-01 08:26:00", "2.55", "17850", "United Kingdom"),
    ("536367", "85123a", "WHITE HEART", "1", "2010-12-01 08:20:00", "2.95", "13047", "United Kingdom"),
    ("536368", "85123A", "wrong, label", "1", "2010-12-02 08:20:00", "9.95", "13047", "United Kingdom"),
    ("536369", "22752", "", "2", "2010-12-03 10:00:00", "7.65", "13047", "France"),
    ("536414", "22139", "", "56", "2010-12-01 11:52:00", "0.0", "", "United Kingdom"),
    ("C536379", "22752", "CANCELLED", "-1", "2010-12-01 09:41:00", "27.5", "14527", "United Kingdom"),
    ("536380", "22752", "LOST", "-4", "2010-12-01 09:41:00", "27.5", "14527", "United Kingdom"),
    ("536381", "22752", "GIFT", "4", "2010-12-01 09:41:00", "0.0", "14527", "United Kingdom"),
    ("536382", "POST", "POSTAGE", "3", "2010-12-01 08:45:00", "18.0", "12583", "France"),
]


def as_csv(rows: list[tuple[str, ...]] = ROWS) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *rows])
    return text.getvalue()


def as_parquet(path: Path) -> None:
    invoice, code, title, quantity, at, price, customer, country = zip(*ROWS, strict=True)
    table = pa.table(
        {
            "InvoiceNo": pa.array(invoice, pa.large_string()),
            "StockCode": pa.array(code, pa.large_string()),
            "Description": pa.array([text or None for text in title], pa.large_string()),
            "Quantity": pa.array([int(text) for text in quantity], pa.int32()),
            "InvoiceDate": pa.array([datetime.fromisoformat(text) for text in at], pa.timestamp("ms")),
            "UnitPrice": pa.array([float(text) for text in price]),
            "CustomerID": pa.array([int(text) if text else None for text in customer], pa.int32()),
            "Country": pa.array(country).dictionary_encode(),
        }
    )
    pq.write_table(table, path)


def as_workbook(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(list(COLUMNS))
    for invoice, code, title, quantity, at, price, customer, country in ROWS:
        sheet.append(
            [
                int(invoice) if invoice.isdigit() else invoice,
                int(code) if code.isdigit() else code,
                title or None,
                int(quantity),
                datetime.fromisoformat(at),
                float(price),
                float(customer) if customer else None,
                country,
            ]
        )
    book.save(path)


def test_every_dropped_row_has_its_reason_and_the_sum_adds_up(write, imported):
    folder = write({"online_retail.csv": as_csv()})

    shop = imported("online-retail", folder)

    assert shop.report.rows_dropped == {
        "no customer": 1,
        "cancelled order": 1,
        "quantity not positive": 1,
        "price not positive": 1,
        "stock code of no goods": 1,
        "exact duplicate": 1,
    }
    assert (shop.report.rows_read, shop.report.rows_kept) == (10, 4)
    assert shop.report.users == 2


def test_events_are_purchases_in_order_of_time_with_ids_from_their_rows(write, imported):
    folder = write({"online_retail.csv": as_csv()})

    shop = imported("online-retail", folder)

    assert shop.columns("event_id", "user_id", "item_id", "session_id", "quantity", "price") == [
        ("online-retail-3", "13047", "85123A", "536367", 1.0, 2.95),
        ("online-retail-1", "17850", "85123A", "536365", 6.0, 2.55),
        ("online-retail-4", "13047", "85123A", "536368", 1.0, 9.95),
        ("online-retail-5", "13047", "22752", "536369", 2.0, 7.65),
    ]
    assert {event["event_type"] for event in shop.events} == {"purchase"}
    assert shop.events[0]["timestamp"] == datetime(2010, 12, 1, 8, 20, tzinfo=UTC)


def test_an_item_takes_its_most_frequent_description_and_its_median_price(write, imported):
    folder = write({"online_retail.csv": as_csv()})

    shop = imported("online-retail", folder)

    assert shop.items["85123A"]["title"] == "WHITE HEART"
    assert shop.items["85123A"]["price"] == 2.95
    assert shop.items["22752"]["title"] == "Item 22752"
    assert [item["category"] for item in shop.items.values()] == [None, None]


@pytest.mark.parametrize("container", ["csv.gz", "parquet", "xlsx"])
def test_every_container_gives_the_same_bytes_as_the_csv(container, write, imported, tmp_path):
    folder = write({"online_retail.csv": as_csv()})
    expected = imported("online-retail", folder / "online_retail.csv").report
    name = "Online Retail.xlsx" if container == "xlsx" else f"online_retail.{container}"
    match container:
        case "csv.gz":
            write({name: as_csv()})
        case "parquet":
            as_parquet(folder / name)
        case "xlsx":
            as_workbook(folder / name)

    report = imported("online-retail", folder / name, tmp_path / "other").report

    assert report == expected


def test_a_folder_with_several_containers_is_read_from_the_quickest(write, imported):
    folder = write({"online_retail.csv": "not even a header\n"})
    as_parquet(folder / "online_retail.parquet")

    assert imported("online-retail", folder).report.rows_kept == 4


def test_a_word_where_a_number_belongs_is_named_with_line_and_column(write, imported):
    rows = [*ROWS[:3], ("536367", "22752", "two\nlines", "six", "2010-12-01 08:20:00", "2.95", "13047", "Eire")]
    folder = write({"online_retail.csv": as_csv(rows)})

    with pytest.raises(DatasetError) as refused:
        imported("online-retail", folder)

    assert (refused.value.line, refused.value.column) == (5, "Quantity")
    assert str(refused.value).startswith("online_retail.csv:5: column Quantity: found 'six'; expected a whole number")


def test_lines_after_a_description_of_two_lines_keep_their_numbers(write, imported):
    rows = [(*ROWS[0][:2], "two\nlines", *ROWS[0][3:]), (*ROWS[1][:4], "yesterday", *ROWS[1][5:])]
    folder = write({"online_retail.csv": as_csv(rows)})

    with pytest.raises(DatasetError) as refused:
        imported("online-retail", folder)

    assert (refused.value.line, refused.value.column) == (4, "InvoiceDate")


@pytest.mark.parametrize("name", ["Online Retail.xlsx", "online_retail.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_refused(name, write, imported):
    folder = write({name: "neither"})

    with pytest.raises(DatasetError, match="found no readable"):
        imported("online-retail", folder)


def test_a_workbook_with_another_header_is_refused(write, imported):
    folder = write({})
    book = openpyxl.Workbook()
    book.active.append(["Invoice", "StockCode"])
    book.save(folder / "Online Retail.xlsx")

    with pytest.raises(DatasetError, match=r"Online Retail\.xlsx:1: found"):
        imported("online-retail", folder)


def test_a_parquet_file_without_a_column_names_it(write, imported):
    folder = write({})
    pq.write_table(pa.table({"InvoiceNo": ["1"]}), folder / "online_retail.parquet")

    with pytest.raises(DatasetError) as refused:
        imported("online-retail", folder)

    assert refused.value.column == "StockCode"
