"""
What is judged: who is asked for, on which page, and what they went on to want in the window.

The rule: one task, one objective, the same for every method. A query holds only what was known when the window began,
or what the page itself shows (the item, the basket, the category); the truth holds only what came after.

    discovery  home: things the shopper had never touched         rebuy     home: anything the shopper wanted
    newcomers  home: shoppers without any past                     item      the rest of a visit, from its first item
    cart       the other half of a basket                          category  a shopper's own choice inside a category
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Rows
from services.chassis.signals import BASKET_TYPES, POSITIVE_TYPES
from services.training import visits
from services.training.dataset import Dataset
from services.training.split import Truth, Window, truth

MOST = 5_000
"""Queries a task judges at most, drawn by seed: 95 % intervals of ndcg@10 are then about ±.007 wide (measured)."""

_STEP = " > "
"""Between the steps of a category path, as in canonical data."""


@dataclass(frozen=True, slots=True)
class Task:
    """
    q queries and their truth; keys and users are rows of the dataset the task was made from.

    users       (q,) int64
    truth       q rows, none empty
    gone        q rows: may not count, because the task removes them or the page shows them
    context     q rows: the page's item, or what is in the basket
    categories  q paths on `category`, otherwise empty
    """

    name: str
    objective: str
    placement: str
    users: NDArray[np.int64]
    truth: Rows
    gone: Rows
    context: Rows
    categories: tuple[str, ...] = ()
    exclude_seen: bool = False

    def __len__(self) -> int:
        return len(self.users)

    def only(self, rows: NDArray[np.int64]) -> Task:
        """The queries at *rows*, in that order."""
        return replace(
            self,
            users=self.users[rows],
            truth=_take(self.truth, rows),
            gone=_take(self.gone, rows),
            context=_take(self.context, rows),
            categories=tuple(self.categories[i] for i in rows) if self.categories else (),
        )


@dataclass(frozen=True, slots=True)
class Tasks:
    """What can be judged in this data, and what cannot, by name with the reason."""

    judged: tuple[Task, ...]
    left_out: dict[str, str]


def home(dataset: Dataset, window: Window, seed: int, most: int = MOST) -> tuple[Task, Task]:
    """Discovery and re-buy for shoppers with an event before the window and one in it, drawn alike for both."""
    known = truth(dataset, window)
    return _discovery(known, seed, most), _rebuy(known, seed, most)


def tasks(dataset: Dataset, window: Window, seed: int, most: int = MOST) -> Tasks:
    """Every task that has a query in *window*."""
    makers: dict[str, Callable[[], Task | str]] = {
        "newcomers": lambda: _newcomers(dataset, window),
        "item": lambda: _item(dataset, window, seed),
        "cart": lambda: _cart(dataset, window, seed),
        "category": lambda: _category(dataset, window),
    }
    judged, left_out = [], {}
    for task in home(dataset, window, seed, most):
        if len(task):
            judged.append(task)
        else:
            left_out[task.name] = "nobody with a past wanted anything in the window that this task counts"
    for name, make in makers.items():
        match make():
            case str(reason):
                left_out[name] = reason
            case Task() as task if not len(task):
                left_out[name] = "no query of this kind in the window"
            case Task() as task:
                judged.append(_sampled(task, seed, most))
    return Tasks(tuple(judged), left_out)


def _discovery(known: Truth, seed: int, most: int) -> Task:
    rows = np.array([i for i, keys in enumerate(known.discovery) if len(keys)], np.int64)
    task = Task(
        name="discovery",
        objective="what a known shopper wanted and had never touched; touched items are removed from every list",
        placement="home",
        users=known.users[rows],
        truth=Rows.of([known.discovery[i] for i in rows]),
        gone=Rows.of([known.touched[i] for i in rows]),
        context=Rows.empty(len(rows)),
        exclude_seen=True,
    )
    return _sampled(task, seed, most)


def _rebuy(known: Truth, seed: int, most: int) -> Task:
    task = Task(
        name="rebuy",
        objective="everything a known shopper wanted; nothing is removed",
        placement="home",
        users=known.users,
        truth=Rows.of(known.rebuy),
        gone=Rows.empty(len(known.users)),
        context=Rows.empty(len(known.users)),
    )
    return _sampled(task, seed, most)


def _newcomers(dataset: Dataset, window: Window) -> Task:
    seen_before = np.unique(dataset.users[dataset.at_us < window.start_us])
    wanted = _wanted(dataset, window, POSITIVE_TYPES)
    fresh = wanted[~np.isin(dataset.users[wanted], seen_before)]
    users, rows = _keys_of(dataset, dataset.users[fresh].astype(np.int64), fresh)
    return Task(
        name="newcomers",
        objective="what a shopper without any past wanted",
        placement="home",
        users=users,
        truth=rows,
        gone=Rows.empty(len(users)),
        context=Rows.empty(len(users)),
    )


def _item(dataset: Dataset, window: Window, seed: int) -> Task:
    """The first visit of each shopper that goes on from its first item."""
    parts = _first_visits(dataset, window, POSITIVE_TYPES, seed, lambda n: 1)
    return Task(
        name="item",
        objective="what else was wanted in a visit, from its first item; that item is removed",
        placement="item",
        users=np.array([user for user, _, _ in parts], np.int64),
        truth=Rows.of([rest for _, _, rest in parts]),
        gone=Rows.of([known for _, known, _ in parts]),
        context=Rows.of([known for _, known, _ in parts]),
    )


def _cart(dataset: Dataset, window: Window, seed: int) -> Task | str:
    """The first basket of each shopper with two items or more, half of it shown."""
    if not len(_wanted(dataset, window, BASKET_TYPES)):
        return "no basket: the window has neither add_to_cart nor purchase events"
    parts = _first_visits(dataset, window, BASKET_TYPES, seed, lambda n: n // 2)
    return Task(
        name="cart",
        objective="the other half of a basket, from its first half; what is in the basket is removed",
        placement="cart",
        users=np.array([user for user, _, _ in parts], np.int64),
        truth=Rows.of([rest for _, _, rest in parts]),
        gone=Rows.of([known for _, known, _ in parts]),
        context=Rows.of([known for _, known, _ in parts]),
    )


def _category(dataset: Dataset, window: Window) -> Task | str:
    """Each shopper on the page of the category their first wanted item of the window is in."""
    paths = dataset.items.categories
    wanted = _wanted(dataset, window, POSITIVE_TYPES)
    wanted = wanted[paths[dataset.keys[wanted]] != ""]
    if not len(wanted):
        return "no item wanted in the window has a category"
    users, first = np.unique(dataset.users[wanted], return_index=True)
    chosen = dict(zip(users.tolist(), paths[dataset.keys[wanted[first]]].tolist(), strict=True))
    own = np.array([chosen[u] for u in dataset.users[wanted].tolist()], object)
    is_inside = np.array([inside(p, c) for p, c in zip(paths[dataset.keys[wanted]], own, strict=True)], bool)
    kept = wanted[is_inside]
    users, rows = _keys_of(dataset, dataset.users[kept].astype(np.int64), kept)
    return Task(
        name="category",
        objective="what a shopper wanted inside a category, on its page",
        placement="category",
        users=users,
        truth=rows,
        gone=Rows.empty(len(users)),
        context=Rows.empty(len(users)),
        categories=tuple(chosen[u] for u in users.tolist()),
    )


def inside(path: str, category: str) -> bool:
    """Whether an item's category *path* is *category* or below it."""
    return path == category or path.startswith(category + _STEP)


def _wanted(dataset: Dataset, window: Window, types: tuple[int, ...]) -> NDArray[np.int64]:
    start, end = np.searchsorted(dataset.at_us, [window.start_us, window.end_us])
    return np.asarray(start + np.flatnonzero(np.isin(dataset.types[start:end], types)), np.int64)


def _keys_of(dataset: Dataset, groups: NDArray[np.int64], events: NDArray[np.int64]) -> tuple[NDArray[np.int64], Rows]:
    """Distinct groups (g,) in order, and the distinct keys of each one's events."""
    pairs = np.unique(groups * dataset.n_items + dataset.keys[events])
    found, starts = np.unique(pairs // dataset.n_items, return_index=True)
    offsets = np.append(starts, len(pairs)).astype(np.int64)
    return found, Rows(offsets, (pairs % dataset.n_items).astype(np.int32))


_Part = tuple[int, NDArray[np.int32], NDArray[np.int32]]


def _first_visits(
    dataset: Dataset, window: Window, types: tuple[int, ...], seed: int, shown: Callable[[int], int]
) -> list[_Part]:
    """
    (user, keys shown, keys to guess) of each shopper's first visit with two distinct keys or more.

    The first, because what is known of the shopper is what was known when the window began. *shown* says how many of n
    keys are shown. Lines of one moment (an order) have no order of their own: it is drawn, not taken from the file.
    """
    events = _wanted(dataset, window, types)
    visit = visits.number(dataset, events)
    drawn = np.random.default_rng(seed).random(len(events))
    order = np.lexsort((drawn, dataset.at_us[events], visit))
    events, visit = events[order], visit[order]
    # The first time a key comes up in a visit.
    _, first = np.unique(visit * dataset.n_items + dataset.keys[events], return_index=True)
    kept = np.sort(first)
    events, visit = events[kept], visit[kept]
    starts = np.flatnonzero(np.diff(visit, prepend=-1))
    sizes = np.diff(np.append(starts, len(visit)))
    parts: dict[int, _Part] = {}
    # Visits are numbered by shopper and session; the earliest one is wanted.
    for i in np.argsort(dataset.at_us[events[starts]], kind="stable") if len(starts) else ():
        user, n = int(dataset.users[events[starts[i]]]), int(sizes[i])
        if n < 2 or user in parts:
            continue
        keys = dataset.keys[events[starts[i] : starts[i] + n]]
        parts[user] = (user, keys[: shown(n)], keys[shown(n) :])
    return [parts[user] for user in sorted(parts)]


def _sampled(task: Task, seed: int, most: int) -> Task:
    if len(task) <= most:
        return task
    return task.only(np.sort(np.random.default_rng(seed).permutation(len(task))[:most]))


def _take(rows: Rows, wanted: NDArray[np.int64]) -> Rows:
    return Rows.of([rows.row(int(i)) for i in wanted])
