"""
The data directory of the past: everything a method may know about a window, and nothing from inside it.

The rule that makes leakage impossible: methods are given this directory and no other. It is a function of the events
before the window and of what a catalogue says at all times; two histories that part at the window's start give the
same bytes (tests/unit/training/evaluation/test_past.py). So of the catalogue go in

    item_id, title, description, category, brand    as they are: they say what a thing is
    price                                           the median paid before the window; nothing yet paid, no price.
                                                    The list price only where no event of the shop carries one
    in_stock, attributes                            never: they are of the day the data was written

sorted by item id, since a catalogue may come in the order of its sales.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protos import artefacts
from protos import vocabulary as vocabularies
from services.training import dataset as datasets
from services.training.dataset import Dataset, iso

TIMELESS = ("item_id", "title", "description", "category", "brand")
_OWN_FILES = (datasets.EVENTS_FILE, datasets.ITEMS_FILE, vocabularies.FILE_NAME)


def write(data: Path, place: Path, start_us: int) -> None:
    """Make *place* the data directory of *data* as of *start_us*; what was trained there before may stay."""
    place.mkdir(parents=True, exist_ok=True)
    # A vocabulary only grows; the one left by an earlier run may hold items in another order.
    for name in _OWN_FILES:
        (place / name).unlink(missing_ok=True)
    events = pq.read_table(data / datasets.EVENTS_FILE)
    at_us = events.column("timestamp").cast(pa.timestamp("us", "UTC")).cast("int64")
    past = events.filter(pc.less(at_us, start_us))
    pq.write_table(past, place / datasets.EVENTS_FILE, coerce_timestamps="us", compression="zstd")
    pq.write_table(_catalogue(pq.read_table(data / datasets.ITEMS_FILE), past), place / datasets.ITEMS_FILE)
    files = {name: artefacts.sha256_of(place / name) for name in (datasets.EVENTS_FILE, datasets.ITEMS_FILE)}
    artefacts.write_json(
        place / datasets.INFO_FILE,
        {
            "source": f"{source_of(data)} before {iso(start_us)}",
            "events": past.num_rows,
            "first_event_at": iso(int(pc.min(at_us).as_py())),
            "last_event_at": iso(int(pc.max(at_us.filter(pc.less(at_us, start_us))).as_py())),
            "sha256": files,
        },
    )


def write_young(data: Path, young: Path, start_us: int, events: int) -> Path:
    """
    Make *young* the same shop, opened just before the window: of its past only the last *events* are left.

    How a shop does that has hardly any history is thus asked about the same window and the same catalogue.
    """
    young.mkdir(parents=True, exist_ok=True)
    for name in _OWN_FILES:
        (young / name).unlink(missing_ok=True)
    table = pq.read_table(data / datasets.EVENTS_FILE)
    table = table.take(pc.sort_indices(table, [("timestamp", "ascending")]))
    at_us = table.column("timestamp").cast(pa.timestamp("us", "UTC")).cast("int64")
    before = int(pc.sum(pc.less(at_us, start_us)).as_py() or 0)
    kept = table.slice(max(before - events, 0))
    pq.write_table(kept, young / datasets.EVENTS_FILE, coerce_timestamps="us", compression="zstd")
    shutil.copyfile(data / datasets.ITEMS_FILE, young / datasets.ITEMS_FILE)
    # The source says which window is judged.
    artefacts.write_json(young / datasets.INFO_FILE, {"source": source_of(data)})
    return young


def source_of(data: Path) -> str:
    """Where the data came from, as its importer wrote it down; empty when nobody did."""
    path = data / datasets.INFO_FILE
    return str(json.loads(path.read_text(encoding="utf-8")).get("source", "")) if path.is_file() else ""


def keys_in(everything: Dataset, past: Dataset) -> np.ndarray:
    """(n_items of *past*,) int32: the key of each of its items in *everything*."""
    number = {item: key for key, item in enumerate(everything.item_ids)}
    return np.fromiter((number[item] for item in past.item_ids), np.int32, past.n_items)


def users_in(everything: Dataset, past: Dataset, users: np.ndarray) -> np.ndarray:
    """Rows of *past* of these *users* (q,) of *everything*; -1 for whom the past does not know."""
    number = {user: row for row, user in enumerate(past.user_ids)}
    return np.fromiter((number.get(everything.user_ids[u], -1) for u in users), np.int64, len(users))


def _catalogue(items: pa.Table, past: pa.Table) -> pa.Table:
    timeless = items.select([name for name in TIMELESS if name in items.column_names])
    prices = _prices(items, past)
    wanted = timeless.append_column("price", pa.array([prices.get(i) for i in items["item_id"].to_pylist()], "f8"))
    return wanted.sort_by("item_id")


def _prices(items: pa.Table, past: pa.Table) -> dict[str, float | None]:
    if "price" in past.column_names and past.column("price").null_count < past.num_rows:
        frame = past.select(["item_id", "price"]).to_pandas().dropna()
        return {str(item): float(price) for item, price in frame.groupby("item_id")["price"].median().items()}
    if "price" not in items.column_names:
        return {}
    return dict(zip(items["item_id"].to_pylist(), items["price"].to_pylist(), strict=True))
