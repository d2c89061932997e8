"""
What the re-ranker learns from: queries of an earlier window, what retrieval proposed for them, and what was wanted.

The rule: point in time. Generators are fitted on what came before the window, histories end at the query, features
are joined as of the window's start; only the gains come from inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.tutti.v1 import common_pb2
from services.chassis.affinity import Affinities
from services.chassis.model import Candidates, GenerateQueries, Generator, RerankQueries, Shoppers
from services.chassis.signals import BASKET_TYPES, POSITIVE_TYPES, STRENGTH, owners
from services.training.dataset import DAY_US, Dataset
from services.training.split import WINDOW_DAYS, Window, truth

# Windows to learn from, one after the other; borrowed: the reference LambdaMART of Online Retail learnt from four.
WINDOWS = 4
# Where fewer shoppers than this came in the last window, windows overlap by half, so that there are seven: the same
# shopper two weeks later is another list. Online Retail (1,000 shoppers a window), validation window, ndcg@10 of the
# network alone: discovery .126 → .127 to .132 (three seeds), re-buy .319 → .329 to .332. Larger shops have lists
# enough, and generators to fit.
OVERLAP_BELOW = 3_000
# At most this share of the time before "now" is taught from; what is before it is what generators are fitted on.
_TAUGHT_SHARE = 0.6
# Sessions whose later items are guessed from their first come from the window's first days, when models and features
# are about as old as they are in service.
SESSION_DAYS = 7
# Queries a window and kind. Derived: 4 windows × 2 kinds × 3,000 queries × 90 candidates are 2 M rows at most.
MAX_QUERIES = 3_000
# Sessions a window. They choose the weights of a blend, and whether a sequential model joins it: 300 could not tell.
MAX_SESSIONS = 2_000


@dataclass(frozen=True, slots=True)
class Asked:
    """
    Queries of one window before anybody answered them.

    users    (q,) rows of Dataset.user_ids
    wanted   q rows of keys the shopper went for; gains (m,) float32 aligned with wanted.values
    """

    users: NDArray[np.int64]
    shoppers: Shoppers
    exclude: Rows
    wanted: Rows
    gains: Float32


@dataclass(frozen=True, slots=True)
class Lesson:
    """
    One window for the re-ranker; n candidates of q queries.

    gains             (n,) float32, 0 for what was not wanted
    users             (q,) rows of Dataset.user_ids
    item_numeric      (n_items, k) float32, item_categorical (n_items, c): item features as of the window's start
    past              the dataset before the window, to learn co-occurrence from

    Of a lesson from the slate log (services/training/from_log.py) also:

    seen        (n,) float32: 0 for what nobody can have seen, which teaches nothing; else 1 / how likely it was seen
    item_rows   (n,) int64: row of item_* that holds this candidate as it was served; None: row i is key i
    affinities  closeness as it was served; None: learnt from *past*
    """

    queries: RerankQueries
    gains: Float32
    users: NDArray[np.int64]
    item_numeric: Float32
    item_categorical: NDArray[np.object_]
    past: Dataset
    seen: Float32 | None = None
    item_rows: NDArray[np.int64] | None = None
    affinities: Affinities | None = None


def windows(dataset: Dataset) -> list[Window]:
    """The last windows of *dataset*, oldest first: four weeks each, shorter when the data is short; see above."""
    if len(dataset) < 2:
        return []
    span_us = dataset.until_us - int(dataset.at_us[0])
    length_us = min(WINDOW_DAYS * DAY_US, int(span_us * _TAUGHT_SHARE / WINDOWS))
    if length_us <= 0:
        return []
    lately = int(np.searchsorted(dataset.at_us, dataset.until_us - length_us))
    is_small = len(np.unique(dataset.users[lately:])) < OVERLAP_BELOW
    step_us = length_us // 2 if is_small else length_us
    number = 2 * WINDOWS - 1 if is_small else WINDOWS
    ends = [dataset.until_us - i * step_us for i in reversed(range(number))]
    return [Window(end - length_us, end) for end in ends]


def ask(
    dataset: Dataset, window: Window, seed: int, sessions: int = MAX_SESSIONS, session_days: float = SESSION_DAYS
) -> Asked:
    """
    The queries of a window: everybody on the home page, with and without what they know, and sessions that go on.

    Home queries are asked at the window's start; session queries when the session starts, with its first item (on its
    page) or the first half of its items (in the basket) as context; *sessions* of them at most, of the window's first
    *session_days*.
    """
    rng = np.random.default_rng(seed)
    judged = truth(dataset, window, lambda n: np.sort(rng.permutation(n)[:MAX_QUERIES]))
    users, moments = judged.users, np.full(len(judged.users), window.start_us)
    nothing: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * len(users)
    home = np.full(len(users), common_pb2.PLACEMENT_HOME, np.uint8)
    parts = [
        (users, moments, nothing, home, nothing, judged.rebuy),
        (users, moments, nothing, home, judged.touched, judged.discovery),
        _sessions(dataset, window, rng, sessions, session_days),
    ]
    all_users = np.concatenate([p[0] for p in parts])
    context = Rows.of([row for p in parts for row in p[2]])
    wanted = Rows.of([row for p in parts for row in p[5]])
    who = all_users[owners(wanted)]
    return Asked(
        users=all_users,
        shoppers=dataset.shoppers(
            all_users, np.concatenate([p[1] for p in parts]), context, np.concatenate([p[3] for p in parts])
        ),
        exclude=Rows.of([row for p in parts for row in p[4]]),
        wanted=wanted,
        gains=_looked_up(_gains(dataset, window), _pairs(dataset, who, wanted.values)),
    )


def propose(
    generators: Mapping[str, Generator], quotas: Mapping[str, int], shoppers: Shoppers, exclude: Rows
) -> tuple[Rows, Float32, NDArray[np.uint16]]:
    """
    Ask every generator and put the answers side by side, as the orchestrator's fusion does.

    Returns:
        candidates (q rows, by key), scores (n, s) float32 NaN where a source did not find the item, ranks (n, s)
        uint16 from 1, 0 where it did not; sources in the order of *generators*.
    """
    q = len(shoppers)
    answers: list[Candidates] = []
    for name, generator in generators.items():
        counts = np.full(q, quotas[name], np.int32)
        answers.append(generator.generate(GenerateQueries(counts, shoppers, exclude, Rows.empty(q))))
    codes = [(owners(a.rows) << 32) + a.rows.values.astype(np.int64) for a in answers]
    union = np.unique(np.concatenate(codes)) if codes else np.empty(0, np.int64)
    scores = np.full((len(union), len(answers)), np.nan, np.float32)
    ranks = np.zeros((len(union), len(answers)), np.uint16)
    for s, (answer, code) in enumerate(zip(answers, codes, strict=True)):
        at = np.searchsorted(union, code)
        scores[at, s] = answer.scores
        ranks[at, s] = np.arange(len(code)) - answer.rows.offsets[:-1][owners(answer.rows)] + 1
    offsets = np.searchsorted(union, np.arange(q + 1, dtype=np.int64) << 32)
    return Rows(offsets.astype(np.int64), (union & 0xFFFFFFFF).astype(np.int32)), scores, ranks


def label(candidates: Rows, wanted: Rows, gains: Float32) -> Float32:
    """Gain of every candidate (n,) float32, 0 where it was not wanted."""
    want = (owners(wanted) << 32) + wanted.values.astype(np.int64)
    order = np.argsort(want, kind="stable")
    got = (owners(candidates) << 32) + candidates.values.astype(np.int64)
    if not len(want):
        return np.zeros(len(got), np.float32)
    at = np.minimum(np.searchsorted(want[order], got), len(want) - 1)
    return np.where(want[order][at] == got, gains[order][at], 0).astype(np.float32)


def entities(dataset: Dataset, users: Sequence[int], window_start: pd.Timestamp) -> pd.DataFrame:
    """
    The entity frame that asks Feast for all items and these users as of one moment, in as few rows as possible.

    Row i holds user i and item i (the shorter list repeats): features of the two are joined independently.
    """
    distinct = np.unique(np.asarray(users, np.int64))
    n = max(len(distinct), dataset.n_items)
    ids = np.array(dataset.user_ids, object)[distinct] if len(distinct) else np.array([""], object)
    return pd.DataFrame(
        {
            "user_id": ids[np.arange(n) % len(ids)],
            "item_id": np.array(dataset.item_ids, object)[np.arange(n) % dataset.n_items],
            "event_timestamp": window_start,
        }
    )


def _gains(dataset: Dataset, window: Window) -> tuple[NDArray[np.int64], Float32]:
    """What was wanted in the window as user × n_items + key, rising, and its gain: √ of the strongest event."""
    start, end = np.searchsorted(dataset.at_us, [window.start_us, window.end_us])
    pairs = _pairs(dataset, dataset.users[start:end], dataset.keys[start:end])
    order = np.argsort(pairs, kind="stable")
    pairs, strengths = pairs[order], np.sqrt(STRENGTH[dataset.types[start:end]])[order]
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    return pairs[starts], np.maximum.reduceat(strengths, starts) if len(starts) else strengths


def _pairs(dataset: Dataset, users: NDArray[Any], keys: NDArray[Any]) -> NDArray[np.int64]:
    return users.astype(np.int64) * dataset.n_items + keys.astype(np.int64)


def _looked_up(known: tuple[NDArray[np.int64], Float32], pairs: NDArray[np.int64]) -> Float32:
    codes, gains = known
    return np.asarray(gains[np.searchsorted(codes, pairs)], np.float32)


_Part = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    list[NDArray[np.int32]],
    NDArray[np.uint8],
    list[NDArray[np.int32]],
    list[NDArray[np.int32]],
]


def _sessions(dataset: Dataset, window: Window, rng: np.random.Generator, most: int, days: float) -> _Part:
    """
    Sessions with two wanted items or more. What is in the context is excluded.

    A visit is taught on the page of its first item; what was put into the cart or bought in it is a basket. Where the
    two are the same, as in orders, every other session is a basket, and where nobody buys, of views: a guess.
    """
    # None are asked for in every lesson, and a large shop has half a million of them.
    end_us = min(window.end_us, window.start_us + int(days * DAY_US)) if most else window.start_us
    start, end = np.searchsorted(dataset.at_us, [window.start_us, end_us])
    kept = start + np.flatnonzero(
        (dataset.sessions[start:end] >= 0) & np.isin(dataset.types[start:end], POSITIVE_TYPES)
    )
    kept = kept[np.argsort(dataset.sessions[kept], kind="stable")]
    starts = np.flatnonzero(np.diff(dataset.sessions[kept], prepend=-2))
    groups = [g for g in np.split(kept, starts[1:]) if len(g)] if len(kept) else []
    groups = [groups[i] for i in rng.permutation(len(groups))[:most]]
    users: list[int] = []
    moments: list[int] = []
    placements: list[int] = []
    contexts: list[NDArray[np.int32]] = []
    wanted: list[NDArray[np.int32]] = []
    goes_in = np.isin(dataset.types, BASKET_TYPES)
    has_baskets = bool(goes_in[kept].any())

    def teach(events: NDArray[np.int64], began: int, placement: int, known_of: Callable[[int], int]) -> None:
        keys = dataset.keys[events]
        keys = keys[np.sort(np.unique(keys, return_index=True)[1])]
        known = max(1, known_of(len(keys)))
        if len(keys) <= known:
            return
        users.append(int(dataset.users[began]))
        moments.append(int(dataset.at_us[began]))
        contexts.append(keys[:known])
        placements.append(placement)
        wanted.append(keys[known:])

    for number, group in enumerate(groups):
        basket = group[goes_in[group]] if has_baskets else group
        is_both = len(basket) == len(group)
        if not is_both or number % 2 == 0:
            teach(group, group[0], common_pb2.PLACEMENT_ITEM, lambda n: 1)
        if not is_both or number % 2 == 1:
            teach(basket, group[0], common_pb2.PLACEMENT_CART, lambda n: n // 2)
    return (
        np.array(users, np.int64),
        np.array(moments, np.int64),
        contexts,
        np.array(placements, np.uint8),
        contexts,
        wanted,
    )
