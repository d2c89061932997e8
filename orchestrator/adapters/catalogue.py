"""
The shop's items in process, read once from the data directory: ids, facts, masks, the popular order.

Columns are arrays indexed by interned key, so that a request costs array look-ups and no Python object for
each candidate. Filters' masks are computed once and kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq

from orchestrator.core.likeness import Marks, marks_of
from orchestrator.core.model import Facts, Float32, Int32, ItemFilter, Mask
from protos import vocabulary

MAX_MASKS = 256
"""Remembered filter masks, least recently used out first; 256 × 50,000 items are 13 MB."""

PARENT = "parent"
"""Attribute that names the item of which others are variants; the importers and the embedded shop write it so."""


class Catalogue:
    """See the port. Build it with `load`; rows of *columns* are aligned with *ids*."""

    def __init__(self, ids: Sequence[str], columns: Mapping[str, Sequence[Any]], popular: Int32) -> None:
        self._ids = list(ids)
        self._keys = {item_id: key for key, item_id in enumerate(self._ids)}
        self._columns = columns
        self._digest = vocabulary.digest(self._ids)
        n = len(self._ids)
        price = columns.get("price") or [None] * n
        self._price: Float32 = np.asarray([np.nan if p is None else p for p in price], np.float32)
        stock = columns.get("in_stock") or [None] * n
        # An item whose stock nobody told us of may be shown: most shops list only what they sell.
        self._in_stock: Mask = np.asarray([s is not False for s in stock], np.bool_)
        listed = columns.get("listed") or [True] * n
        self._in_stock &= np.asarray(listed, np.bool_)
        self._categories, self._category = _coded(columns.get("category") or [None] * n)
        self._brands, self._brand = _coded(columns.get("brand") or [None] * n)
        self._attributes = [_attributes(raw) for raw in columns.get("attributes") or [None] * n]
        _, parent = _coded([attributes.get(PARENT) for attributes in self._attributes])
        self._kinds: Int32 = np.column_stack([self._category, self._brand, parent]).astype(np.int32)
        self._popular = popular[self._in_stock[popular]]
        self._masks: OrderedDict[ItemFilter, Mask] = OrderedDict()

    @property
    def size(self) -> int:
        return len(self._ids)

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def popular(self) -> Int32:
        return self._popular

    def key_of(self, item_id: str) -> int | None:
        return self._keys.get(item_id)

    def id_of(self, key: int) -> str:
        return self._ids[key]

    def facts(self, keys: Int32) -> Facts:
        return Facts(self._in_stock[keys], self._price[keys], self._category[keys])

    def kinds(self, keys: Int32) -> Int32:
        return self._kinds[keys]

    def marks(self, keys: Int32) -> Marks:
        return self._marks.take(keys)

    @cached_property
    def _marks(self) -> Marks:
        """Made when first asked for, which the warm-up does: 0.4 s for 50,000 items, measured."""
        nothing = [None] * self.size
        titles, categories, brands = (self._columns.get(name) or nothing for name in ("title", "category", "brand"))
        return marks_of(titles, categories, brands, self._price)

    def allowed(self, wanted: ItemFilter) -> Mask:
        mask = self._masks.get(wanted)
        if mask is None:
            mask = self._masks[wanted] = self.mask(wanted)
            if len(self._masks) > MAX_MASKS:
                self._masks.popitem(last=False)
        self._masks.move_to_end(wanted)
        return mask

    def mask(self, wanted: ItemFilter) -> Mask:
        mask = np.ones(self.size, np.bool_)
        if wanted.categories:
            mask &= np.isin(self._category, [c for c, path in enumerate(self._categories) if _under(path, wanted)])
        if wanted.brands:
            mask &= np.isin(self._brand, [b for b, name in enumerate(self._brands) if name in wanted.brands])
        # A price nobody told us satisfies no bound: NaN compares False.
        if wanted.price_min is not None:
            mask &= self._price >= wanted.price_min
        if wanted.price_max is not None:
            mask &= self._price <= wanted.price_max
        if wanted.in_stock:
            mask &= self._in_stock
        for name, values in wanted.attributes:
            mask &= np.fromiter((a.get(name) in values for a in self._attributes), np.bool_, self.size)
        return mask

    def properties(self, key: int) -> dict[str, object]:
        shown: dict[str, object] = {}
        for name in ("title", "category", "brand", "price"):
            value = self._columns[name][key] if name in self._columns else None
            if value is not None:
                shown[name] = value
        return shown


def load(data: Path, popular_keys: Int32) -> Catalogue:
    """
    Read *data*/vocabulary.parquet and *data*/items.parquet.

    Args:
        popular_keys: every item, best first, from the `popular` artefact; keys beyond the vocabulary are ignored.

    Raises:
        FileNotFoundError: one of the two files is missing; train first.
    """
    ids = vocabulary.read(data / vocabulary.FILE_NAME)
    items = pq.read_table(data / "items.parquet").to_pydict()
    row_of = {item_id: row for row, item_id in enumerate(items["item_id"])}
    rows = [row_of.get(item_id) for item_id in ids]
    columns: dict[str, list[Any]] = {
        name: [None if row is None else values[row] for row in rows] for name, values in items.items()
    }
    # Keys are never reused, so the vocabulary may hold items the shop no longer lists: never shown.
    columns["listed"] = [row is not None for row in rows]
    known = popular_keys[(popular_keys >= 0) & (popular_keys < len(ids))]
    rest = np.setdiff1d(np.arange(len(ids), dtype=np.int32), known)
    return Catalogue(ids, columns, np.concatenate([known, rest]).astype(np.int32))


def _coded(values: Sequence[str | None]) -> tuple[list[str], Int32]:
    """Distinct values in order of first appearance, and each row's code; -1 where there is none."""
    codes: dict[str, int] = {}
    coded = [-1 if value is None else codes.setdefault(value, len(codes)) for value in values]
    return list(codes), np.asarray(coded, np.int32)


def _under(path: str, wanted: ItemFilter) -> bool:
    return any(path == category or path.startswith(category + " > ") for category in wanted.categories)


def _attributes(raw: str | None) -> dict[str, str]:
    """The item's attributes with their values as text, as callers write them; unreadable ones are none."""
    if not raw:
        return {}
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return {str(k): str(v) for k, v in parsed.items()} if isinstance(parsed, dict) else {}
