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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from protos.arrays import Float32
from services.chassis.affinity import HALF_LIVES_D, Affinities, Demand, Peers, Table
from services.chassis.signals import DAY_S, STRENGTH, strengths
from services.training import cold, headway
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

_MOST_PAIRS = 500_000_000
"""
Products of two items of a shopper, a session or a word that one table is made of, with several bounds on a row to keep
below it: `_bounded`. Online Retail has 30 M, a synthetic shop of 600,000 events 35 M, one of 2 M events 126 M: none of
them is cut. Of 20 M events the table of one half-life had not ended after 60 s of a core, and a run makes twelve; so a
third or less of that. What a cut costs was not compared; those that stay are what a shopper wanted last and most.
"""

_MOST_PAIRS_OF_WORDS = 2_000_000_000
"""The same for words, which are compared once a run: 40 s."""

_BLOCK_CELLS = 1024 * 50_000
"""Cells of an item × item product that exist at once, at most. Derived: float32 and their columns are 400 MB."""

_BLOCK = 1024
"""Rows of an item × item product that exist at once, at most."""

_WHOLE_ROWS_UP_TO = 5_000
"""
Items up to which the nearest are picked from whole rows, above from what is in them. They differ in who wins a tie for
the last place and in nothing else; whole rows of 100,000 items, nearly all empty, take 30 times as long, and of 10,000
items were a quarter of a fit. Judged: what is published of Online Retail has 4,000.
"""

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


_REMEMBERED_BYTES = 1_500_000_000
"""
Of affinities that are remembered beside the last ones. Derived: four tables of 100 entries an item are 320 MB for
100,000 items, so those of the four windows of a lesson find room.
"""

_RECENT: list[tuple[weakref.ref[Dataset], Parameters, Affinities]] = []
"""
Generator and re-ranker are fitted on the very same pasts, one after the other: the second need not learn them again.
"""

_WORDS: list[tuple[tuple[weakref.ref[Any], ...], Table]] = []
"""The last catalogue's table of words: every past of a shop has the same one, and nothing that happened changes it."""


def learn(dataset: Dataset, parameters: Parameters | None = None) -> Affinities:
    """
    Everything from all events of *dataset*. The last answers are remembered for as long as their datasets live, and
    given again to who asks with equal *parameters*; None asks with the defaults.

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
    pairs = _Pairs.of(dataset, dataset.users, shape)
    # Once for each memory: two methods that forget equally fast read the same.
    by_half_life = {half_life: pairs.strongest(dataset, half_life) for half_life in set(half_lives_d.values())}
    wanted = {name: by_half_life[half_life] for name, half_life in half_lives_d.items()}
    with headway.span(0.1, 0.35):
        text = words(dataset.items)
    behaviour = {}
    with headway.span(0.35, 0.55):
        behaviour["cosine"] = cosines(wanted["cosine"], used.shrink)
    with headway.span(0.55, 0.75):
        behaviour["linear"] = linear(wanted["linear"], used.linear_ridge)
    with headway.span(0.75, 0.95):
        behaviour["basket"] = cosines(_sessions(dataset, used.basket_d), used.basket_shrink)
    alike = cold.lookalikes(text, cold.is_cold(dataset))
    tables = {**{name: cold.extended(table, alike) for name, table in behaviour.items()}, "text": text}
    affinities = Affinities(
        tables,
        peers(dataset, wanted["likeness"], wanted["wants"], used.most_peers),
        demand(dataset.items, wanted["trending"]),
        {**HALF_LIVES_D, **used.history_d},
    )
    _remember(dataset, used, affinities)
    return affinities


def _remember(dataset: Dataset, used: Parameters, affinities: Affinities) -> None:
    """Keep *affinities* as the last ones, and of those before as many as are alive and fit."""
    kept, room = [(weakref.ref(dataset), used, affinities)], _REMEMBERED_BYTES
    for known, asked, one in _RECENT:
        room -= sum(table.offsets.nbytes + table.keys.nbytes + table.strengths.nbytes for table in one.tables.values())
        if known() is not None and room >= 0:
            kept.append((known, asked, one))
    _RECENT[:] = kept


def words(items: Items) -> Table:
    """Which items are alike in words; remembered for as long as the catalogue lives."""
    columns = (items.titles, items.categories, items.brands)
    for known, table in _WORDS:
        if all(ref() is column for ref, column in zip(known, columns, strict=True)):
            return table
    table = cosines(texts(items).T.tocsr(), 0.0, _MOST_PAIRS_OF_WORDS)
    _WORDS[:] = [(tuple(weakref.ref(column) for column in columns), table)]
    return table


def cosines(rows: Any, shrink: float, most_pairs: int | None = None) -> Table:
    """
    Cosine between the columns of *rows*, sparse (n, n_items): Σ ab / (|a| |b| + shrink).

    most_pairs: in place of _MOST_PAIRS.

    Source: Deshpande and Karypis, TOIS 2004, with the usual shrinkage.
    """
    rows = _bounded(rows, most_pairs)
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(0)).ravel())
    columns = rows.tocsc()
    # Products that each item takes part in: an upper bound of what is in its row.
    size = np.diff(rows.indptr)
    products = (
        np.minimum(rows.T @ size.astype(np.float64), rows.shape[1]) if len(rows.data) else np.zeros(rows.shape[1])
    )

    def block(start: int, end: int) -> Any:
        product = (columns[:, start:end].T @ rows).astype(np.float32).tocsr()
        row = np.repeat(np.arange(start, end), np.diff(product.indptr))
        # In this order, which is that of whole rows: the last bit decides ties.
        product.data /= lengths[row] * lengths[product.indices] + shrink
        return product

    return _nearest(block, rows.shape[1], _cuts(products))


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
    gram = (own.T @ own).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = _inverted(gram)
    against = -np.diag(inverse)

    def block(start: int, end: int) -> Any:
        # Row j: what every other item says about item j.
        return (inverse[start:end] / against[start:end, None]).astype(np.float32)

    near = _nearest(block, len(kept), _cuts(np.full(len(kept), len(kept))))
    lengths = np.zeros(n_items, np.int64)
    lengths[kept] = np.diff(near.offsets)
    return Table(np.concatenate([[0], np.cumsum(lengths)]), kept[near.keys].astype(np.int32), near.strengths)


def _inverted(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    The inverse of *gram* (n, n), symmetric and positive definite, in its place.

    By its Cholesky factor: half the products of an inversion that does not know so much, and one matrix in place of
    four. 6,000 items: 17 s and 1.1 GB before.
    """
    factor, failed = lapack.dpotrf(gram.T, lower=1, overwrite_a=1)
    inverse, failed_too = (factor, failed) if failed else lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise np.linalg.LinAlgError(f"the {len(gram)} most wanted items have no inverse; is the ridge above 0?")
    for start in range(0, len(inverse), _BLOCK):
        own = slice(start, start + _BLOCK)
        inverse[own, own.stop :] = inverse[own.stop :, own].T
        corner = np.tril(inverse[own, own], -1)
        inverse[own, own] = corner + corner.T + np.diag(np.diag(inverse)[own])
    return np.asarray(inverse, np.float64)


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


@dataclass(frozen=True, slots=True)
class _Pairs:
    """
    Who wanted what, each (row, item) pair once: sorted once, to be weighed by any half-life.

    events  (n,) int64 of the dataset, by pair; starts (m,) int64 first event of each; pairs (m,) int64
    """

    events: NDArray[np.int64]
    starts: NDArray[np.int64]
    pairs: NDArray[np.int64]
    shape: tuple[int, int]

    @classmethod
    def of(cls, dataset: Dataset, rows: NDArray[Any], shape: tuple[int, int]) -> _Pairs:
        """Of *rows* (n,), the shopper or session of every event; what is no sign of wanting is left out."""
        events = np.flatnonzero(STRENGTH[dataset.types] > 0)
        pair = rows[events].astype(np.int64) * shape[1] + dataset.keys[events]
        order = np.argsort(pair, kind="stable")
        pair, events = pair[order], events[order]
        starts = np.flatnonzero(np.diff(pair, prepend=-1))
        return cls(events, starts, pair[starts], shape)

    def strongest(self, dataset: Dataset, half_life_d: float) -> Any:
        """CSR: the strongest decayed event of each pair, scaled so that the strongest kind is 1."""
        value = strengths(dataset.types, dataset.ages_s, half_life_d * DAY_S)
        value = value / max(float(STRENGTH[dataset.types].max(initial=0.0)), 1e-9)
        kept = np.maximum.reduceat(value[self.events], self.starts) if len(self.starts) else np.empty(0, np.float32)
        # Too old to count: a weight of nothing would only cost.
        counts = kept >= np.float32(1e-6)
        cells = (self.pairs[counts] // self.shape[1], self.pairs[counts] % self.shape[1])
        return sparse.csr_matrix((kept[counts].astype(np.float32), cells), self.shape)


def _sessions(dataset: Dataset, half_life_d: float) -> Any:
    """CSR (n_sessions, n_items), the strongest decayed events; where sessions are unknown, a shopper's day is one."""
    numbers = dataset.sessions.astype(np.int64)
    days = dataset.at_us // (86_400 * 1_000_000)
    by_day = dataset.users.astype(np.int64) * (int(days.max(initial=0)) + 1) + days
    unknown = numbers < 0
    if unknown.any():
        _, dense = np.unique(by_day[unknown], return_inverse=True)
        numbers[unknown] = numbers.max(initial=-1) + 1 + dense
    shape = (int(numbers.max(initial=-1)) + 1, dataset.n_items)
    return _Pairs.of(dataset, numbers, shape).strongest(dataset, half_life_d)


def _bounded(rows: Any, most_pairs: int | None = None) -> Any:
    """Each row's strongest entries only, as many as keep the pairs of them below *most_pairs* (_MOST_PAIRS) in all."""
    most_pairs = _MOST_PAIRS if most_pairs is None else most_pairs
    rows = rows.tocsr()
    sizes = np.diff(rows.indptr).astype(np.int64)
    most = _MAX_ITEMS_A_ROW
    while most > 1 and int((np.minimum(sizes, most) ** 2).sum()) > most_pairs:
        most = most * 9 // 10
    if not len(rows.data) or sizes.max() <= most:
        return rows
    owner = np.repeat(np.arange(rows.shape[0]), sizes)
    order = np.lexsort((rows.indices, -rows.data, owner))
    kept = order[np.arange(len(order)) - rows.indptr[owner] < most]
    return sparse.csr_matrix((rows.data[kept], (owner[kept], rows.indices[kept])), rows.shape)


def _cuts(cells: NDArray[Any]) -> list[int]:
    """Where to cut rows of so many *cells* (n,) into blocks that fit: from 0 to n, rising."""
    before = np.concatenate([[0], np.cumsum(cells)])
    cuts = [0]
    while cuts[-1] < len(cells):
        start = cuts[-1]
        fitting = int(np.searchsorted(before, before[start] + _BLOCK_CELLS, "right")) - 1
        cuts.append(min(max(fitting, start + 1), start + _BLOCK, len(cells)))
    return cuts


def _nearest(block: Callable[[int, int], Any], n_items: int, cuts: Sequence[int]) -> Table:
    """
    Transposed: *block*(start, end) gives rows of an n_items × n_items matrix, what speaks for each item, sparse or not;
    the K largest positive entries of each are kept.
    """
    found = []
    for start, end in pairwise(cuts):
        found.append(_largest(block(start, end), start, n_items))
        headway.told(end, n_items)
    speakers, spoken_for, values = (np.concatenate([part[i] for part in found]) for i in range(3))
    table = sparse.csr_matrix((values, (speakers, spoken_for)), (n_items, n_items))
    table.sort_indices()
    return Table(table.indptr.astype(np.int64), table.indices.astype(np.int32), table.data.astype(np.float32))


def _largest(rows: Any, start: int, n_items: int) -> tuple[NDArray[Any], NDArray[Any], Float32]:
    """Columns, rows (counted from *start* on) and values of the K largest positive entries off the diagonal."""
    if sparse.issparse(rows):
        if n_items > _WHOLE_ROWS_UP_TO:
            return _largest_of_few(rows, start)
        rows = rows.toarray()
    rows[np.arange(len(rows)), start + np.arange(len(rows))] = 0
    most = min(K, n_items)
    top = np.argpartition(-rows, most - 1, axis=1)[:, :most]
    value = np.take_along_axis(rows, top, 1)
    row, place = np.nonzero(value > 0)
    return top[row, place], row + start, value[row, place]


def _largest_of_few(rows: Any, start: int) -> tuple[NDArray[Any], NDArray[Any], Float32]:
    """`_largest` among the entries that there are, ties to the smaller key."""
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    counts = (rows.data > 0) & (rows.indices != row + start)
    row, column, value = row[counts], rows.indices[counts], rows.data[counts]
    sizes = np.bincount(row, minlength=rows.shape[0])
    ends = np.cumsum(sizes)
    kept = np.ones(len(row), np.bool_)
    for i in np.flatnonzero(sizes > K).tolist():
        own = slice(ends[i] - sizes[i], ends[i])
        least = np.partition(value[own], -K)[-K]
        keeps = value[own] > least
        ties = np.flatnonzero(value[own] == least)
        keeps[ties[np.argsort(column[own][ties], kind="stable")[: K - int(keeps.sum())]]] = True
        kept[own] = keeps
    return column[kept], row[kept] + start, value[kept]
