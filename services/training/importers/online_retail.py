"""
UCI Online Retail: one year of orders of a British gift shop, as Parquet, CSV or the original workbook.

Dates are local time without a zone. They are kept as if they were UTC, so that a row's calendar day, on which
train, validation and test are split, is the one in the file. Cleaning as the data set's users do it: of 541,909
rows, 391,150 remain, of 4,334 customers and 3,659 items.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from services.training.importers.base import Importer, Options, Progress
from services.training.importers.chunks import Chunk
from services.training.importers.delimited import read_delimited
from services.training.importers.errors import DatasetError
from services.training.importers.files import find_one
from services.training.importers.staging import Sieve, Staging
from services.training.importers.tables import read_parquet, rows_of
from services.training.importers.workbook import read_workbook

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
# Goods are five digits and a variant; the rest are postage, fees, samples and vouchers.
GOODS = r"^\d{5}[A-Z]{0,2}$"

_NAMES = ("online_retail.parquet", "online_retail.csv.gz", "online_retail.csv", "Online Retail.xlsx")
_HINT = "is this the UCI Online Retail data set?"


def read(path: Path, staging: Staging, progress: Progress, _: Options) -> None:
    """Stream the orders into *staging*; the catalogue comes from the orders themselves."""
    file = find_one(path, _NAMES, "UCI Online Retail")
    for chunk in _chunks(file, progress):
        _stage(chunk, staging)


def _chunks(file: Path, progress: Progress) -> Iterator[Chunk]:
    stage = f"reading {file.name}"
    match [suffix.lower() for suffix in file.suffixes]:
        case [*_, ".parquet"]:
            progress.start(stage, rows_of(file), "rows")
            return read_parquet(file, progress, required=COLUMNS, hint=_HINT)
        case [*_, ".csv"] | [*_, ".csv", ".gz"]:
            progress.start(stage, file.stat().st_size, "bytes")
            return read_delimited(file, progress, required=COLUMNS, hint=_HINT)
        case [*_, ".xlsx"]:
            progress.start(stage, None, "rows")
            return read_workbook(file, progress, columns=COLUMNS, hint=_HINT)
        case _:
            raise DatasetError(
                file, found="an unknown kind of file", expected=f"one of {', '.join(_NAMES)}", hint=_HINT
            )


def _stage(chunk: Chunk, staging: Staging) -> None:
    invoice = chunk.text("InvoiceNo")
    chunk.refuse("InvoiceNo", pc.is_null(invoice), "an invoice number")
    stock_code = pc.utf8_upper(chunk.text("StockCode"))
    chunk.refuse("StockCode", pc.is_null(stock_code), "a stock code")
    quantity = chunk.integers("Quantity", "a whole number")
    price = chunk.numbers("UnitPrice", "a price in pounds")
    customer = chunk.integers("CustomerID", "a customer number or nothing", 1, required=False).cast(pa.string())
    bought_us = chunk.moments_us("InvoiceDate")

    sieve = Sieve(len(chunk))
    sieve.drop("no customer", pc.is_null(customer))
    sieve.drop("cancelled order", pc.starts_with(invoice, "C"))
    sieve.drop("quantity not positive", pc.less_equal(quantity, 0))
    sieve.drop("price not positive", pc.less_equal(price, 0))
    sieve.drop("stock code of no goods", pc.invert(pc.match_substring_regex(stock_code, GOODS)))

    every_cell = [
        invoice,
        chunk.table.column("StockCode").cast(pa.string()),
        chunk.table.column("Description").cast(pa.string()),
        quantity.cast(pa.string()),
        bought_us.cast(pa.string()),
        price.cast(pa.string()),
        customer,
        chunk.table.column("Country").cast(pa.string()),
    ]
    staging.add_events(
        {
            "user_id": customer,
            "item_id": stock_code,
            "event_type": "purchase",
            "timestamp_us": bought_us,
            "session_id": invoice,
            "quantity": quantity,
            "price": price,
            "title": chunk.text("Description"),
            "duplicate_key": pc.binary_join_element_wise(*(pc.fill_null(cell, "") for cell in every_cell), "\x1f"),
        },
        sieve,
    )


IMPORTER = Importer("online-retail", "UCI Online Retail (.parquet, .csv, .csv.gz, .xlsx)", read)
