"""
The methods the system is compared with: what each is, what of it is tuned, and when it is too big to be run.

The rule: a method gets the past and nothing else (past.py), and one that is left out is named with its reason. Limits
are counted in work before it is done, so that the same data always gives the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from services.chassis.signals import POSITIVE_TYPES, STRENGTH
from services.training import baselines, popular, visits
from services.training.baselines import EASE_LIMIT, Interactions, Scorer
from services.training.dataset import Dataset

MOST_PRODUCTS = 3_000_000_000
"""Multiplications a neighbour method may need. Measured: 10⁹ over 50,000 items in 210 s on two busy cores, 0.6 GB."""

MOST_ITEMS = 100_000
"""Items that are compared with one another, a block of rows at a time: four times the cells of the above."""

MOST_TUNED = 1_000_000_000
"""Cells and products of one fit up to which methods are tuned; beyond, a fit takes minutes and every setting would."""

MOST_FACTOR_BYTES = 2_000_000_000

HALF_LIVES = (30.0, 60.0, 14.0, None)
"""Days; None is no decay. Borrowed: the reference protocol found its best between 7 and 90."""


@dataclass(frozen=True)
class Past:
    """The past as methods want it; everything is computed when somebody asks for it, once."""

    dataset: Dataset
    seed: int = 7

    @cached_property
    def interactions(self) -> Interactions:
        """Every event that says a shopper wants something."""
        usable = np.isin(self.dataset.types, POSITIVE_TYPES)
        return Interactions(
            users=self.dataset.users[usable].astype(np.int64),
            items=self.dataset.keys[usable].astype(np.int64),
            weights=STRENGTH[self.dataset.types[usable]],
            at_us=self.dataset.at_us[usable],
            n_users=len(self.dataset.user_ids),
            n_items=self.dataset.n_items,
            now_us=self.dataset.until_us,
        )

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Users and items of every distinct (user, item) pair."""
        found = np.unique(self.interactions.users * self.dataset.n_items + self.interactions.items)
        return found // self.dataset.n_items, found % self.dataset.n_items

    @cached_property
    def holders(self) -> NDArray[np.int64]:
        """(n_items,) shoppers who had each item."""
        return np.bincount(self.pairs[1], minlength=self.dataset.n_items)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(n_users,) events of each shopper that say something."""
        return np.bincount(self.interactions.users, minlength=len(self.dataset.user_ids))

    @cached_property
    def texts(self) -> list[str]:
        """Title and category of each item; empty where the catalogue says nothing."""
        items = self.dataset.items
        return [f"{t} {c}".strip() for t, c in zip(items.titles, items.categories, strict=True)]

    @cached_property
    def lately(self) -> NDArray[np.float64]:
        """(n_items,) recent popularity: what stands behind whatever a method knows nothing about."""
        keys, scores = popular.ranking(self.dataset, popular.Parameters().half_life_days)
        order = np.empty(self.dataset.n_items)
        order[keys] = scores.astype(np.float64) + np.arange(len(keys), 0, -1) * 1e-9
        return order

    @cached_property
    def _visits(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the events that say something, and the visit of each."""
        events = np.flatnonzero(np.isin(self.dataset.types, POSITIVE_TYPES))
        return events, visits.number(self.dataset, events)

    @cached_property
    def visits(self) -> NDArray[np.int64]:
        """(n_users,) visits of each shopper."""
        events, visit = self._visits
        first = np.unique(visit, return_index=True)[1]
        return np.bincount(self.dataset.users[events[first]], minlength=len(self.dataset.user_ids))

    @cached_property
    def products(self) -> int:
        """Products of items that one shopper had: the work of comparing items."""
        return int((np.bincount(self.pairs[0]).astype(np.int64) ** 2).sum()) if len(self.pairs[0]) else 0

    @property
    def may_be_tuned(self) -> bool:
        """Whether fitting a dozen times is a matter of a minute."""
        return self.dataset.n_items**2 + self.products <= MOST_TUNED

    def baskets(self) -> Any:
        """CSR (visits, n_items) of what was wanted together in one visit."""
        events, visit = self._visits
        cells = np.unique(visit * self.dataset.n_items + self.dataset.keys[events])
        rows, columns = cells // self.dataset.n_items, cells % self.dataset.n_items
        shape = (int(visit.max(initial=-1)) + 1, self.dataset.n_items)
        return sparse.csr_matrix((np.ones(len(cells), np.float32), (rows, columns)), shape)


@dataclass(frozen=True, slots=True)
class Method:
    """
    One baseline for the home page.

    fit      past, settings → scorer
    axes     setting → values to try, the default first
    refuses  past → why it is too big or cannot be run, or None
    """

    name: str
    fit: Callable[..., Scorer]
    axes: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    refuses: Callable[[Past], str | None] = lambda past: None


def _popularity(past: Past) -> Scorer:
    return baselines.popularity(past.interactions)


def _recent(past: Past) -> Scorer:
    return baselines.recent_popularity(past.interactions)


def _last_rung(past: Past) -> Scorer:
    row = past.lately.astype(np.float32)
    return lambda users: np.tile(row, (len(users), 1))


def _content(past: Past, **settings: Any) -> Scorer:
    return baselines.content(past.interactions, past.texts, **settings)


def _of_interactions(fit: Callable[..., Scorer], past: Past, **settings: Any) -> Scorer:
    return fit(past.interactions, **settings)


def _ials(past: Past, **settings: Any) -> Scorer:
    return baselines.ials(past.interactions, seed=past.seed, **settings)


def _no_inverse(past: Past) -> str | None:
    if past.dataset.n_items <= EASE_LIMIT:
        return None
    return f"inverts a matrix of items × items: {past.dataset.n_items:,} items, at most {EASE_LIMIT:,}"


def many_items(past: Past) -> str | None:
    """Why items cannot be compared with one another here, or None."""
    if past.dataset.n_items > MOST_ITEMS:
        return f"compares items with one another: {past.dataset.n_items:,} items, at most {MOST_ITEMS:,}"
    if past.products <= MOST_PRODUCTS:
        return None
    return f"needs {past.products:.2g} products of items that one shopper had, at most {MOST_PRODUCTS:.0g}"


def _many_neighbours(past: Past) -> str | None:
    needed = int((past.holders**2).sum())
    if needed <= MOST_PRODUCTS:
        return None
    return f"needs {needed:.2g} products of shoppers who had the same item, at most {MOST_PRODUCTS:.0g}"


def _no_texts(past: Past) -> str | None:
    if not any(past.texts):
        return "the catalogue has neither titles nor categories"
    return None


def _no_implicit(past: Past) -> str | None:
    try:
        import implicit.cpu.als  # noqa: F401  # whether it can be used is the question
    except ImportError as missing:
        return f"the package `implicit` cannot be used here ({missing})"
    size = 4 * 64 * (len(past.dataset.user_ids) + past.dataset.n_items)
    return None if size <= MOST_FACTOR_BYTES else f"its factors take {size:,} bytes, at most {MOST_FACTOR_BYTES:,}"


FOR_EVERYBODY = (
    Method("popularity", _popularity),
    Method("recent popularity", _recent),
    Method("popular (the last rung)", _last_rung),
)
"""The same list for all: what somebody without a past can be compared with."""

PERSONAL = (
    Method(
        "item-kNN",
        partial(_of_interactions, baselines.item_knn),
        {"half_life_days": HALF_LIVES, "shrink": (2.0, 0.5, 10.0), "neighbours": (50, 200)},
        many_items,
    ),
    Method(
        "user-kNN",
        partial(_of_interactions, baselines.user_knn),
        {
            "half_life_days": HALF_LIVES,
            "taste_half_life_days": (30.0, 60.0, None),
            "neighbours": (100, 50, 200),
            "power": (1.0, 2.0),
        },
        _many_neighbours,
    ),
    Method(
        "EASE",
        partial(_of_interactions, baselines.ease),
        {"half_life_days": HALF_LIVES, "l2": (30.0, 5.0, 100.0)},
        _no_inverse,
    ),
    Method(
        "iALS (implicit)",
        _ials,
        {
            "half_life_days": (None, 30.0, 60.0, 90.0),
            "factors": (64, 32, 128),
            "l2": (1.0, 0.1, 10.0, 30.0),
            "alpha": (10.0, 3.0, 40.0),
        },
        _no_implicit,
    ),
    Method("content (TF-IDF)", _content, {"half_life_days": (60.0, 30.0, 14.0, None)}, _no_texts),
    Method("repeat", partial(_of_interactions, baselines.repeat), {"half_life_days": (60.0, 30.0, 14.0, 120.0)}),
)
"""What knows the shopper's past."""
