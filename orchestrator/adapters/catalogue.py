"""
The shop's items in process: ids, facts, masks, the popular order; read from the data directory, changed while it runs.

Columns are arrays indexed by interned key, so that a request costs array look-ups and no Python object for each
candidate. A change is written into its row between two turns of the event loop: whoever looks sees an item as it was or
as it is. What is remembered of all items, filters' masks and the popular order, is put right when next asked for. The
rule: a row is never removed and a key never means another item; what the shop no longer has is not listed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.core.likeness import Descriptions, Marks
from orchestrator.core.model import Facts, Float32, Int32, ItemFilter, Mask
from orchestrator.telemetry import log
from protos import vocabulary
from protos.catalogue import FIELDS, NO_KEY, ItemState

MAX_MASKS = 256
"""Remembered filter masks, least recently used out first; 256 × 50,000 items are 13 MB."""

MAX_TOUCHED_UP = 4096
"""Changes after which a remembered mask is made anew instead of put right. Judged: that many rows cost about as much
as all of 50,000."""

MAX_LEAP = 1_000_000
"""Keys that may be missing before a new one. Derived from the largest import there is to be; a key beyond is not ours,
and would cost its memory."""

ITEMS_FILE = "items.parquet"

PARENT = "parent"
"""Attribute that names the item of which others are variants; the importers and the embedded shop write it so."""

_SHOWN = ("title", "category", "brand", "price")

A = TypeVar("A", bound=np.generic)


class _Kept(NamedTuple):
    """A remembered mask, and how many changes it knows of."""

    mask: Mask
    n_changes: int


class Catalogue:
    """See the port. Build it with `load`; rows of *columns* are aligned with *ids*. For one event loop."""

    def __init__(
        self, ids: Sequence[str], columns: Mapping[str, Sequence[Any]], popular: Int32, n_trained: int | None = None
    ) -> None:
        """*n_trained*: how many of *ids* models know; the digest is of these, so that it stays while new ones come."""
        self._ids = list(ids)
        self._keys = {item_id: key for key, item_id in enumerate(self._ids)}
        self._digest = vocabulary.digest(self._ids[:n_trained])
        n = len(self._ids)
        nothing = [None] * n
        self._columns: dict[str, list[Any]] = {name: list(columns.get(name) or nothing) for name in FIELDS}
        self._price: Float32 = np.asarray([np.nan if p is None else p for p in self._columns["price"]], np.float32)
        self._listed: Mask = np.asarray(columns.get("listed") or [True] * n, np.bool_)
        # An item whose stock nobody told us of may be shown: most shops list only what they sell.
        self._in_stock: Mask = np.asarray([s is not False for s in self._columns["in_stock"]], np.bool_) & self._listed
        self._attributes = [_attributes(raw) for raw in self._columns["attributes"]]
        self._codes = (_Codes(), _Codes(), _Codes())
        parents = [attributes.get(PARENT) for attributes in self._attributes]
        coded = zip(self._codes, (self._columns["category"], self._columns["brand"], parents), strict=True)
        self._kinds: Int32 = np.column_stack([codes.all_of(values) for codes, values in coded]).astype(np.int32)
        self._order, self._n_ordered = popular, len(popular)
        self._popular: Int32 | None = None
        self._masks: OrderedDict[ItemFilter, _Kept] = OrderedDict()
        self._touched: deque[int] = deque(maxlen=MAX_TOUCHED_UP)
        self._n_changes = 0
        self._descriptions: Descriptions | None = None
        self._undescribed: set[int] = set()
        self._versions: dict[str, int] = {}
        self._waiting: dict[str, ItemState] = {}

    @property
    def size(self) -> int:
        return len(self._ids)

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def n_changes(self) -> int:
        return self._n_changes

    @property
    def popular(self) -> Int32:
        if self._popular is None:
            order = self._order[: self._n_ordered]
            self._popular = order[self._in_stock[order]]
        return self._popular

    def key_of(self, item_id: str) -> int | None:
        return self._keys.get(item_id)

    def id_of(self, key: int) -> str:
        return self._ids[key]

    def is_listed(self, key: int) -> bool:
        return bool(self._listed[key])

    def facts(self, keys: Int32) -> Facts:
        return Facts(self._in_stock[keys], self._price[keys], self._kinds[keys, 0])

    def are_in_stock(self, keys: Int32) -> bool:
        in_stock = self._in_stock.take(keys)
        # Counted in a sixth of the time that `all` takes for twenty.
        return int(np.count_nonzero(in_stock)) == len(in_stock)

    def changed_since(self, n_changes: int) -> list[int] | None:
        n = self._n_changes - n_changes
        return None if n > len(self._touched) else list(islice(reversed(self._touched), n))

    def kinds(self, keys: Int32) -> Int32:
        return self._kinds[keys]

    def marks(self, keys: Int32) -> Marks:
        descriptions = self._described()
        # Only who is asked for: an import of a million items must not hold up a page.
        due = self._undescribed.intersection(keys.tolist()) if self._undescribed else set()
        if (last := int(keys.max(initial=-1))) >= len(descriptions.marks.tokens):
            due.add(last)
        for key in due:
            self._undescribed.discard(key)
            title, category, brand = (self._columns[name][key] for name in ("title", "category", "brand"))
            descriptions.describe(key, title, category, brand, float(self._price[key]))
        return descriptions.marks.take(keys)

    def _described(self) -> Descriptions:
        """Made when first asked for, which the warm-up does: 0.4 s for 50,000 items, measured."""
        if self._descriptions is None:
            titles, categories, brands = (self._columns[name] for name in ("title", "category", "brand"))
            self._descriptions = Descriptions(titles, categories, brands, self._price[: self.size])
            self._undescribed.clear()
        return self._descriptions

    def allowed(self, wanted: ItemFilter) -> Mask:
        kept, now = self._masks.get(wanted), self._n_changes
        if kept is None or now - kept.n_changes > len(self._touched):
            self._masks[wanted] = _Kept(self.mask(wanted), now)
        elif kept.n_changes != now:
            since = np.unique(np.fromiter(islice(reversed(self._touched), now - kept.n_changes), np.int32))
            mask = _with_room(kept.mask, self.size, exactly=True)
            mask[since] = self._fits(wanted, since)
            self._masks[wanted] = _Kept(mask, now)
        if len(self._masks) > MAX_MASKS:
            self._masks.popitem(last=False)
        self._masks.move_to_end(wanted)
        return self._masks[wanted].mask

    def mask(self, wanted: ItemFilter) -> Mask:
        return self._fits(wanted, slice(0, self.size))

    def _fits(self, wanted: ItemFilter, rows: slice | Int32) -> Mask:
        price, kinds = self._price[rows], self._kinds[rows]
        mask = np.ones(len(price), np.bool_)
        categories, brands, _ = self._codes
        if wanted.categories:
            mask &= np.isin(kinds[:, 0], [c for c, path in enumerate(list(categories.names)) if _under(path, wanted)])
        if wanted.brands:
            mask &= np.isin(kinds[:, 1], [b for b, name in enumerate(list(brands.names)) if name in wanted.brands])
        # A price nobody told us satisfies no bound: NaN compares False.
        if wanted.price_min is not None:
            mask &= price >= wanted.price_min
        if wanted.price_max is not None:
            mask &= price <= wanted.price_max
        if wanted.in_stock:
            mask &= self._in_stock[rows]
        if wanted.attributes:
            some = self._attributes[rows] if isinstance(rows, slice) else [self._attributes[key] for key in rows]
            for name, values in wanted.attributes:
                mask &= np.fromiter((a.get(name) in values for a in some), np.bool_, len(some))
        return mask

    def properties(self, key: int) -> dict[str, object]:
        return {name: value for name in _SHOWN if (value := self._columns[name][key]) is not None}

    # What changes.

    def document(self, item_id: str) -> dict[str, Any] | None:
        key = self._keys.get(item_id)
        if key is None:
            waiting = self._waiting.get(item_id)
            return None if waiting is None or waiting.document is None else dict(waiting.document)
        if not self._listed[key]:
            return None
        found = {name: value for name in FIELDS if (value := self._columns[name][key]) is not None}
        return _with_attributes(found)

    def version_of(self, item_id: str) -> int:
        return self._versions.get(item_id, 0)

    def apply(self, states: Iterable[ItemState]) -> None:
        for state in states:
            held = self._versions.get(state.item_id, 0)
            key = self._keys.get(state.item_id)
            is_known = held == state.version and (key is not None or state.key == NO_KEY)
            if state.version < held or (is_known and state.item_id in self._versions):
                continue
            self._versions[state.item_id] = state.version
            if key is None:
                key = self._taken_in(state)
            if key is not None:
                self._write(key, state.document)

    def changed(self) -> dict[str, int]:
        """Item id → version, of every item that is not as the data directory has it."""
        return dict(self._versions)

    def forget_versions(self) -> None:
        """From now on any version is newer: who numbered them has begun anew."""
        self._versions = dict.fromkeys(self._versions, 0)

    def put_back(self, documents: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Make items what the data directory has them to be; None: it does not list them."""
        for item_id, document in documents.items():
            self._versions.pop(item_id, None)
            self._waiting.pop(item_id, None)
            key = self._keys.get(item_id)
            if key is not None:
                self._write(key, document)

    def _taken_in(self, state: ItemState) -> int | None:
        """The key of an item that had none here; None while nobody gave it one, or for a key that cannot be true."""
        key, here = state.key, self.size
        if key == NO_KEY:
            self._waiting[state.item_id] = state
            return None
        if key < 0 or key >= here + MAX_LEAP or (key < here and self._ids[key]):
            found = self._ids[key] if 0 <= key < here else "nothing"
            log.error("item_key_refused", item_id=state.item_id[:60], key=key, size=here, taken_by=found[:60])
            return None
        self._waiting.pop(state.item_id, None)
        if key >= here:
            self._grow(key + 1)
        self._ids[key] = state.item_id
        self._keys[state.item_id] = key
        return key

    def _grow(self, size: int) -> None:
        """Room for keys below *size*. Those whose item we have not heard of have no name and are not listed."""
        here = self.size
        more = size - here
        for column in self._columns.values():
            column.extend([None] * more)
        self._attributes.extend({} for _ in range(more))
        self._price, self._listed = _with_room(self._price, size), _with_room(self._listed, size)
        self._in_stock, self._kinds = _with_room(self._in_stock, size), _with_room(self._kinds, size)
        self._price[here:size], self._kinds[here:size] = np.nan, -1
        self._listed[here:size] = self._in_stock[here:size] = False
        # Behind all that anybody ever touched.
        self._order = _with_room(self._order, self._n_ordered + more)
        self._order[self._n_ordered : self._n_ordered + more] = np.arange(here, size)
        self._n_ordered += more
        # Last: who reads in another thread looks at no row that is not there yet.
        self._ids.extend([""] * more)

    def _write(self, key: int, document: Mapping[str, Any] | None) -> None:
        row = document or {}
        for name in FIELDS:
            self._columns[name][key] = row.get(name)
        if row.get("attributes"):
            self._columns["attributes"][key] = orjson.dumps(row["attributes"]).decode()
        attributes = self._attributes[key] = _attributes(self._columns["attributes"][key])
        price = row.get("price")
        self._price[key] = np.nan if price is None else price
        values = (row.get("category"), row.get("brand"), attributes.get(PARENT))
        self._kinds[key] = [codes.of(value) for codes, value in zip(self._codes, values, strict=True)]
        self._listed[key] = document is not None
        self._in_stock[key] = document is not None and row.get("in_stock") is not False
        self._popular = None
        self._undescribed.add(key)
        self._touched.append(key)
        self._n_changes += 1

    def __repr__(self) -> str:
        return f"<Catalogue of {self.size}, {len(self._versions)} changed, {len(self._waiting)} wait for a key>"


def load(data: Path, popular_keys: Int32, n_trained: int | None = None) -> Catalogue:
    """
    Read *data*/vocabulary.parquet and *data*/items.parquet.

    Args:
        popular_keys: every item, best first, from the `popular` artefact; keys beyond the vocabulary are ignored.
        n_trained: as in `Catalogue`.

    Raises:
        FileNotFoundError: one of the two files is missing; train first.
    """
    ids = vocabulary.read(data / vocabulary.FILE_NAME)
    items = pq.read_table(data / ITEMS_FILE).to_pydict()
    row_of = {item_id: row for row, item_id in enumerate(items["item_id"])}
    rows = [row_of.get(item_id) for item_id in ids]
    columns: dict[str, list[Any]] = {
        name: [None if row is None else values[row] for row in rows] for name, values in items.items()
    }
    # Keys are never reused, so the vocabulary may hold items the shop no longer lists: never shown.
    columns["listed"] = [row is not None for row in rows]
    known = popular_keys[(popular_keys >= 0) & (popular_keys < len(ids))]
    rest = np.setdiff1d(np.arange(len(ids), dtype=np.int32), known)
    return Catalogue(ids, columns, np.concatenate([known, rest]).astype(np.int32), n_trained)


def documents_of(data: Path, item_ids: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """
    What *data*/items.parquet says of *item_ids*; None for items it does not list. Reads a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(item_ids)
    table = pq.read_table(data / ITEMS_FILE)
    names = [name for name in FIELDS if name in table.column_names]
    for row, item_id in enumerate(table.column("item_id").to_pylist()):
        if item_id in found:
            cells = {name: table.column(name)[row].as_py() for name in names}
            found[item_id] = _with_attributes({name: value for name, value in cells.items() if value is not None})
    return found


class _Codes:
    """Numbers for names, from 0 in order of first appearance; -1 for no name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._number: dict[str, int] = {}

    def of(self, name: str | None) -> int:
        if name is None:
            return -1
        number = self._number.get(name)
        if number is None:
            number = self._number[name] = len(self.names)
            self.names.append(name)
        return number

    def all_of(self, names: Iterable[str | None]) -> Int32:
        return np.asarray([self.of(name) for name in names], np.int32)


def _with_room(array: NDArray[A], n: int, exactly: bool = False) -> NDArray[A]:
    """*array*, or a larger one that begins with it: a half more at a time, so that n additions cost n. *exactly*: n."""
    if n <= len(array) and not exactly:
        return array
    larger = np.zeros((n if exactly else max(n, len(array) * 3 // 2), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _under(path: str, wanted: ItemFilter) -> bool:
    return any(path == category or path.startswith(category + " > ") for category in wanted.categories)


def _parsed(raw: str | None) -> dict[str, Any]:
    """The attributes of a column; unreadable ones are none."""
    if not raw:
        return {}
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _with_attributes(cells: dict[str, Any]) -> dict[str, Any]:
    """A row's cells as a document: attributes as the object that the column has as text."""
    if attributes := _parsed(cells.pop("attributes", None)):
        cells["attributes"] = attributes
    return cells


def _attributes(raw: str | None) -> dict[str, str]:
    """The item's attributes with their values as text, as callers write them."""
    return {str(name): str(value) for name, value in _parsed(raw).items()}
