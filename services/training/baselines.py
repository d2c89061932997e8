"""
The simple methods every model must beat: popularity, item-kNN, user-kNN, EASE, iALS, content, repeat, co-occurrence.

Rule: one shape. `fit` functions take `Interactions` and return a scorer that gives a score for every item of a batch
of users; higher is better, 0 means nothing known. Seconds on two cores, and no array of users × items: whatever is that
large is sparse or made for one batch. iALS alone draws by chance, from a seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

DAY_US = 86_400_000_000

Scorer = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""(q,) users → (q, n_items) float32 scores, a fresh array that the caller may change."""

ContextScorer = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Offsets (q + 1,) and keys (n,) of the items looked at → (q, n_items) float32 scores, a fresh array."""

EASE_LIMIT = 12_000
"""
Items above which EASE is refused. Derived: it inverts a dense float64 matrix of items × items, 1.15 GB at this
size.
"""

_CELLS_AT_ONCE = 16_000_000
"""Similarities between items, or between shoppers, held at once: 64 MB."""

_WORD = re.compile(r"\w\w+")


@dataclass(frozen=True, slots=True)
class Interactions:
    """
    Events as parallel arrays, in any order.

    users    (n,) int64 in [0, n_users)
    items    (n,) int64 in [0, n_items)
    weights  (n,) float32 > 0, what an event of its type is worth
    at_us    (n,) int64 microseconds since the epoch, all before now_us
    now_us   the moment for which recommendations are made; decay counts back from here
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    weights: NDArray[np.float32]
    at_us: NDArray[np.int64]
    n_users: int
    n_items: int
    now_us: int

    def __len__(self) -> int:
        return len(self.users)

    def ages_days(self) -> NDArray[np.float64]:
        """Days from each event to now_us, (n,)."""
        return np.asarray((self.now_us - self.at_us) / DAY_US, np.float64)

    def only(self, keep: NDArray[np.bool_]) -> Interactions:
        """The events where *keep* (n,) holds; users, items and the moment stay."""
        return replace(
            self, users=self.users[keep], items=self.items[keep], weights=self.weights[keep], at_us=self.at_us[keep]
        )

    def matrix(self, half_life_days: float | None = None) -> Any:
        """
        CSR (n_users, n_items) float32: the strongest event of each pair, weights scaled so that the largest is 1.

        With a half life an event counts 2^(−age / half life). Not the sum: a wholesaler's fortieth order of one thing
        says little about what else to offer. Measured on Online Retail's validation window (discovery ndcg@10):
        item-kNN 0.069 with sums, 0.089 with maxima; EASE 0.096 and 0.104.
        """
        value = self.weights.astype(np.float64) / max(float(self.weights.max(initial=0.0)), 1e-9)
        if half_life_days is not None:
            value = value * np.exp2(-self.ages_days() / half_life_days)
        pair = self.users * self.n_items + self.items
        order = np.lexsort((-value, pair))
        first = np.ones(len(order), bool)
        first[1:] = pair[order][1:] != pair[order][:-1]
        kept = order[first]
        cells = sparse.csr_matrix((value[kept], (self.users[kept], self.items[kept])), (self.n_users, self.n_items))
        return cells.astype(np.float32)


def popularity(events: Interactions) -> Scorer:
    """Total weight of each item, the same for everybody."""
    return _for_everybody(np.bincount(events.items, events.weights, events.n_items))


def recent_popularity(events: Interactions, days: float = 7.0) -> Scorer:
    """Weight of each item in the last *days* days; ties and the rest follow all-time popularity."""
    recent = events.only(events.ages_days() <= days)
    total = np.bincount(events.items, events.weights, events.n_items)
    last = np.bincount(recent.items, recent.weights, events.n_items)
    return _for_everybody(last + 1e-6 * total)


def item_knn(
    events: Interactions,
    half_life_days: float | None = 30.0,
    neighbours: int = 50,
    shrink: float = 2.0,
) -> Scorer:
    """
    Cosine between item columns with shrinkage, the nearest *neighbours* kept; score = similarities summed over the
    history.

    Args:
        half_life_days: of the history that is scored with and of the columns; None for no decay.
        shrink: added to the product of norms; damps similarities of items with little evidence.
    """
    history = events.matrix(half_life_days)
    similar = similar_items(history, neighbours, shrink)
    return lambda users: np.asarray((history[users] @ similar.T).toarray(), np.float32)


def similar_items(rows: Any, neighbours: int, shrink: float) -> Any:
    """
    CSR (n_items, n_items): cosine between the columns of *rows* (n, n_items), the nearest *neighbours* of each item.

    In dense blocks of items: a popular item meets nearly all others, and picking the largest of a dense row is quicker
    than sorting a sparse one.
    """
    columns, n_items = rows.T.tocsr(), rows.shape[1]
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=0)).ravel()).astype(np.float32)
    step, keep = max(1, _CELLS_AT_ONCE // max(n_items, 1)), min(neighbours, n_items)
    blocks = []
    for start in range(0, n_items, step):
        cosine = np.asarray((columns[start : start + step] @ rows).toarray(), np.float32)
        own = np.arange(len(cosine))
        cosine /= norms[start : start + step, None] * norms[None, :] + max(shrink, 1e-12)
        cosine[own, start + own] = 0.0
        near = np.argpartition(-cosine, keep - 1, axis=1)[:, :keep]
        offsets = np.arange(0, near.size + 1, keep)
        values = np.take_along_axis(cosine, near, axis=1)
        block = sparse.csr_matrix((values.ravel(), near.ravel(), offsets), (len(cosine), n_items))
        block.eliminate_zeros()
        blocks.append(block)
    return sparse.vstack(blocks).tocsr()


def user_knn(
    events: Interactions,
    half_life_days: float | None = 30.0,
    neighbours: int = 100,
    taste_half_life_days: float | None = None,
    power: float = 1.0,
) -> Scorer:
    """
    What the nearest shoppers had: cosine between shoppers' rows, the *neighbours* largest, times what those had.

    Args:
        half_life_days: of what neighbours had, so that what they want lately counts.
        taste_half_life_days: of the rows that are compared; None compares whole pasts.
        power: of the similarity; above 1 the nearest count more.
    """
    history, taste = events.matrix(half_life_days), events.matrix(taste_half_life_days)
    norms = np.sqrt(np.asarray(taste.multiply(taste).sum(axis=1)).ravel())
    unit = sparse.diags(np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)) @ taste
    unit = unit.tocsr().astype(np.float32)
    across, keep = unit.T.tocsr(), min(neighbours, events.n_users)

    def near(users: NDArray[np.int64]) -> Any:
        cosine = (unit[users] @ across).toarray()
        # Oneself is no neighbour.
        cosine[np.arange(len(users)), users] = 0.0
        columns = np.argpartition(-cosine, keep - 1, axis=1)[:, :keep]
        values = np.take_along_axis(cosine, columns, axis=1) ** power
        offsets = np.arange(0, columns.size + 1, keep)
        return sparse.csr_matrix((values.ravel(), columns.ravel(), offsets), (len(users), events.n_users))

    def score(users: NDArray[np.int64]) -> NDArray[np.float32]:
        step = max(1, _CELLS_AT_ONCE // max(events.n_users, 1))
        parts = [near(users[i : i + step]) @ history for i in range(0, len(users), step)]
        return np.asarray(sparse.vstack(parts).toarray(), np.float32)

    return score


def co_occurrence(baskets: Any, neighbours: int = 100, shrink: float = 5.0) -> ContextScorer:
    """What was wanted together with a context: cosine between items over *baskets* (n, n_items) CSR, summed."""
    similar = similar_items(baskets, neighbours, shrink)
    return lambda offsets, keys: np.asarray((_shown(offsets, keys, similar.shape[0]) @ similar).toarray(), np.float32)


def alike(texts: Sequence[str]) -> ContextScorer:
    """What is called like the items of a context: cosine of TF-IDF, summed."""
    vectors = tfidf(texts)
    return lambda offsets, keys: np.asarray(
        (_shown(offsets, keys, len(texts)) @ vectors @ vectors.T).toarray(), np.float32
    )


def _shown(offsets: NDArray[np.int64], keys: NDArray[np.int64], n_items: int) -> Any:
    return sparse.csr_matrix((np.ones(len(keys), np.float32), keys, offsets), (len(offsets) - 1, n_items))


def ease(events: Interactions, half_life_days: float | None = 30.0, l2: float = 30.0) -> Scorer:
    """
    EASE (Steck, WWW 2019): the linear item-to-item model with zero diagonal, in closed form.

    Args:
        half_life_days: None for the paper's model; otherwise rows are decayed in training and in scoring.
        l2: ridge on the diagonal; a user with two fresh purchases adds 1 to a pair of items.

    Raises:
        ValueError: more than EASE_LIMIT items.
    """
    if events.n_items > EASE_LIMIT:
        raise ValueError(
            f"EASE inverts an items × items matrix: {events.n_items} items, at most {EASE_LIMIT}; use item_knn"
        )
    history = events.matrix(half_life_days)
    gram = np.asarray((history.T @ history).toarray(), np.float64)
    gram[np.diag_indices_from(gram)] += l2
    inverse = np.linalg.inv(gram)
    coefficients = (-inverse / np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(coefficients, 0.0)
    return lambda users: np.asarray(history[users] @ coefficients, np.float32)


def ials(
    events: Interactions,
    half_life_days: float | None = None,
    factors: int = 64,
    l2: float = 1.0,
    alpha: float = 10.0,
    iterations: int = 15,
    seed: int = 7,
) -> Scorer:
    """
    Implicit ALS (Hu, Koren and Volinsky, ICDM 2008), by the package `implicit`: the usual single model to beat.

    Args:
        half_life_days: None for the paper's model; otherwise confidences are decayed.
        alpha: confidence of a cell of strength 1, against 1 for a cell without an event.

    Raises:
        ImportError: `implicit` is not installed.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    history = events.matrix(half_life_days)
    # Its own threads go over users; BLAS threads inside them only wait for each other.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors, regularization=l2, alpha=alpha, iterations=iterations, random_state=seed
        )
        model.fit(history, show_progress=False)
    users, items = np.asarray(model.user_factors, np.float32), np.asarray(model.item_factors, np.float32)
    return lambda rows: users[rows] @ items.T


def content(events: Interactions, texts: Sequence[str], half_life_days: float | None = 60.0) -> Scorer:
    """Cosine between TF-IDF of each item's text (words and word pairs) and the decayed mean of a user's items."""
    vectors = tfidf(texts)
    history = events.matrix(half_life_days)
    return lambda users: np.asarray((history[users] @ vectors @ vectors.T).toarray(), np.float32)


def tfidf(texts: Sequence[str]) -> Any:
    """
    CSR (n_texts, n_terms) float32 of words and word pairs, rows of length 1.

    A term weighs (1 + ln count) · (1 + ln((1 + n) / (1 + df))), as in scikit-learn with sublinear counts.

    A text without words is an empty row. Terms are numbered in the order in which they first occur.
    """
    number: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    for row, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        for term in [*words, *(f"{a} {b}" for a, b in pairwise(words))]:
            rows.append(row)
            columns.append(number.setdefault(term, len(number)))
    counts = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(texts), max(len(number), 1)))
    counts.sum_duplicates()
    documents = np.bincount(counts.indices, minlength=counts.shape[1])
    inverse = 1 + np.log((1 + len(texts)) / (1 + documents))
    counts.data = (1 + np.log(counts.data)) * inverse[counts.indices]
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    counts.data /= np.repeat(lengths, np.diff(counts.indptr))
    return counts.astype(np.float32)


def repeat(events: Interactions, half_life_days: float = 60.0) -> Scorer:
    """What this user had before, by decayed weight; popularity breaks ties and fills up."""
    history = events.matrix(half_life_days)
    total = np.bincount(events.items, events.weights, events.n_items)
    fill = (1e-6 * total / max(float(total.max(initial=0.0)), 1.0)).astype(np.float32)
    return lambda users: np.asarray(history[users].toarray() + fill, np.float32)


def _for_everybody(scores: NDArray[Any]) -> Scorer:
    row = scores.astype(np.float32)
    return lambda users: np.tile(row, (len(users), 1))
