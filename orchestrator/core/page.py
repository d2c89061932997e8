"""
Several slates on one page: no item in two of them, the earlier shelf first.

The rule: what stands further up is never changed for what stands below it. A shelf is made as if the caller had
excluded everything above it, so it is filled up from its own further candidates; a remembered slate stands if it has
nothing of what is above it. Pure; who asks for lines and slates is `orchestrator/page.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from orchestrator.core import slate_cache
from orchestrator.core.model import Candidates, Query, Slate
from orchestrator.core.report import keys_of
from orchestrator.core.selection import placed

REMOVED_AS = "shown_above"
"""Under which a slate counts candidates that another one of its page shows."""


def beneath(query: Query, shown: Sequence[int]) -> Query:
    """*query* on a page that shows these keys already."""
    return replace(query, exclude_keys=(*query.exclude_keys, *shown)) if shown else query


def without(candidates: Candidates, shown: Sequence[int]) -> tuple[Candidates, int]:
    """*candidates* that are not shown yet, in their order, and how many were."""
    if not shown:
        return candidates, 0
    stays = ~np.isin(candidates.keys, np.asarray(shown, np.int32))
    gone = len(stays) - int(stays.sum())
    return (candidates.take(stays) if gone else candidates), gone


def apart(slate: Slate, shown: Sequence[int]) -> Slate:
    """
    *slate* without what is shown already: shorter by that, pinned items in their places as far as it reaches.

    Nor may chance bring it back: it leaves the pool, too.
    """
    above = frozenset(shown)
    if not above or above.isdisjoint(keys_of((*slate.items, *slate.pool)).tolist()):
        return slate
    here = [(at, item) for at, item in enumerate(slate.items, 1) if item.key not in above]
    free = [item for at, item in here if at not in slate.pinned]
    items, pinned = placed(free, [(at, item) for at, item in here if at in slate.pinned])
    pool = tuple(item for item in slate.pool if item.key not in above)
    return replace(slate, items=tuple(items), pinned=pinned, pool=pool)


def marks(queries: Sequence[Query]) -> list[str]:
    """
    What the name of each query's remembered slate says of the queries above it.

    Their questions and not their answers: those are known when the page is asked for, so that all shelves are looked up
    at once. The first has nothing above it and is the slate that is remembered for the same question alone.
    """
    above, found = "", []
    for query in queries:
        found.append(above)
        above += f"/{slate_cache.field_name(query, '')}"
    return found


def longest(slates: Sequence[Slate]) -> tuple[tuple[str, float], ...]:
    """Stage → the most milliseconds it took one of *slates*, which were made at once; in the order they ran."""
    most: dict[str, float] = {}
    for slate in slates:
        for stage, took_ms in slate.stages_ms:
            most[stage] = max(took_ms, most.get(stage, 0.0))
    return tuple(most.items())
