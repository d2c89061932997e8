"""
RetailRocket: views, cart additions and transactions of a real shop, with a category tree and hashed properties.

    events.csv                       timestamp (ms), visitorid, event, itemid, transactionid
    item_properties_part1.csv, …2    timestamp (ms), itemid, property, value; clear text: categoryid and available
    category_tree.csv                categoryid, parentid

Properties change over time; the latest value counts. Memory grows with the number of items, not of property rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from services.training.importers.base import Importer, Options, Progress
from services.training.importers.chunks import Chunk
from services.training.importers.delimited import read_delimited
from services.training.importers.errors import DatasetError
from services.training.importers.files import find, find_one, stage_bytes
from services.training.importers.staging import Sieve, Staging

EVENT_TYPES = {"view": "view", "addtocart": "add_to_cart", "transaction": "purchase"}
# Item properties in clear text; every other name and value is hashed by the publisher.
_CATEGORY, _AVAILABLE = "categoryid", "available"
_HINT = "is this the RetailRocket data set?"


def read(path: Path, staging: Staging, progress: Progress, _: Options) -> None:
    """Stream events.csv, then the properties and the tree beside it where they are."""
    events = find_one(path, ["events.csv", "events.csv.gz"], "RetailRocket")
    progress.start(f"reading {events.name}", stage_bytes([events]), "bytes")
    columns = ("timestamp", "visitorid", "event", "itemid", "transactionid")
    for chunk in read_delimited(events, progress, required=columns, hint=_HINT):
        _stage_events(chunk, staging)

    folder = events.parent
    tree = find(folder, ["category_tree.csv", "category_tree.csv.gz"])
    parents = _read_tree(tree, progress) if tree is not None else {}
    properties = [
        file
        for name in ("item_properties_part1.csv", "item_properties_part2.csv", "item_properties.csv")
        if (file := find(folder, [name, f"{name}.gz"])) is not None
    ]
    if properties:
        _stage_items(_read_properties(properties, progress), parents, staging)


def _stage_events(chunk: Chunk, staging: Staging) -> None:
    at_us = chunk.epoch_us("timestamp", 1_000, "milliseconds since 1970")
    visitor = chunk.integers("visitorid", "a visitor's number", 0).cast(pa.string())
    item = chunk.integers("itemid", "an item's number", 0).cast(pa.string())
    order = chunk.integers("transactionid", "an order's number or nothing", 0, required=False).cast(pa.string())
    word = chunk.text("event")
    kinds = pa.array(list(EVENT_TYPES), pa.string())
    chunk.refuse("event", pc.invert(pc.is_in(pc.fill_null(word, ""), kinds)), f"one of {', '.join(EVENT_TYPES)}")
    event_type = pa.array(list(EVENT_TYPES.values()), pa.string()).take(pc.index_in(word.combine_chunks(), kinds))

    staging.add_events(
        {
            "user_id": visitor,
            "item_id": item,
            "event_type": event_type,
            "timestamp_us": at_us,
            "session_id": order,
            "duplicate_key": pc.binary_join_element_wise(
                at_us.cast(pa.string()), visitor, word, item, pc.fill_null(order, ""), "|"
            ),
        },
        Sieve(len(chunk)),
    )


@dataclass(slots=True)
class _Latest:
    """The latest value of one property of each item; of two at one moment, the later row."""

    values: dict[int, tuple[int, str]] = field(default_factory=dict)

    def see(self, items: Sequence[int], moments: Sequence[int], values: Sequence[str]) -> None:
        for item, moment, value in zip(items, moments, values, strict=True):
            known = self.values.get(item)
            if known is None or moment >= known[0]:
                self.values[item] = (moment, value)

    def of(self, item: int) -> str | None:
        known = self.values.get(item)
        return known[1] if known else None


@dataclass(slots=True)
class _Properties:
    """What the property files say: every item they name, its latest category and availability."""

    items: dict[int, None] = field(default_factory=dict)
    category: _Latest = field(default_factory=_Latest)
    available: _Latest = field(default_factory=_Latest)


def _read_properties(files: Sequence[Path], progress: Progress) -> _Properties:
    known = _Properties()
    progress.start("reading item properties", stage_bytes(files), "bytes")
    for file in files:
        for chunk in read_delimited(file, progress, required=("timestamp", "itemid", "property", "value"), hint=_HINT):
            item = chunk.integers("itemid", "an item's number", 0)
            at_us = chunk.epoch_us("timestamp", 1_000, "milliseconds since 1970")
            name, value = chunk.text("property"), chunk.text("value")
            is_available = pc.equal(name, _AVAILABLE)
            odd = pc.and_kleene(is_available, pc.invert(pc.is_in(value, pa.array(["0", "1"]))))
            chunk.refuse("value", odd, "0 or 1 for the property available")
            known.items.update(dict.fromkeys(pc.unique(item).to_pylist()))
            for latest, is_named in ((known.category, pc.equal(name, _CATEGORY)), (known.available, is_available)):
                wanted = pc.and_kleene(is_named, pc.is_valid(value))
                latest.see(*(column.filter(wanted).to_pylist() for column in (item, at_us, value)))
    return known


def _read_tree(file: Path, progress: Progress) -> dict[str, str | None]:
    """Category → its parent, None for a root."""
    parents: dict[str, str | None] = {}
    progress.start(f"reading {file.name}", stage_bytes([file]), "bytes")
    for chunk in read_delimited(file, progress, required=("categoryid", "parentid"), hint=_HINT):
        ids = chunk.integers("categoryid", "a category's number", 0).cast(pa.string()).to_pylist()
        above = chunk.integers("parentid", "a category's number or nothing", 0, required=False).cast(pa.string())
        parents.update(zip(ids, above.to_pylist(), strict=True))
    for category in parents:
        _path(category, parents, file)
    return parents


def _path(category: str, parents: Mapping[str, str | None], file: Path | None = None) -> str:
    """The category below its ancestors, "root > … > category"; a category the tree does not know stands alone."""
    way = [category]
    while (parent := parents.get(way[-1])) is not None:
        if parent in way:
            raise DatasetError(
                file or Path("category_tree.csv"),
                column="parentid",
                found=f"category {parent} among its own ancestors",
                expected="a tree",
                hint=_HINT,
            )
        way.append(parent)
    return " > ".join(reversed(way))


def _stage_items(known: _Properties, parents: Mapping[str, str | None], staging: Staging) -> None:
    items = list(known.items)
    if not items:
        return
    categories = [known.category.of(item) for item in items]
    staging.add_items(
        {
            "item_id": pa.array([str(item) for item in items], pa.string()),
            "category": pa.array([_path(name, parents) if name else None for name in categories], pa.string()),
            "in_stock": pa.array(
                [None if (value := known.available.of(item)) is None else value == "1" for item in items], pa.bool_()
            ),
        },
        Sieve(len(items)),
    )


IMPORTER = Importer("retailrocket", "RetailRocket events, item properties, categories", read)
