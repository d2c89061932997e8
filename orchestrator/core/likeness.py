"""
How alike two items are, from what the catalogue says of them: title words, category path, brand, price.

An item is a sparse vector of its weightiest marks, a likeness the cosine of two. Made once when the catalogue is
read, asked row by row for the candidates of one request. Not a model: no training and no artefact, an item that was
added a minute ago is described like any other, and a shop without sources can be spread too (docs/adr/0027).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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
    n = len(titles)
    blocks: dict[str, list[Sequence[str]]] = {
        "text": [tuple(dict.fromkeys(_WORD.findall(title.lower()))) if title else () for title in titles],
        "category": [_beginnings(category) if category else () for category in categories],
        "brand": [(brand,) if brand else () for brand in brands],
        "price": _steps(prices),
    }
    codes: dict[tuple[str, str], int] = {}
    rows: list[NDArray[np.int64]] = []
    tokens: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    for name, documents in blocks.items():
        lengths = np.fromiter((len(document) for document in documents), np.int64, n)
        row = np.repeat(np.arange(n), lengths)
        token = np.fromiter(
            (codes.setdefault((name, one), len(codes)) for document in documents for one in document),
            np.int64,
            int(lengths.sum()),
        )
        rarity = np.log1p(n / np.maximum(np.bincount(token, minlength=len(codes)), 1))[token]
        squared = np.bincount(row, rarity**2, n)
        rows.append(row)
        tokens.append(token)
        weights.append(rarity * np.sqrt(SHARES[name] / squared[row]))
    return _heaviest(n, np.concatenate(rows), np.concatenate(tokens), np.concatenate(weights), max(1, len(codes)))


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
