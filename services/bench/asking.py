"""
What is asked, kind by kind: units of one or more requests, as the bytes of a caller.

The rule: the bodies made here are the only description of the work. The edge is sent them, and the bare arithmetic
reads the same bodies through the edge's own translation, so that both do what the other does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RECOMMENDATIONS, PAGES, RANKINGS = "/v1/recommendations", "/v1/pages", "/v1/rankings"

COUNT = 20
RANKED = 100

FEW = 32
"""Shoppers of the cached kind: within the seconds of a measurement each is asked for hundreds of times."""

MOST = 4_000
"""
Shoppers of the other kinds. Derived: at 1,000 requests a second one comes again after four seconds, when no cache of
the processor remembers them; and their histories are read for the bare arithmetic in a few seconds.
"""

Unit = list[list[str]]
"""[[path, body], …], sent at once."""


@dataclass(frozen=True, slots=True)
class Shopper:
    """A user with features and a history. *items*: ids of what they touched, each once, the latest last."""

    user_id: str
    items: tuple[str, ...]


def units(kind: str, shoppers: Sequence[Shopper], item_ids: Sequence[str], seed: int) -> list[Unit]:
    """
    One unit a shopper, shuffled; a page as three requests at once.

    Args:
        item_ids: the catalogue's, of which rankings are drawn.
    """
    rng = random.Random(f"{seed} {kind}")  # noqa: S311  # a sample, no secret
    who = list(shoppers)
    rng.shuffle(who)
    if kind == "cached":
        who = who[:FEW]
    if kind == "page":
        return [[[RECOMMENDATIONS, _json(shelf)] for shelf in _shelves(one)] for one in who]
    if kind == "ranking":
        most = min(RANKED, len(item_ids))
        return [[[RANKINGS, _json({"user_id": one.user_id, "item_ids": rng.sample(item_ids, most)})]] for one in who]
    return [[[RECOMMENDATIONS, _json(_home(one))]] for one in who]


def as_pages(found: Sequence[Unit]) -> list[Unit]:
    """The same pages in one request each, for an edge that has them."""
    pages = []
    for unit in found:
        shelves = [json.loads(body) for _, body in unit]
        placements = [{name: given for name, given in shelf.items() if name != "user_id"} for shelf in shelves]
        pages.append([[PAGES, _json({"user_id": shelves[0]["user_id"], "placements": placements})]])
    return pages


def _home(one: Shopper) -> dict[str, object]:
    return {"placement": "home", "user_id": one.user_id, "count": COUNT}


def _shelves(one: Shopper) -> list[dict[str, object]]:
    """Three shelves of the page of the item that the shopper looked at last, with the two before it in the basket."""
    looked, basket = list(one.items[-1:]), list(one.items[-3:-1])
    return [
        _home(one),
        {"placement": "item", "user_id": one.user_id, "count": COUNT, "context": {"item_ids": looked}},
        {
            "placement": "cart",
            "user_id": one.user_id,
            "count": COUNT,
            "context": {"cart_item_ids": basket or looked},
        },
    ]


def _json(body: Mapping[str, object]) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)
