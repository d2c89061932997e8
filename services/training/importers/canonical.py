"""
Your own shop's data in the canonical schema: events and, better with it, items, as CSV or Parquet.

    events    user_id, item_id, event_type, timestamp; optional event_id, session_id, quantity, price
    items     item_id, title; optional description, category ("A > B > C"), brand, price, in_stock, attributes

A column of another name is refused: it is more often a slip of the pen than something to ignore.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from services.training.importers.base import Importer, Options, Progress
from services.training.importers.chunks import Chunk
from services.training.importers.delimited import read_delimited
from services.training.importers.errors import DatasetError
from services.training.importers.files import find, find_one
from services.training.importers.staging import Sieve, Staging
from services.training.importers.tables import read_parquet, rows_of

EVENT_TYPES = ("view", "click", "impression", "add_to_cart", "remove_from_cart", "purchase")
EVENT_COLUMNS = ("user_id", "item_id", "event_type", "timestamp")
OPTIONAL_EVENT_COLUMNS = ("event_id", "session_id", "quantity", "price")
ITEM_COLUMNS = ("item_id", "title")
OPTIONAL_ITEM_COLUMNS = ("description", "category", "brand", "price", "in_stock", "attributes")

_HINT = "docs/importing.md lists the columns"
_KINDS = (".parquet", ".csv", ".csv.gz")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def read(path: Path, staging: Staging, progress: Progress, _: Options) -> None:
    """Stream the events, then the items beside them where they are."""
    events = find_one(path, [f"events{kind}" for kind in _KINDS], "data in the canonical schema")
    items = find(events.parent, [f"items{kind}" for kind in _KINDS])
    staging.duplicate_reason = "duplicate event_id"
    for chunk in _chunks(events, progress, EVENT_COLUMNS, OPTIONAL_EVENT_COLUMNS):
        _stage_events(chunk, staging)
    if items is not None:
        for chunk in _chunks(items, progress, ITEM_COLUMNS, OPTIONAL_ITEM_COLUMNS):
            _stage_items(chunk, staging)


def _chunks(file: Path, progress: Progress, required: Sequence[str], optional: Sequence[str]) -> Iterator[Chunk]:
    stage, name = f"reading {file.name}", file.name.lower()
    if name.endswith(".parquet"):
        progress.start(stage, rows_of(file), "rows")
        return read_parquet(file, progress, required=required, optional=optional, hint=_HINT)
    if name.endswith((".csv", ".csv.gz")):
        progress.start(stage, file.stat().st_size, "bytes")
        return read_delimited(file, progress, required=required, optional=optional, hint=_HINT)
    raise DatasetError(file, found="an unknown kind of file", expected=f"a name ending in {', '.join(_KINDS)}")


def _stage_events(chunk: Chunk, staging: Staging) -> None:
    columns = chunk.table.column_names
    user, item = chunk.text("user_id"), chunk.text("item_id")
    event_type = chunk.text("event_type")
    known = pc.is_in(pc.fill_null(event_type, ""), pa.array(EVENT_TYPES))
    chunk.refuse("event_type", pc.invert(known), f"one of {', '.join(EVENT_TYPES)}")
    staged: dict[str, pa.ChunkedArray | str] = {
        "user_id": user,
        "item_id": item,
        "event_type": event_type,
        "timestamp_us": chunk.moments_us("timestamp"),
    }
    if "event_id" in columns:
        staged["event_id"] = staged["duplicate_key"] = chunk.text("event_id")
    if "session_id" in columns:
        staged["session_id"] = chunk.text("session_id")
    sieve = Sieve(len(chunk))
    sieve.drop("no user_id", pc.is_null(user))
    sieve.drop("no item_id", pc.is_null(item))
    if "quantity" in columns:
        staged["quantity"] = chunk.numbers("quantity", "a number or nothing", required=False)
        sieve.drop("quantity not positive", pc.less_equal(staged["quantity"], 0))
    if "price" in columns:
        staged["price"] = chunk.numbers("price", "a price or nothing", required=False)
        sieve.drop("price negative", pc.less(staged["price"], 0))
    staging.add_events(staged, sieve)


def _stage_items(chunk: Chunk, staging: Staging) -> None:
    columns = chunk.table.column_names
    item = chunk.text("item_id")
    chunk.refuse("item_id", pc.is_null(item), "an item id")
    staged: dict[str, pa.ChunkedArray | str] = {"item_id": item}
    for name in ("title", "description", "category", "brand"):
        if name in columns:
            staged[name] = chunk.text(name)
    if "price" in columns:
        staged["price"] = chunk.numbers("price", "a price from 0 or nothing", 0.0, required=False)
    if "in_stock" in columns:
        staged["in_stock"] = _truths(chunk, "in_stock")
    if "attributes" in columns:
        staged["attributes"] = _json_objects(chunk, "attributes")
    staging.add_items(staged, Sieve(len(chunk)))


def _truths(chunk: Chunk, column: str) -> pa.ChunkedArray:
    """The column as booleans, from booleans or their words."""
    words = pc.utf8_lower(chunk.text(column))
    is_true, is_false = (pc.is_in(words, pa.array(group)) for group in (_TRUE, _FALSE))
    chunk.refuse(column, pc.and_(pc.is_valid(words), pc.invert(pc.or_(is_true, is_false))), "true, false or nothing")
    return pc.if_else(pc.is_valid(words), is_true, None)


def _json_objects(chunk: Chunk, column: str) -> pa.ChunkedArray:
    """The column as it is, after a look that every value is a JSON object."""
    texts = chunk.text(column)
    for row, text in enumerate(texts.to_pylist()):
        if text is None:
            continue
        try:
            is_object = isinstance(orjson.loads(text), dict)
        except orjson.JSONDecodeError:
            is_object = False
        if not is_object:
            raise chunk.error(row, column, 'a JSON object such as {"colour": "red"} or nothing')
    return texts


IMPORTER = Importer("canonical", "your own events and items (.csv, .csv.gz, .parquet)", read)
