"""
Who may come and what there is to look at, read from a data directory; the most active and the most wanted first.

The rule: read once, before the first request; nothing here is asked while the load runs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadtests.shoppers.zipf import ITEMS, USERS, Zipf

VISITORS = 100_000
"""Browsers without a user that exist. Judged: a Zipf draw of a hundred thousand meets some again and most never."""

USER_SHARE, VISITOR_SHARE = 0.55, 0.4
"""Of sessions; the rest comes without any id. Judged: half of a shop's visits are logged in."""


@dataclass(frozen=True, slots=True)
class Shop:
    """
    Everybody and everything by rank.

    users       most events first
    items       most events first; those nobody touched last
    categories  most items first; may be empty
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    categories: tuple[str, ...] = ()
    _users: Zipf = field(init=False, repr=False, compare=False)
    _items: Zipf = field(init=False, repr=False, compare=False)
    _categories: Zipf | None = field(init=False, repr=False, compare=False)
    _visitors: Zipf = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.users or not self.items:
            raise ValueError(f"{len(self.users)} users and {len(self.items)} items are no shop; expected some of each")
        drawn = {
            "_users": Zipf(len(self.users), USERS),
            "_items": Zipf(len(self.items), ITEMS),
            "_categories": Zipf(len(self.categories), ITEMS) if self.categories else None,
            "_visitors": Zipf(VISITORS, USERS),
        }
        for name, value in drawn.items():
            object.__setattr__(self, name, value)

    def somebody(self, rng: random.Random) -> Mapping[str, str]:
        """Who comes, as the API wants it: a user, a visitor, or nobody."""
        share = rng.random()
        if share < USER_SHARE:
            return {"user_id": self.users[self._users.draw(rng)]}
        if share < USER_SHARE + VISITOR_SHARE:
            return {"visitor_id": f"load-{self._visitors.draw(rng)}"}
        return {}

    def item(self, rng: random.Random) -> str:
        """An item somebody wants."""
        return self.items[self._items.draw(rng)]

    def some_items(self, n: int, rng: random.Random) -> list[str]:
        """Up to *n* different ones, as a search would find them."""
        return list(dict.fromkeys(self.item(rng) for _ in range(2 * n)))[:n]

    def category(self, rng: random.Random) -> str | None:
        """A category; None in a shop without."""
        return None if self._categories is None else self.categories[self._categories.draw(rng)]


def read_shop(data: Path) -> Shop:
    """
    The shop of a data directory.

    Raises:
        FileNotFoundError: no canonical data there. ValueError: nobody or nothing in it.
    """
    events = pq.read_table(data / "events.parquet", columns=["user_id", "item_id"])
    items = pq.read_table(data / "items.parquet", columns=["item_id", "category"])
    known = items["item_id"].to_pylist()
    wanted = _by_count(events["item_id"])
    listed = set(known)
    ranked = dict.fromkeys([one for one in wanted if one in listed] + known)
    return Shop(tuple(_by_count(events["user_id"])), tuple(ranked), tuple(_by_count(items["category"])))


def _by_count(column: object) -> list[str]:
    """Different values, the most frequent first, equals by name; absent ones left out."""
    counted = [(one["values"], one["counts"]) for one in pc.value_counts(column).to_pylist()]
    return [value for value, _ in sorted((c for c in counted if c[0] is not None), key=lambda one: (-one[1], one[0]))]
