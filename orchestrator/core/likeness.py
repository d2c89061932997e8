"""
How alike two items are, from what the catalogue says of them: title words, category path, brand, price.

An item is a sparse vector of its weightiest marks, a likeness the cosine of two. Made when the catalogue is read and
again for an item that changes, asked row by row for the candidates of one request. Not a model: no training and no
artefact, an item that was added a minute ago is described like any other, and a shop without sources can be spread too
(docs/adr/0027).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.model import Float32, Int32

MARKS = 16
"""Kept of an item, the rarest. Derived: 128 bytes an item. Online Retail's titles have 4.6 words and 2 price steps;
ten words, a path of three levels, a brand and two price steps fit."""

SHARES = {"text": 0.6, "category": 0.25, "brand": 0.1, "price": 0.05}
"""Shares of an item's squared length; borrowed from services/content_based, which says the same of the same columns."""

PRICE_STEP = float(np.log(2))
"""Derived: items whose prices differ by a factor of two are neighbours, by four strangers."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """
    What n items are made of, one row an item.

    tokens   (n, MARKS) int32 numbers of words, beginnings of paths, brands and steps of price, in [0, n_tokens)
    weights  (n, MARKS) float32, rows of length 1; 0 where an item has fewer marks
    """

    tokens: Int32
    weights: Float32
    n_tokens: int

    def take(self, keys: Int32) -> Marks:
        """The marks of *keys*, in that order."""
        return Marks(self.tokens[keys], self.weights[keys], self.n_tokens)

    def likeness(self, row: int, n: int | None = None) -> Float32:
        """(n,) cosine of the item at *row* with the first *n*, or all: 0 nothing in common, 1 the same."""
        # One item spread out over all tokens turns the many small intersections into one gather. An absent mark is
        # token 0 with weight 0, so adding, not setting, keeps a real token 0.
        wide = np.zeros(self.n_tokens, np.float32)
        np.add.at(wide, self.tokens[row], self.weights[row])
        return np.asarray(np.einsum("ij,ij->i", wide[self.tokens[:n]], self.weights[:n]), np.float32)


def marks_of(
    titles: Sequence[str | None], categories: Sequence[str | None], brands: Sequence[str | None], prices: Float32
) -> Marks:
    """
    Describe items; rows are aligned. Rare marks weigh more: log(1 + n / items that have it), within their block.

    Of what is unknown there are no marks: it makes nothing alike.
    """
    return Descriptions(titles, categories, brands, prices).marks


class Descriptions:
    """
    The marks of a catalogue whose items change: what was counted once describes an item that came later.

    How rare a mark is stays as it was counted; one that nobody had before is as rare as can be. A restart counts anew.
    """

    def __init__(
        self,
        titles: Sequence[str | None],
        categories: Sequence[str | None],
        brands: Sequence[str | None],
        prices: Float32,
    ) -> None:
        """As `marks_of`."""
        self._codes: dict[tuple[str, str], int] = {}
        n = self._n = len(titles)
        rows: list[NDArray[np.int64]] = []
        tokens: list[NDArray[np.int64]] = []
        counted = np.empty(0, np.int64)
        blocks = _blocks(titles, categories, brands, prices)
        for name, documents in blocks.items():
            row, token = self._coded(name, documents)
            rows.append(row)
            tokens.append(token)
        if tokens:
            counted = np.bincount(np.concatenate(tokens), minlength=len(self._codes))
        self._rarity = np.log1p(n / np.maximum(counted, 1))
        self.marks = self._weighed(n, dict(zip(blocks, zip(rows, tokens, strict=True), strict=True)))

    def describe(self, key: int, title: str | None, category: str | None, brand: str | None, price: float) -> None:
        """Give the item at *key*, which may be the next one, these marks instead of those it had."""
        documents = _blocks([title], [category], [brand], np.asarray([price], np.float32))
        found = {name: self._coded(name, one) for name, one in documents.items()}
        new = np.full(len(self._codes) - len(self._rarity), np.log1p(max(self._n, 1)))
        self._rarity = np.concatenate([self._rarity, new]) if len(new) else self._rarity
        one = self._weighed(1, found)
        here = self.marks
        if key >= len(here.tokens):
            # A half more at a time, so that n additions cost n.
            room = max(key + 1, len(here.tokens) * 3 // 2)
            here = Marks(_with_rows(here.tokens, room), _with_rows(here.weights, room), here.n_tokens)
        here.tokens[key], here.weights[key] = one.tokens[0], one.weights[0]
        self.marks = Marks(here.tokens, here.weights, one.n_tokens)

    def _coded(self, name: str, documents: list[Sequence[str]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and number of every mark of a block."""
        lengths = np.fromiter((len(document) for document in documents), np.int64, len(documents))
        codes = self._codes
        token = np.fromiter(
            (codes.setdefault((name, one), len(codes)) for document in documents for one in document),
            np.int64,
            int(lengths.sum()),
        )
        return np.repeat(np.arange(len(documents)), lengths), token

    def _weighed(self, n: int, blocks: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Marks:
        weights: list[NDArray[np.float64]] = []
        for name, (row, token) in blocks.items():
            rarity = self._rarity[token]
            squared = np.bincount(row, rarity**2, n)
            weights.append(rarity * np.sqrt(SHARES[name] / squared[row]))
        rows, tokens = (np.concatenate(part) for part in zip(*blocks.values(), strict=True))
        return _heaviest(n, rows, tokens, np.concatenate(weights), max(1, len(self._codes)))


def _blocks(
    titles: Sequence[str | None], categories: Sequence[str | None], brands: Sequence[str | None], prices: Float32
) -> dict[str, list[Sequence[str]]]:
    """Block → what each item has of it."""
    return {
        "text": [tuple(dict.fromkeys(_WORD.findall(title.lower()))) if title else () for title in titles],
        "category": [_beginnings(category) if category else () for category in categories],
        "brand": [(brand,) if brand else () for brand in brands],
        "price": _steps(prices),
    }


def _heaviest(
    n: int, rows: NDArray[np.int64], tokens: NDArray[np.int64], weights: NDArray[np.float64], n_tokens: int
) -> Marks:
    """The MARKS heaviest of each row, made length 1."""
    order = np.lexsort((tokens, -weights, rows))
    rows, tokens, weights = rows[order], tokens[order], weights[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, np.arange(n))[rows]
    kept = rank < MARKS
    table = Marks(np.zeros((n, MARKS), np.int32), np.zeros((n, MARKS), np.float32), n_tokens)
    table.tokens[rows[kept], rank[kept]] = tokens[kept]
    table.weights[rows[kept], rank[kept]] = weights[kept]
    lengths = np.linalg.norm(table.weights, axis=1, keepdims=True)
    np.divide(table.weights, lengths, out=table.weights, where=lengths > 0)
    return table


def _beginnings(path: str) -> Sequence[str]:
    """Every beginning of a path, so that neighbouring shelves share their parents."""
    levels = path.split(" > ")
    return [" > ".join(levels[: i + 1]) for i in range(len(levels))]


def _steps(prices: Float32) -> list[Sequence[str]]:
    """Two neighbouring steps of log price an item; none where it is unknown or nothing."""
    known = np.isfinite(prices) & (prices > 0)
    step = np.floor(np.log(np.where(known, prices, 1.0)) / PRICE_STEP).astype(int)
    return [(str(s), str(s + 1)) if is_known else () for s, is_known in zip(step.tolist(), known.tolist(), strict=True)]


def _with_rows(table: NDArray[Any], n: int) -> NDArray[Any]:
    """*table* with rows of zeros behind it, *n* in all."""
    larger = np.zeros((n, *table.shape[1:]), table.dtype)
    larger[: len(table)] = table
    return larger
