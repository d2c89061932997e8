"""
The canonical data as arrays: events sorted by time, items in vocabulary order, shoppers as of any moment.

The rule: a `Dataset` is immutable, and `before(moment)` is the only way to cut it, so that a model fitted on
`dataset.before(t)` cannot have seen anything from t on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protos import artefacts, vocabulary
from protos.arrays import Rows
from protos.history import MAX_ENTRIES
from protos.tutti.v1 import common_pb2
from services.chassis.model import Shoppers

EVENTS_FILE = "events.parquet"
ITEMS_FILE = "items.parquet"
INFO_FILE = "dataset.json"

TYPE_CODES: dict[str, int] = {
    "view": common_pb2.EVENT_TYPE_VIEW,
    "click": common_pb2.EVENT_TYPE_CLICK,
    "impression": common_pb2.EVENT_TYPE_IMPRESSION,
    "add_to_cart": common_pb2.EVENT_TYPE_ADD_TO_CART,
    "remove_from_cart": common_pb2.EVENT_TYPE_REMOVE_FROM_CART,
    "purchase": common_pb2.EVENT_TYPE_PURCHASE,
}

US = 1_000_000
DAY_US = 86_400 * US

OPENED_US = 946_684_800 * US
"""
"Now" of a shop without one event: 2000-01-01, UTC. Judged: a constant, so that the same catalogue gives the same
artefacts on every day, and before whatever is going to happen in it.
"""


class DatasetUnusable(Exception):
    """The data directory cannot be trained on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Items:
    """Catalogue columns in vocabulary order; an item the catalogue no longer lists has empty texts and NaN price."""

    titles: NDArray[np.object_]
    descriptions: NDArray[np.object_]
    categories: NDArray[np.object_]
    brands: NDArray[np.object_]
    prices: NDArray[np.float32]


@dataclass(frozen=True)
class Dataset:
    """
    Events in time order and the catalogue.

    users     (n,) int32 row of user_ids
    keys      (n,) int32 interned item keys
    types     (n,) uint8 EventType
    at_us     (n,) int64 microseconds since the epoch, never falling
    sessions  (n,) int32 session number, -1 where unknown
    until_us  everything at or after this moment is cut off; the moment "now" of this dataset
    """

    item_ids: list[str]
    user_ids: list[str]
    items: Items
    users: NDArray[np.int32]
    keys: NDArray[np.int32]
    types: NDArray[np.uint8]
    at_us: NDArray[np.int64]
    sessions: NDArray[np.int32]
    until_us: int
    files: dict[str, str]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def ages_s(self) -> NDArray[np.float32]:
        """Seconds from each event to `until_us`, (n,) float32."""
        return ((self.until_us - self.at_us) / US).astype(np.float32)

    def before(self, moment_us: int) -> Dataset:
        """The same catalogue with the events before *moment_us* only."""
        end = int(np.searchsorted(self.at_us, moment_us, "left"))
        return replace(
            self,
            users=self.users[:end],
            keys=self.keys[:end],
            types=self.types[:end],
            at_us=self.at_us[:end],
            sessions=self.sessions[:end],
            until_us=min(moment_us, self.until_us),
        )

    def describe(self) -> dict[str, Any]:
        """The `data` block of a manifest."""
        return {
            "events": len(self),
            "items": self.n_items,
            "first_event_at": iso(int(self.at_us[0])) if len(self) else "",
            "last_event_at": iso(int(self.at_us[-1])) if len(self) else "",
            "sha256": dict(self.files),
        }

    @cached_property
    def _by_user(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        # Held for as long as the past it is of, and every lesson holds one.
        order = np.argsort(self.users, kind="stable").astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.users, minlength=len(self.user_ids)))])
        return order, starts

    def shoppers(
        self,
        users: NDArray[np.integer],
        moments_us: NDArray[np.int64],
        context: Rows | None = None,
        placements: NDArray[np.uint8] | None = None,
        limit: int = MAX_ENTRIES,
    ) -> Shoppers:
        """
        These *users* (q,) as serving would have seen them at *moments_us* (q,): their last *limit* events before it.

        Without *placements* everybody is on the home page, without *context* nobody looks at anything.
        """
        order, starts = self._by_user
        picked: list[NDArray[np.int32]] = []
        for user, moment in zip(users, moments_us, strict=True):
            own = order[starts[user] : starts[user + 1]]
            end = int(np.searchsorted(self.at_us[own], moment, "left"))
            picked.append(own[max(0, end - limit) : end])
        lengths = np.array([len(p) for p in picked], np.int64)
        events = np.concatenate(picked) if picked else np.empty(0, np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ages = (np.repeat(moments_us, lengths) - self.at_us[events]) / US
        return Shoppers(
            Rows(offsets, self.keys[events]),
            self.types[events],
            ages.astype(np.float32),
            context if context is not None else Rows.empty(len(users)),
            placements if placements is not None else np.full(len(users), common_pb2.PLACEMENT_HOME, np.uint8),
        )


def load(data: Path) -> Dataset:
    """
    Read a canonical data directory whose vocabulary is up to date.

    Raises:
        DatasetUnusable: a file or column is missing. No event is no fault: a shop opens without one.
    """
    for name in (EVENTS_FILE, ITEMS_FILE, vocabulary.FILE_NAME):
        if not (data / name).is_file():
            raise DatasetUnusable(
                f"no {name} in {data}; `tutti data synth --out {data}` or `tutti data import` makes one"
            )
    ids = vocabulary.read(data / vocabulary.FILE_NAME)
    key_of = {item: key for key, item in enumerate(ids)}
    # Column by column: twenty million events as Python's strings were 5 GB.
    at_us = _column(data, "timestamp").cast(pa.timestamp("us", "UTC")).cast("int64").to_numpy()
    order = np.argsort(at_us, kind="stable")
    user_ids, users = _numbered(_column(data, "user_id"))
    _, sessions = _numbered(_column(data, "session_id"), missing="")
    items, places = _numbered(_column(data, "item_id"))
    keys = np.array([key_of[item] for item in items.to_pylist()], np.int32)[places]
    kinds, places = _numbered(_column(data, "event_type"))
    types = np.array([TYPE_CODES.get(kind, 0) for kind in kinds.to_pylist()], np.uint8)[places]
    info = json.loads((data / INFO_FILE).read_text(encoding="utf-8")) if (data / INFO_FILE).is_file() else {}
    # The catalogue may have changed since the data was made (services/training/catalogue_log.py).
    files = {
        name: artefacts.sha256_of(data / name) if name == ITEMS_FILE else of
        for name, of in info.get("sha256", {}).items()
    }
    return Dataset(
        item_ids=ids,
        user_ids=user_ids.to_pylist(),
        items=_items(data / ITEMS_FILE, key_of),
        users=users[order],
        keys=keys[order],
        types=types[order],
        at_us=at_us[order],
        sessions=sessions[order],
        # A microsecond after the last event, so that `before(until)` is everything.
        until_us=int(at_us.max()) + 1 if len(at_us) else OPENED_US,
        files=files,
    )


def _column(data: Path, name: str) -> pa.ChunkedArray:
    return pq.read_table(data / EVENTS_FILE, columns=[name]).column(name)


def _numbered(column: pa.ChunkedArray, missing: str | None = None) -> tuple[pa.Array, NDArray[np.int32]]:
    """Distinct values in sorted order, and each value's number (n,); *missing* and nulls become -1."""
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    # As Arrow sorts, by bytes, which is Python's order of text: millions of sessions are never Python's strings.
    order = pc.array_sort_indices(encoded.dictionary)
    distinct = encoded.dictionary.take(order)
    # One more for null, which is the last place of the table however far it is.
    numbers = np.full(len(distinct) + 1, -1, np.int32)
    if missing is not None and (at := pc.index(distinct, pa.scalar(missing, pa.string())).as_py()) >= 0:
        order, distinct = _without(order, at), _without(distinct, at)
    numbers[order.to_numpy()] = np.arange(len(distinct), dtype=np.int32)
    places = encoded.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False)
    return distinct, numbers[places]


def _without(values: pa.Array, at: int) -> pa.Array:
    return pa.concat_arrays([values.slice(0, at), values.slice(at + 1)])


def _items(path: Path, key_of: dict[str, int]) -> Items:
    table = pq.read_table(path).to_pydict()
    rows = np.fromiter((key_of[i] for i in table["item_id"]), np.int64, len(table["item_id"]))

    def text(column: str) -> NDArray[np.object_]:
        values = np.full(len(key_of), "", object)
        values[rows] = [v or "" for v in table.get(column, [""] * len(rows))]
        return values

    prices = np.full(len(key_of), np.nan, np.float32)
    prices[rows] = [np.nan if v is None else v for v in table.get("price", [None] * len(rows))]
    return Items(text("title"), text("description"), text("category"), text("brand"), prices)


def iso(at_us: int) -> str:
    """Microseconds since the epoch as ISO 8601, UTC."""
    return datetime.fromtimestamp(at_us / US, UTC).isoformat().replace("+00:00", "Z")


def to_us(moment: datetime) -> int:
    """A datetime as microseconds since the epoch; one without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp()) * US + aware.microsecond
