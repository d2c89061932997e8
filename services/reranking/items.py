"""
What of a candidate's row belongs to its item: the columns there are, and every item encoded when it changes.

The rule: a table never changes. The next one shares its rows: what became of an item is written behind them, where no
table has looked yet, and only the index from keys to rows is new; so a change costs what changed, and a call, which
holds one table, is a gather.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32
from services.reranking.encoding import Encoder, signed_log

MISSING = 0
"""Row of every table in which everything is missing."""


@dataclass(frozen=True)
class Layout:
    """
    Which columns there are, learnt once and stored with the model.

    sources  names in column order; a request's other sources are ignored, a missing one proposed nothing
    same     (user categorical, item categorical) columns whose words are compared
    near     (user numeric, item numeric) columns whose difference is taken, on a logarithmic scale
    """

    sources: tuple[str, ...]
    user: Encoder
    item: Encoder
    same: tuple[tuple[int, int], ...]
    near: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, sources: Sequence[str], user: Encoder, item: Encoder) -> Layout:
        """
        Find the crosses by name: user `…favourite_x` meets item `…__x`, user `…mean_x` meets item `…__x`.

        So a new feature pair in the feature repository becomes a cross without a change here.
        """
        same = _meet(user.categorical, item.categorical, "favourite_")
        return cls(tuple(sources), user, item, same, _meet(user.numeric, item.numeric, "mean_"))

    def to_json(self) -> dict[str, Any]:
        """JSON values of everything."""
        encoders = {"user": self.user.to_json(), "item": self.item.to_json()}
        return {"sources": self.sources, **encoders, "same": self.same, "near": self.near}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """What `to_json` gave, through JSON."""
        same, near = (tuple((int(a), int(b)) for a, b in value[name]) for name in ("same", "near"))
        user, item = Encoder.from_json(value["user"]), Encoder.from_json(value["item"])
        return cls(tuple(value["sources"]), user, item, same, near)


def _meet(user: Sequence[str], item: Sequence[str], prefix: str) -> tuple[tuple[int, int], ...]:
    by_name = {name.split("__")[-1]: i for i, name in enumerate(item)}
    wanted = [(i, name.split("__")[-1]) for i, name in enumerate(user)]
    return tuple(
        (i, by_name[name.removeprefix(prefix)])
        for i, name in wanted
        if name.startswith(prefix) and name.removeprefix(prefix) in by_name
    )


class Stock:
    """
    Rows of encoded items, with room behind them; one thread writes, and only behind what any table has.

    numbers  (room, d + near) float32: the encoder's dense columns, then the item's side of each difference
    codes    (room, c) int64, the encoder's
    words    (room, same) int32: the words that are compared with a shopper's, numbered as in *numbering*; 0 for none
    """

    def __init__(self, layout: Layout, room: int) -> None:
        self.layout, self.used = layout, 0
        self.numbering: tuple[dict[str, int], ...] = tuple({"": 0} for _ in layout.same)
        item = layout.item
        self.numbers = np.empty((room, len(item.dense_names) + len(layout.near)), np.float32)
        self.codes = np.empty((room, len(item.categorical)), np.int64)
        self.words = np.empty((room, len(layout.same)), np.int32)
        self.put(np.full((1, len(item.numeric)), np.nan, np.float32), np.full((1, len(item.categorical)), "", object))

    def put(self, numeric: Float32, categorical: NDArray[np.object_]) -> NDArray[np.int32]:
        """Encode m items behind the others; their rows (m,). There must be room."""
        own = slice(self.used, self.used + len(numeric))
        encoded = self.layout.item.encode(numeric, categorical)
        d = encoded.dense.shape[1]
        self.numbers[own, :d], self.codes[own] = encoded.dense, encoded.codes
        self.numbers[own, d:] = signed_log(numeric[:, [v for _, v in self.layout.near]])
        for i, ((_, v), known) in enumerate(zip(self.layout.same, self.numbering, strict=True)):
            self.words[own, i] = [known.setdefault(word, len(known)) for word in categorical[:, v]]
        self.used = own.stop
        return np.arange(own.start, own.stop, dtype=np.int32)

    def has_room(self, m: int) -> bool:
        """Whether *m* items more can be put."""
        return self.used + m <= len(self.numbers)

    def copied(self, rows: NDArray[np.int32], room: int) -> Stock:
        """These *rows* (m,) alone, in their order behind the first, with *room* for so many in all."""
        other = Stock(self.layout, room)
        other.numbering, own = self.numbering, slice(1, 1 + len(rows))
        other.numbers[own], other.codes[own], other.words[own] = self.numbers[rows], self.codes[rows], self.words[rows]
        other.used = own.stop
        return other


@dataclass(frozen=True, eq=False)
class ItemTable:
    """All items by key, encoded. *row_of*: (n_items + 1,) int32 row of each key, MISSING for one without; last: any."""

    stock: Stock
    row_of: NDArray[np.int32]

    @classmethod
    def of(cls, layout: Layout, numeric: Float32, categorical: NDArray[np.object_]) -> ItemTable:
        """Of items (n_items, k) float32, NaN where missing, and (n_items, c) str, "" where missing; key is place."""
        stock = Stock(layout, 1 + len(numeric))
        rows = stock.put(np.asarray(numeric, np.float32), categorical)
        return cls(stock, np.append(rows, np.int32(MISSING)))

    @property
    def n_items(self) -> int:
        return len(self.row_of) - 1

    @property
    def numbers(self) -> Float32:
        return self.stock.numbers

    @property
    def codes(self) -> NDArray[np.int64]:
        return self.stock.codes

    @property
    def words(self) -> NDArray[np.int32]:
        return self.stock.words

    def rows_of(self, keys: NDArray[np.integer]) -> NDArray[np.int32]:
        """Row of each key; MISSING for a key beyond the table."""
        last = self.n_items
        return self.row_of[np.where((keys >= 0) & (keys < last), keys, last)]

    def word_codes(self, user_categorical: NDArray[np.object_], same: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
        """(q, same) the shoppers' words, numbered as the items' are; -1 for none, and for one that no item has."""
        codes = np.empty((len(user_categorical), len(same)), np.int32)
        for i, ((u, _), known) in enumerate(zip(same, self.stock.numbering, strict=True)):
            codes[:, i] = [known.get(word, -1) if word else -1 for word in user_categorical[:, u]]
        return codes

    def updated(self, keys: NDArray[np.integer], numeric: Float32, categorical: NDArray[np.object_]) -> ItemTable:
        """The table after the items *keys* (m,), which may be new, became these rows (m, k) and (m, c)."""
        n_items = max(self.n_items, int(keys.max(initial=-1)) + 1)
        row_of = np.full(n_items + 1, MISSING, np.int32)
        row_of[: self.n_items] = self.row_of[:-1]
        stock = self.stock
        if not stock.has_room(len(keys)):
            # Rows that were replaced are left behind.
            current = np.flatnonzero(row_of)
            stock = stock.copied(row_of[current], 1 + len(keys) + len(current) + max(len(current) // 4, 1024))
            row_of[current] = np.arange(1, 1 + len(current))
        row_of[keys] = stock.put(np.asarray(numeric, np.float32), categorical)
        return ItemTable(stock, row_of)
