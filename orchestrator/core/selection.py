"""
From ordered candidates to the slate's slots: moved by rules and fatigue, spread, with the pinned in their places.

Nothing vanishes: what is chosen and the reserve are the input. Whoever asks for none of it gets the top of the list
as it is, and pays for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.model import Candidates, Float64, Int32, Mask, SlateItem, proposers
from orchestrator.core.places import moved
from orchestrator.core.rules import Pin

POPULAR = "popular"
"""Name under which items of the last rung report their source."""

PINNED = "pinned"
"""Name under which a pinned item that no source proposed reports its source."""

IMPERSONAL = (POPULAR, PINNED)
"""Sources that say nothing of a shopper."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """
    The slots and who is next.

    pinned  positions, from 1, of slots that a rule pinned
    pool    who may be exchanged for an unpinned slot, best first
    touched as in `Slate`
    """

    items: tuple[SlateItem, ...]
    pinned: tuple[int, ...] = ()
    pool: tuple[SlateItem, ...] = ()
    touched: tuple[tuple[int, tuple[str, ...]], ...] = ()


def ordered(candidates: Candidates, limit: int | None = None) -> Candidates:
    """
    Best score first; scores that are not finite sink to the bottom, ties keep the order they came in.

    limit: only the first *limit* take part, the rest stay behind them as they are.
    """
    head = len(candidates) if limit is None else min(limit, len(candidates))
    scores = candidates.scores[:head]
    index = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    if head < len(candidates):
        index = np.concatenate([index, np.arange(head, len(candidates))])
    return candidates.take(index)


def rearranged(candidates: Candidates, wanted: Float64) -> Candidates:
    """The candidates in the order of the places they want."""
    return candidates.take(moved(wanted))


def topped_up(candidates: Candidates, popular: Int32, forbidden: Int32, n: int) -> Candidates:
    """
    *candidates* and behind them popular items up to *n*, no item twice, none forbidden.

    popular: best first, already within what the caller's filter, the stock and the rules allow.
    """
    keys = _popular_but(np.concatenate([candidates.keys, forbidden]), popular, n - len(candidates))
    if not len(keys):
        return candidates
    here, there, sources = len(candidates), len(keys), len(candidates.sources)
    ranks = np.zeros((here + there, sources + 1), np.uint16)
    ranks[:here, :sources] = candidates.source_ranks
    ranks[here:, sources] = 1
    scores = np.full((here + there, sources + 1), np.nan, np.float32)
    scores[:here, :sources] = candidates.source_scores
    return Candidates(
        np.concatenate([candidates.keys, keys]),
        (*candidates.sources, POPULAR),
        ranks,
        scores,
        np.concatenate([candidates.scores, np.zeros(there)]),
    )


def fill(items: tuple[SlateItem, ...], popular: Int32, forbidden: Int32, count: int) -> tuple[SlateItem, ...]:
    """The same for slots that are there already: *items* and behind them popular ones up to *count*."""
    taken = np.concatenate([np.asarray([item.key for item in items], np.int32), forbidden])
    extra = _popular_but(taken, popular, count - len(items))
    return items + tuple(SlateItem(int(key), 0.0, (POPULAR,)) for key in extra)


def slots(selected: Candidates) -> tuple[SlateItem, ...]:
    """Candidates as slots; until chance has a say, every propensity is 1."""
    columns = zip(selected.keys.tolist(), selected.scores.tolist(), selected.source_ranks.tolist(), strict=True)
    return tuple(SlateItem(key, round(score, 6), proposers(ranks, selected.sources)) for key, score, ranks in columns)


def pins_within(pins: Sequence[Pin], count: int, may_be_shown: Mask) -> tuple[Pin, ...]:
    """
    The pins that hold in a slate of *count*, each item and each position once, by position.

    An earlier pin has the right of way; who finds its position taken gets the next free one. A pin behind the end of
    the slate, or of an item that may not be shown, does not hold.

    may_be_shown: (len(pins),) what stock, filters, rules and the basket say of the pinned items.
    """
    held: dict[int, int] = {}
    for pin, may in zip(pins, may_be_shown.tolist(), strict=True):
        position = pin.position
        while position in held:
            position += 1
        if may and position <= count and pin.key not in held.values():
            held[position] = pin.key
    return tuple(Pin(position, held[position]) for position in sorted(held))


def placed(free: Sequence[T], pinned: Sequence[tuple[int, T]]) -> tuple[list[T], tuple[int, ...]]:
    """
    *free* in order with each of *pinned* (position from 1, by position) in its place; and where those came to stand.

    A list too short for a position has its pinned items at the end.
    """
    line = list(free)
    where: list[int] = []
    for position, thing in pinned:
        at = min(position - 1, len(line))
        line.insert(at, thing)
        where.append(at + 1)
    return line, tuple(where)


def _popular_but(taken: NDArray[np.int32], popular: Int32, missing: int) -> Int32:
    """The first *missing* of *popular* that are not *taken*."""
    if missing <= 0:
        return popular[:0]
    # The first `missing + taken` hold enough whatever is taken; looking further would only cost.
    head = popular[: missing + len(taken)]
    return head[~np.isin(head, taken)][:missing]
