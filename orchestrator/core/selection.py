"""
From ordered candidates to the slate's slots: top of the list, spread over categories when asked.

Nothing vanishes: selected plus reserve is the input.
"""

from __future__ import annotations

import math

import numpy as np

from orchestrator.core.model import Candidates, Diversity, Facts, Int32, SlateItem

CATEGORY_SHARE = {Diversity.LOW: 3 / 4, Diversity.MEDIUM: 1 / 2, Diversity.HIGH: 1 / 4}
"""Most of a slate one category may fill. Derived from what the words promise: at least 2, 2 even, and 4 categories."""

POPULAR = "popular"
"""Name under which items of the last rung report their source."""


def ordered(candidates: Candidates, limit: int | None = None) -> Candidates:
    """
    Best score first; scores that are not finite sink to the bottom, ties keep the order they came in.

    limit: only the first *limit* take part, the rest stay behind them as they are.
    """
    head = len(candidates) if limit is None else min(limit, len(candidates))
    scores = candidates.scores[:head]
    index = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    return candidates.take(np.concatenate([index, np.arange(head, len(candidates))]))


def select(candidates: Candidates, facts: Facts, count: int, diversity: Diversity) -> tuple[Candidates, Candidates]:
    """
    The first *count*, spread over categories as *diversity* asks, and the reserve in its order.

    A category that has filled its share waits; when nothing else is left it fills the slate after all, since a
    full slate is worth more than a spread one.
    """
    n = min(count, len(candidates))
    if diversity is Diversity.OFF:
        return candidates.take(np.arange(n)), candidates.take(np.arange(n, len(candidates)))
    most = max(1, math.ceil(count * CATEGORY_SHARE[diversity]))
    chosen: list[int] = []
    waiting: list[int] = []
    filled: dict[int, int] = {}
    for i, category in enumerate(facts.category.tolist()):
        # -1 is "unknown": many unrelated items, not one category, so it has no cap.
        if len(chosen) < n and (category < 0 or filled.get(category, 0) < most):
            chosen.append(i)
            filled[category] = filled.get(category, 0) + 1
        else:
            waiting.append(i)
    missing = n - len(chosen)
    index = np.asarray(chosen + waiting[:missing], np.intp)
    return candidates.take(index), candidates.take(np.asarray(waiting[missing:], np.intp))


def slots(selected: Candidates) -> tuple[SlateItem, ...]:
    """The slate's items; the policy is deterministic, so every propensity is 1."""
    return tuple(
        SlateItem(int(key), round(float(score), 6), selected.found_by(i))
        for i, (key, score) in enumerate(zip(selected.keys, selected.scores, strict=True))
    )


def fill(items: tuple[SlateItem, ...], popular: Int32, forbidden: Int32, count: int) -> tuple[SlateItem, ...]:
    """
    *items* and behind them popular ones up to *count*, no item twice, none forbidden.

    popular: best first, already within what the caller's filter and the stock allow.
    """
    missing = count - len(items)
    if missing <= 0:
        return items
    taken = np.concatenate([np.asarray([item.key for item in items], np.int32), forbidden])
    # The first `missing + taken` hold enough whatever is taken; looking further would only cost.
    head = popular[: missing + len(taken)]
    extra = head[~np.isin(head, taken)][:missing]
    return items + tuple(SlateItem(int(key), 0.0, (POPULAR,)) for key in extra)
