"""
What the doctor's shoppers ask for, and what an answer must look like whatever is broken. Pure.

Uncached without a trick: `home_fresh` leaves out two items drawn at random, which is a slate nobody asked for
before. It takes the way of any other home shelf, cache look-up and fill included; `explain` would take another.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from typing import Any

import orjson

COUNT = 12
"""Items asked for: a shelf of the storefront page."""

LEVELS = frozenset({"full", "partial", "stale", "popular"})

CACHE, USER, RERANK = "cache", "user", "rerank"
"""Stages that `degraded` may name beside the sources."""


class Kind(Enum):
    """Kinds of requests, told apart by which stages they need."""

    HOME = "home"  # a shopper's home shelf, the same again and again: cached
    HOME_FRESH = "home_fresh"  # a shopper's home shelf nobody asked for before: computed
    ITEM = "item"  # an item's page for a shopper: not re-ranked
    ANONYMOUS = "anonymous"  # nobody's home shelf: no cache, no features


SHARES: Mapping[Kind, float] = {Kind.HOME: 0.2, Kind.HOME_FRESH: 0.5, Kind.ITEM: 0.15, Kind.ANONYMOUS: 0.15}
"""Judged: mostly the dear kind, so that a fault is seen in most answers; enough of each other to see what it spares."""


@dataclass(frozen=True, slots=True)
class Shop:
    """Who may ask for what. *users* come by Zipf's law in this order; exponent of `loadtests/shoppers/zipf.py`."""

    users: tuple[str, ...]
    items: tuple[str, ...]
    zipf: float = 1.1
    weights: tuple[float, ...] = field(init=False)
    """Running sums: what `random.choices` makes of weights at every call, 22 of the 30 µs a request took to make."""

    def __post_init__(self) -> None:
        if not self.users or len(self.items) < COUNT:
            raise ValueError(f"{len(self.users)} users and {len(self.items)} items are no shop; train one first")
        each = (1 / rank**self.zipf for rank in range(1, len(self.users) + 1))
        object.__setattr__(self, "weights", tuple(accumulate(each)))


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: its kind, its body, and what must not be in the answer."""

    kind: Kind
    body: bytes
    excluded: frozenset[str] = frozenset()


class Mix:
    """
    An endless stream of requests, seeded by *rng*.

    fresh: draws what fresh requests leave out. A generator of its own, seeded anew for each load: with a seed that is
        used again these requests would find the slates of the last time.
    """

    def __init__(
        self, shop: Shop, rng: random.Random, fresh: random.Random, shares: Mapping[Kind, float] = SHARES
    ) -> None:
        self._shop, self._rng, self._fresh = shop, rng, fresh
        self._kinds, self._weights = list(shares), list(shares.values())

    def next(self) -> Ask:
        """The next request."""
        rng, shop = self._rng, self._shop
        kind = rng.choices(self._kinds, self._weights)[0]
        document: dict[str, Any] = {"placement": "home", "count": COUNT}
        excluded: frozenset[str] = frozenset()
        if kind is not Kind.ANONYMOUS:
            document["user_id"] = rng.choices(shop.users, cum_weights=shop.weights)[0]
        if kind is Kind.HOME_FRESH:
            excluded = frozenset(self._fresh.sample(shop.items, 2))
            document["exclude_item_ids"] = sorted(excluded)
        if kind is Kind.ITEM:
            excluded = frozenset([rng.choice(shop.items)])
            document |= {"placement": "item", "context": {"item_ids": list(excluded)}}
        return Ask(kind, orjson.dumps(document), excluded)


def uses(kind: str, sources: Sequence[str]) -> frozenset[str]:
    """The stages a computed answer of this kind needs, in the words of `degraded`."""
    match Kind(kind):
        case Kind.HOME | Kind.HOME_FRESH:
            return frozenset({CACHE, USER, RERANK, *sources})
        case Kind.ITEM:
            return frozenset({CACHE, USER, *sources})
        case Kind.ANONYMOUS:
            return frozenset({RERANK, *sources})


def read_answer(ask: Ask, body: bytes) -> dict[str, Any]:
    """
    The fields of `Seen` that a 200's body gives, with every promise it breaks by itself in `broken`.

    I7: never an empty or short slate. I8: `degraded` names what failed, and the level agrees with it.
    """
    try:
        document = orjson.loads(body)
        items, quality = document["items"], document["quality"]
        ids = [item["id"] for item in items]
        ranks = [item["rank"] for item in items]
        level, degraded = quality["level"], tuple(quality["degraded"])
        lost = tuple((s["name"], s["status"]) for s in quality["sources"] if s["status"] not in ("ok", "cached"))
        from_cache = bool(quality["from_cache"])
        rung = quality.get("rung")
    except (ValueError, TypeError, KeyError) as error:
        return {"broken": (f"unreadable answer: {error!r:.80}",)}
    claims = (
        (len(ids) == COUNT, f"I7: {len(ids)} items instead of {COUNT}"),
        (len(set(ids)) == len(ids), "an item twice"),
        (ranks == list(range(1, len(ids) + 1)), "ranks are not 1, 2, 3 …"),
        (not ask.excluded & set(ids), "an excluded item"),
        (level in LEVELS, f"I8: unknown level {level!r:.20}"),
        (level != "full" or set(degraded) <= {CACHE}, f"I8: level full without {', '.join(degraded)}"),
        (level != "partial" or bool(set(degraded) - {CACHE}), "I8: level partial, and nothing is missing"),
        (from_cache or {name for name, _ in lost} <= set(degraded), "I8: a source failed and is not named"),
    )
    return {
        "level": level,
        "rung": rung if isinstance(rung, int) else None,
        "degraded": degraded,
        "lost": lost,
        "n_items": len(ids),
        "from_cache": from_cache,
        "broken": tuple(words for holds, words in claims if not holds),
    }
