"""
Values for tests: every builder has defaults for all, and a test states only what it is about.

Nothing here is random and nothing here awaits.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.core.fusion import fuse
from orchestrator.core.model import (
    Candidates,
    Event,
    Facts,
    Level,
    Placement,
    Query,
    Retrieved,
    Slate,
    SlateItem,
    UserContext,
)
from orchestrator.core.slate_cache import Entry

VIEW, CLICK, IMPRESSION, ADD_TO_CART, REMOVE_FROM_CART, PURCHASE = range(1, 7)
"""EventType of common.proto; test_history holds them equal."""


def a_query(**about) -> Query:
    """A known user on the home shelf asking for 10."""
    return Query(**{"recommendation_id": "r1", "placement": Placement.HOME, "count": 10, "user_id": "u1"} | about)


def a_user(history: Sequence[int] = (), watermark: int = 0, numeric=(), categorical=()) -> UserContext:
    """A shopper who viewed *history*, oldest first, one second apart."""
    n = len(history)
    return UserContext(
        np.asarray(numeric, np.float32),
        tuple(categorical),
        np.asarray(history, np.int32),
        np.full(n, VIEW, np.uint8),
        np.arange(n, dtype=np.int64) * 1_000_000,
        watermark,
    )


def retrieved(*keys: int, scores: Sequence[float] | None = None, version: str = "v1") -> Retrieved:
    """One source's answer; scores fall from 1 when not given."""
    given = np.linspace(1, 0.1, len(keys)) if scores is None else scores
    return Retrieved(np.asarray(keys, np.int32), np.asarray(given, np.float32), version)


def some_candidates(*keys: int, scores: Sequence[float] | None = None) -> Candidates:
    """Candidates of one source `s`, in this order."""
    found = fuse({"s": retrieved(*keys)}, ["s"], {"s": 1.0}, "reciprocal_rank")
    return found if scores is None else found.scored(np.asarray(scores, np.float64))


def candidates_of(sources: Mapping[str, Sequence[int]]) -> Candidates:
    """What fusing *sources* (name → keys, best first) at equal weights gives."""
    lists = {name: retrieved(*keys) for name, keys in sources.items()}
    return fuse(lists, list(sources), dict.fromkeys(sources, 1.0), "reciprocal_rank")


def some_facts(n: int, *, sold_out: Sequence[int] = (), category: Sequence[int] | None = None) -> Facts:
    """Facts of n candidates, all in stock but the rows *sold_out*, one category unless given."""
    in_stock = np.ones(n, np.bool_)
    in_stock[list(sold_out)] = False
    categories = np.zeros(n, np.int32) if category is None else np.asarray(category, np.int32)
    return Facts(in_stock, np.full(n, 9.99, np.float32), categories)


def a_slate(*keys: int, **about) -> Slate:
    """A full slate of *keys* found by `s`, nothing lost."""
    defaults = {
        "items": tuple(SlateItem(key, 1.0 - rank / 100, ("s",)) for rank, key in enumerate(keys)),
        "level": Level.FULL,
        "sources": (),
        "degraded": (),
        "losses": (),
        "model_versions": (("s", "v1"),),
        "watermark": 0,
        "created_at": 0.0,
    }
    return Slate(**defaults | about)


def an_entry(
    slate: Slate | None = None,
    fresh_until: float = 30.0,
    stale_until: float = 100.0,
    kept_until: float | None = None,
    delta_s: float = 0.0,
) -> Entry:
    """A remembered slate, of no use when no longer stale unless *kept_until* is given; made in no time."""
    kept = stale_until if kept_until is None else kept_until
    return Entry(slate if slate is not None else a_slate(1, 2, 3), fresh_until, stale_until, kept, delta_s)


def an_event(event_id: str = "e1", **about) -> Event:
    """A view of item 3 by u1."""
    defaults = {"subject": "u:u1", "key": 3, "type_code": VIEW, "at_us": 1_700_000_000_000_000, "body": b'{"x":1}'}
    return Event(**{"event_id": event_id} | defaults | about)


def keys_of(thing) -> list[int]:
    """Item keys, in order, of candidates, of a slate or of slots."""
    if isinstance(thing, Candidates):
        return thing.keys.tolist()
    return [item.key for item in getattr(thing, "items", thing)]


def changed(value, **fields):
    """*value* with other fields."""
    return dataclasses.replace(value, **fields)
