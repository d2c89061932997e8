"""
Learns what `services/chassis/affinity.py` reads: tables of nearest items, and shoppers to be compared with.

One entry a (shopper, item) pair, its strongest event, halved with age: not the sum, since a wholesaler's fortieth order
of one thing says little about what else to offer (Online Retail, validation window, discovery ndcg@10: item-kNN .069
with sums and .089 with maxima, EASE .096 and .104). The rule: whatever grows with the square of something is bounded,
and the bound says what it costs.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protos.arrays import Float32
from services.chassis.affinity import HALF_LIVES_D, Affinities, Demand, Peers, Table
from services.chassis.signals import DAY_S, STRENGTH, strengths
from services.training import cold
from services.training.dataset import Dataset, Items

K = 100
"""
Items kept that speak for an item, the nearest. Kept by what is spoken for: kept by who speaks, the popular neighbours
crowd everything else out (Online Retail, validation window, discovery ndcg@10 of item-kNN: .073 against .088).
"""

LINEAR_ITEMS = 6_000
"""
Items in the linear model, the most wanted first. Derived: it inverts a dense matrix, 0.3 GB at this size,
and its time grows with the cube. The others have no row and lean on the other methods.
"""

PEERS = 20_000
"""Shoppers to be compared with, the latest first. Derived: 60 items each are 1.2 M entries, 15 MB."""

MOST_PEERS = 200
"""Who has a say. Of 100 and 200 the better on Online Retail's validation window, together with its half-life."""

_MAX_ITEMS_A_ROW = 300
"""
Items of one shopper, or of one session, that are compared with each other, the strongest first: without a bound one
wholesaler with 2,000 items costs as much as all households together.
"""

_SHRINK = 2.0
"""Added to the product of two items' lengths: what two shoppers have in common is little evidence."""

_BASKET_SHRINK = 5.0
"""The same for sessions, of which there are more."""

_LINEAR_RIDGE = 30.0
"""A fresh purchase of both adds 1 to a pair. 30 with a half-life of 60 days was better than 10 with 30 days."""

_HALF_LIVES_D = {"cosine": 60.0, "linear": 60.0, "basket": 180.0, "likeness": 90.0, "wants": 14.0, "trending": 7.0}
"""
Like `affinity.HALF_LIVES_D`, for the events that are learnt from. Trending: the popularity of a week is the one that
Online Retail's reference results name; not compared as a half-life.
"""

_BLOCK = 1024
"""Rows of an item × item product that are dense at once. Derived: 1024 × 50,000 float32 are 200 MB."""

_WORD = re.compile(r"\w\w+")


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    What decides the tables, besides the data. The defaults are the constants above, with their reasons.

    …_d        half-life in days of the events that a table is learnt from
    history_d  method → half-life in days of a shopper's own events, where it is not that of affinity.HALF_LIVES_D
    """

    cosine_d: float = _HALF_LIVES_D["cosine"]
    linear_d: float = _HALF_LIVES_D["linear"]
    basket_d: float = _HALF_LIVES_D["basket"]
    likeness_d: float = _HALF_LIVES_D["likeness"]
    wants_d: float = _HALF_LIVES_D["wants"]
    trending_d: float = _HALF_LIVES_D["trending"]
    shrink: float = _SHRINK
    basket_shrink: float = _BASKET_SHRINK
    linear_ridge: float = _LINEAR_RIDGE
    most_peers: int = MOST_PEERS
    history_d: Mapping[str, float] = field(default_factory=dict)


_RECENT: list[tuple[weakref.ref[Dataset], Parameters, Affinities]] = []
"""Generator and re-ranker are fitted on the very same past, one after the other: the second need not learn it again."""


def learn(dataset: Dataset, parameters: Parameters | None = None) -> Affinities:
    """
    Everything from all events of *dataset*. The last answer is remembered for as long as its dataset lives, and given
    again to who asks with equal *parameters*; None asks with the defaults.

    Raises:
        ValueError: a history half-life of a method that there is not.
    """
    used = parameters or Parameters()
    for known, asked, affinities in _RECENT:
        if known() is dataset and asked == used:
            return affinities
    if strange := set(used.history_d) - set(HALF_LIVES_D):
        raise ValueError(f"history_d names {sorted(strange)}; the methods are {', '.join(HALF_LIVES_D)}")
    shape = (len(dataset.user_ids), dataset.n_items)
    half_lives_d = {name: getattr(used, f"{name}_d") for name in ("cosine", "linear", "likeness", "wants", "trending")}
    wanted = {name: _matrix(dataset, half_life, shape) for name, half_life in half_lives_d.items()}
    text = cosines(texts(dataset.items).T.tocsr(), 0.0)
    behaviour = {
        "cosine": cosines(wanted["cosine"], used.shrink),
        "linear": linear(wanted["linear"], used.linear_ridge),
        "basket": cosines(_sessions(dataset, used.basket_d), used.basket_shrink),
    }
    alike = cold.lookalikes(text, cold.is_cold(dataset))
    tables = {**{name: cold.extended(table, alike) for name, table in behaviour.items()}, "text": text}
    affinities = Affinities(
        tables,
        peers(dataset, wanted["likeness"], wanted["wants"], used.most_peers),
        demand(dataset.items, wanted["trending"]),
        {**HALF_LIVES_D, **used.history_d},
    )
    _RECENT[:] = [(weakref.ref(dataset), used, affinities)]
    return affinities


def cosines(rows: Any, shrink: float) -> Table:
    """
    Cosine between the columns of *rows*, sparse (n, n_items): Σ ab / (|a| |b| + shrink).

    Source: Deshpande and Karypis, TOIS 2004, with the usual shrinkage.
    """
    rows = _bounded(rows)
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(0)).ravel())
    columns = rows.tocsc()

    def block(start: int, end: int) -> Float32:
        product = np.asarray((columns[:, start:end].T @ rows).todense(), np.float32)
        scale = lengths[start:end, None] * lengths[None, :] + shrink
        np.divide(product, scale, out=product, where=product > 0)
        return product

    return _nearest(block, rows.shape[1])


def linear(rows: Any, ridge: float = _LINEAR_RIDGE) -> Table:
    """
    EASE: the ridge regression of each item's column on all others, diagonal zero, in closed form; weights above 0.

    Source: Steck, WWW 2019.
    """
    n_items = rows.shape[1]
    strength = np.asarray(rows.sum(0)).ravel()
    kept = np.sort(np.argsort(-strength, kind="stable")[:LINEAR_ITEMS])
    kept = kept[strength[kept] > 0]
    if not len(kept):
        return Table(np.zeros(n_items + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    own = _bounded(rows[:, kept])
    gram = np.asarray((own.T @ own).todense(), np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    # Row j: what every other item says about item j.
    weights = (-inverse / np.diag(inverse)[:, None]).astype(np.float32)
    near = _nearest(lambda start, end: weights[start:end].copy(), len(kept))
    lengths = np.zeros(n_items, np.int64)
    lengths[kept] = np.diff(near.offsets)
    return Table(np.concatenate([[0], np.cumsum(lengths)]), kept[near.keys].astype(np.int32), near.strengths)


def texts(items: Items) -> Any:
    """
    TF-IDF of each item's title, category and brand, words and pairs of words; CSR (n_items, n_terms), unit rows.

    Descriptions are left out: they are long, and content-based retrieval reads them. Words in only one item bring
    nobody together and are dropped.
    """
    number: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    for row, words in enumerate(zip(items.titles, items.categories, items.brands, strict=True)):
        for part in words:
            found = _WORD.findall(str(part).lower())
            for term in [*found, *(f"{a} {b}" for a, b in pairwise(found))]:
                rows.append(row)
                columns.append(number.setdefault(term, len(number)))
    n = len(items.titles)
    counts = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (n, max(len(number), 1)))
    counts.sum_duplicates()
    documents = np.bincount(counts.indices, minlength=counts.shape[1])
    counts = counts[:, documents > 1].tocsr()
    inverse = 1 + np.log((1 + n) / (1 + documents[documents > 1]))
    counts.data = ((1 + np.log(counts.data)) * inverse[counts.indices]).astype(np.float32)
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(1)).ravel())
    return sparse.diags(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)) @ counts


def peers(dataset: Dataset, likeness: Any, wants: Any, most: int = MOST_PEERS) -> Peers:
    """The latest shoppers; *likeness* and *wants* are (n_shoppers, n_items) with a short and a long memory."""
    latest = np.full(likeness.shape[0], -1, np.int64)
    np.maximum.at(latest, dataset.users, dataset.at_us)
    chosen = np.argsort(-latest, kind="stable")[:PEERS]
    chosen = np.sort(chosen[latest[chosen] >= 0])
    likeness, wants = _bounded(likeness[chosen]), _bounded(wants[chosen])
    found = np.bincount(likeness.indices, minlength=likeness.shape[1])
    rarity = np.log1p(max(len(chosen), 1) / np.maximum(found, 1)).astype(np.float32)
    weighted = likeness @ sparse.diags(rarity)
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    unit = (sparse.diags(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)) @ weighted).tocsc()
    unit.sort_indices()
    wants = wants.tocsr()
    wants.sort_indices()
    return Peers(
        rarity,
        unit.indptr.astype(np.int64),
        unit.indices.astype(np.int32),
        unit.data.astype(np.float32),
        wants.indptr.astype(np.int64),
        wants.indices.astype(np.int32),
        wants.data.astype(np.float32),
        most,
    )


def demand(items: Items, wanted: Any) -> Demand:
    """What all shoppers of *wanted*, sparse (n_shoppers, n_items), want; categories are whole paths."""
    total = np.asarray(wanted.sum(0), np.float32).ravel()
    names, codes = np.unique(items.categories.astype(np.str_), return_inverse=True)
    codes = np.where(names[codes] == "", -1, codes)
    of_category = np.bincount(codes + 1, total, len(names) + 1)[codes + 1]
    share = np.divide(total, of_category, out=np.zeros_like(total), where=(of_category > 0) & (codes >= 0))
    return Demand(total, codes.astype(np.int32), share)


def _matrix(dataset: Dataset, half_life_d: float, shape: tuple[int, int]) -> Any:
    """CSR (n_users, n_items): the strongest decayed event of each pair, scaled so that the strongest kind is 1."""
    value = strengths(dataset.types, dataset.ages_s, half_life_d * DAY_S)
    wanted = STRENGTH[dataset.types] > 0
    value = value / max(float(STRENGTH[dataset.types].max(initial=0.0)), 1e-9)
    return _strongest(dataset.users[wanted], dataset.keys[wanted], value[wanted], shape)


def _sessions(dataset: Dataset, half_life_d: float) -> Any:
    """CSR (n_sessions, n_items) like `_matrix`; where sessions are unknown, a shopper's day is one."""
    numbers = dataset.sessions.astype(np.int64)
    days = dataset.at_us // (86_400 * 1_000_000)
    by_day = dataset.users.astype(np.int64) * (int(days.max(initial=0)) + 1) + days
    unknown = numbers < 0
    if unknown.any():
        _, dense = np.unique(by_day[unknown], return_inverse=True)
        numbers[unknown] = numbers.max(initial=-1) + 1 + dense
    value = strengths(dataset.types, dataset.ages_s, half_life_d * DAY_S)
    wanted = STRENGTH[dataset.types] > 0
    value = np.where(wanted, value / max(float(STRENGTH[dataset.types].max(initial=0.0)), 1e-9), 0)
    shape = (int(numbers.max(initial=-1)) + 1, dataset.n_items)
    return _strongest(numbers[wanted], dataset.keys[wanted], value[wanted], shape)


def _strongest(rows: NDArray[Any], keys: NDArray[Any], values: Float32, shape: tuple[int, int]) -> Any:
    pair = rows.astype(np.int64) * shape[1] + keys
    order = np.lexsort((-values, pair))
    pair = pair[order]
    first = np.ones(len(pair), bool)
    first[1:] = pair[1:] != pair[:-1]
    pair, kept = pair[first], values[order][first]
    matrix = sparse.csr_matrix((kept.astype(np.float32), (pair // shape[1], pair % shape[1])), shape)
    # Too old to count: a weight of nothing would only cost.
    matrix.data[matrix.data < 1e-6] = 0
    matrix.eliminate_zeros()
    return matrix


def _bounded(rows: Any) -> Any:
    """Each row's strongest entries only."""
    rows = rows.tocsr()
    if not len(rows.data) or np.diff(rows.indptr).max() <= _MAX_ITEMS_A_ROW:
        return rows
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, -rows.data, owner))
    kept = order[np.arange(len(order)) - rows.indptr[owner] < _MAX_ITEMS_A_ROW]
    return sparse.csr_matrix((rows.data[kept], (owner[kept], rows.indices[kept])), rows.shape)


def _nearest(block: Callable[[int, int], Float32], n_items: int) -> Table:
    """
    Transposed: *block*(start, end) gives rows of an n_items × n_items matrix, what speaks for each item; the K largest
    positive entries of each are kept.
    """
    speakers, spoken_for, strengths_of = [], [], []
    most = min(K, n_items)
    for start in range(0, n_items, _BLOCK):
        rows = block(start, min(start + _BLOCK, n_items))
        rows[np.arange(len(rows)), start + np.arange(len(rows))] = 0
        top = np.argpartition(-rows, most - 1, axis=1)[:, :most]
        value = np.take_along_axis(rows, top, 1)
        row, place = np.nonzero(value > 0)
        speakers.append(top[row, place])
        spoken_for.append(row + start)
        strengths_of.append(value[row, place])
    cells = (np.concatenate(strengths_of), (np.concatenate(speakers), np.concatenate(spoken_for)))
    table = sparse.csr_matrix(cells, (n_items, n_items))
    table.sort_indices()
    return Table(table.indptr.astype(np.int64), table.indices.astype(np.int32), table.data.astype(np.float32))
