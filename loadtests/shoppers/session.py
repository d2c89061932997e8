"""
One shopper's visit: which page next, what is seen of the answer, what is done about it.

The rule: pure. A session is given a generator of chance and answers, and returns looks and acts; when they happen is
decided by whoever plays it. Chances are judged, in the range that shops report: 2 to 5 pages a visit, a click on one
shelf of three, one basket of eight bought.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from loadtests.shoppers.shop import Shop

COUNT = 12
"""Items of a shelf: the storefront page's."""

SEARCH_HITS = 40
"""Items of a list that is put in personal order: a page of search results."""


class Kind(Enum):
    """What is looked at; also the request's name in every table."""

    HOME = "home"
    ITEM = "item"
    CART = "cart"
    CATEGORY = "category"
    PAGE = "page"
    RANKING = "ranking"


RECOMMENDATIONS, RANKINGS = "/v1/recommendations", "/v1/rankings"

EVENTS = "events"
"""The name of what is told to `/v1/events`."""

ENTRANCES: Mapping[Kind, float] = {
    Kind.HOME: 0.3,
    Kind.ITEM: 0.25,
    Kind.PAGE: 0.15,
    Kind.CATEGORY: 0.15,
    Kind.RANKING: 0.15,
}
"""First page of a visit, and where somebody goes who saw nothing: an item's page is where search engines lead."""

LEAVES = 0.22
"""Chance that a page is the last; about four and a half pages a visit."""

CLICKS = 0.35
ADDS = 0.15
GOES_TO_CART = 0.5
BUYS = 0.4

EXAMINED = 0.8
"""Each place is looked at with this chance when the one before was: clicks fall off down the shelf."""

THINK_S = (2.0, 0.6)
"""Median and log-normal sigma of the time between a page and the next, seconds. Judged, and short: real ones are some
20 s, which only makes more sessions of the same number of requests."""

RENDER_S, DECIDE_S = 0.2, 1.0
"""When what was shown is told, and when a click comes, after the answer."""

BUFFERS = 0.3
"""Share of visits whose page collects events and sends them together."""

BUFFER = 20
"""Events after which such a page sends what it has."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at, and the body of every request it takes; a page with three shelves takes three, at once."""

    kind: Kind
    bodies: tuple[Mapping[str, Any], ...]

    @property
    def path(self) -> str:
        """Where the requests go."""
        return RANKINGS if self.kind is Kind.RANKING else RECOMMENDATIONS


@dataclass(frozen=True, slots=True)
class Shown:
    """The shelf that came: its id and items, best first."""

    recommendation_id: str
    item_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Act:
    """Events to be told in one call, seconds after the answer."""

    after_s: float
    events: tuple[Mapping[str, Any], ...]


class Session:
    """See the module. *name* must be unlike any other session's, in this run and in others: event ids grow from it."""

    def __init__(self, name: str, shop: Shop, rng: random.Random) -> None:
        self._name, self._shop, self._rng = name, shop, rng
        self._who = shop.somebody(rng)
        self._buffers = rng.random() < BUFFERS
        self._kept: list[Mapping[str, Any]] = []
        self._cart: list[str] = []
        self._wanted: str | None = None
        self._wants_cart = False
        self._n_events = 0
        self.is_over = False

    def next(self) -> Look:
        """The page that is looked at now."""
        rng = self._rng
        if self._wanted is not None:
            return self._look(Kind.ITEM, context={"item_ids": [self._wanted]})
        if self._wants_cart:
            return self._look(Kind.CART, context={"cart_item_ids": list(self._cart)})
        kind = rng.choices(list(ENTRANCES), list(ENTRANCES.values()))[0]
        match kind:
            case Kind.ITEM:
                self._wanted = self._shop.item(rng)
                return self._look(Kind.ITEM, context={"item_ids": [self._wanted]})
            case Kind.CATEGORY if (category := self._shop.category(rng)) is not None:
                return self._look(Kind.CATEGORY, context={"category": category})
            case Kind.RANKING:
                items = self._shop.some_items(SEARCH_HITS, rng)
                return Look(Kind.RANKING, ({**self._who, "session_id": self._name, "item_ids": items},))
            case Kind.PAGE:
                return Look(Kind.PAGE, self._shelves())
            case _:
                return self._look(Kind.HOME)

    def sees(self, look: Look, shown: Shown | None) -> list[Act]:
        """
        What is done about the answer to *look*, in order of time; decides where the visit goes on, or that it ends.

        shown: the first shelf; None when no answer came, or an empty one: the shopper goes elsewhere or leaves.
        """
        rng, acts = self._rng, []
        looked_at, self._wanted, self._wants_cart = self._wanted, None, False
        if shown is not None and shown.item_ids:
            acts += self._reacts(look, shown, looked_at)
        self.is_over = self.is_over or (self._wanted is None and not self._wants_cart and rng.random() < LEAVES)
        return self._told(acts)

    def think_s(self) -> float:
        """Seconds until the next page, from the answer."""
        median_s, sigma = THINK_S
        return median_s * self._rng.lognormvariate(0.0, sigma)

    def _reacts(self, look: Look, shown: Shown, looked_at: str | None) -> list[Act]:
        rng = self._rng
        seen = [self._event("impression", one, shown, place) for place, one in enumerate(shown.item_ids, 1)]
        if look.kind is Kind.ITEM and looked_at is not None:
            seen.append(self._event("view", looked_at))
        acts = [Act(RENDER_S, tuple(seen))]
        if look.kind is Kind.CART and rng.random() < BUYS:
            acts.append(Act(DECIDE_S, tuple(self._event("purchase", one) for one in self._cart)))
            self._cart.clear()
            self.is_over = True
        elif look.kind is Kind.ITEM and looked_at is not None and rng.random() < ADDS:
            self._cart.append(looked_at)
            acts.append(Act(DECIDE_S, (self._event("add_to_cart", looked_at),)))
            self._wants_cart = rng.random() < GOES_TO_CART
        elif rng.random() < CLICKS:
            place = self._clicked(len(shown.item_ids))
            self._wanted = shown.item_ids[place - 1]
            acts.append(Act(DECIDE_S, (self._event("click", self._wanted, shown, place),)))
        return acts

    def _told(self, acts: Sequence[Act]) -> list[Act]:
        """As they come, or collected until there are enough or the visit is over. Who has no id tells nothing."""
        if not self._who:
            return []
        if not self._buffers:
            return list(acts)
        self._kept += [event for act in acts for event in act.events]
        if not self._kept or (len(self._kept) < BUFFER and not self.is_over):
            return []
        together, self._kept = tuple(self._kept), []
        return [Act(acts[-1].after_s if acts else RENDER_S, together)]

    def _clicked(self, n: int) -> int:
        """A place from 1 to *n*."""
        place = 1
        while place < n and self._rng.random() < EXAMINED:
            place += 1
        return place

    def _look(self, kind: Kind, **about: Any) -> Look:
        return Look(kind, (self._shelf(kind.value, **about),))

    def _shelves(self) -> tuple[Mapping[str, Any], ...]:
        """A front page: what is for you, what goes with something that is on it, and a varied shelf."""
        looked_at = {"item_ids": [self._shop.item(self._rng)]}
        return (self._shelf("home"), self._shelf("item", context=looked_at), self._shelf("home", diversity="high"))

    def _shelf(self, placement: str, **about: Any) -> Mapping[str, Any]:
        return {"placement": placement, "count": COUNT, **self._who, "session_id": self._name, **about}

    def _event(self, event_type: str, item_id: str, shown: Shown | None = None, place: int = 0) -> Mapping[str, Any]:
        self._n_events += 1
        event: dict[str, Any] = {
            "event_id": f"{self._name}-{self._n_events}",
            "event_type": event_type,
            "item_id": item_id,
            "session_id": self._name,
            **self._who,
        }
        if shown is not None:
            event |= {"recommendation_id": shown.recommendation_id, "position": place}
        return event

    def __repr__(self) -> str:
        who = next(iter(self._who.values()), "nobody")
        return (
            f"<Session {self._name} of {who}, {len(self._cart)} in the cart, {'over' if self.is_over else 'goes on'}>"
        )
