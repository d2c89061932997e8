"""
What shoppers do on one day: sessions with a mission, shelves, views, carts, baskets.

Rule: one day in, one day's events out, and only `Memory` passes between days. All of a day is done with arrays; the
cost of a session does not depend on the size of the catalogue, because a shopper sees a shelf of 24 and never the
whole shop.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from services.training.synthetic import calendar
from services.training.synthetic.memory import Memory
from services.training.synthetic.shoppers import Shoppers
from services.training.synthetic.world import World

Ints = NDArray[np.int64]

VIEW, CART, REMOVE, PURCHASE = 0, 1, 2, 3
EVENT_TYPES: tuple[str, ...] = ("view", "add_to_cart", "remove_from_cart", "purchase")

REBUY, BROWSE, GIFT, COMPLEMENT = 0, 1, 2, 3

# Rates. Chosen and then tuned on seed 7 until the funnel was near 100 : 12 : 4 and repeats a quarter of the purchase
# lines; docs/embedded-shop.md shows what came out.
SESSIONS_A_DAY = 0.064
"""Sessions of an average shopper on an average day."""
SHELF = 24
"""Items a category page shows; the shopper looks at few of them."""
POSITION_BIAS = 0.45
"""Utility lost per doubling of the position on the shelf."""
VIEWS_A_PAGE = 1.9
MORE_PAGES, MORE_PAGES_TO_BUY = 0.5, 0.68
"""Chance of another page after each, looking around and having come to buy."""
INTENT_SHARE = 0.115
"""Sessions that came to buy; the rest look around."""
CHECKOUT = {REBUY: 0.66, BROWSE: 0.32, GIFT: 0.34, COMPLEMENT: 0.36}
COMPLEMENT_IN_BASKET = 0.4
"""Chance that a cart line draws a complement into the same basket, times the strength of the pair."""
REMOVAL = 0.09
BLOCK_ROWS = 8192
"""Pages computed at once: 8,192 · 24 · 25 float32 are 20 MB, whatever the size of the shop."""


@dataclass(frozen=True, slots=True)
class DayEvents:
    """One day's events in order of time: equally long arrays."""

    shopper: Ints
    session: Ints
    item: Ints
    kind: Ints
    offset_us: Ints
    quantity: NDArray[np.float64]
    price: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.shopper)


@dataclass(frozen=True, slots=True)
class _Lines:
    """Rows of sessions before they have a time; *order* sorts them within the session."""

    session: Ints
    item: Ints
    order: NDArray[np.float64]

    @staticmethod
    def join(*parts: _Lines) -> _Lines:
        return _Lines(
            np.concatenate([p.session for p in parts]),
            np.concatenate([p.item for p in parts]),
            np.concatenate([p.order for p in parts]),
        )

    def take(self, keep: NDArray[np.bool_] | Ints) -> _Lines:
        return _Lines(self.session[keep], self.item[keep], self.order[keep])

    def distinct(self, n_items: int) -> _Lines:
        """The earliest row of each (session, item)."""
        by_order = np.lexsort((self.order, self.session * n_items + self.item))
        key = (self.session * n_items + self.item)[by_order]
        keep = np.ones(len(key), bool)
        keep[1:] = key[1:] != key[:-1]
        return self.take(by_order[keep])


@dataclass(frozen=True, slots=True)
class _Today:
    day: int
    position: float
    weight: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    buyable: NDArray[np.bool_]
    promoted: NDArray[np.bool_]
    leaf_pull: NDArray[np.float64]


class Behaviour:
    """The shop in motion; `day` must be called for each day in order."""

    def __init__(self, world: World, shoppers: Shoppers, days: int, rng: np.random.Generator) -> None:
        self.world, self.shoppers, self.days, self.rng = world, shoppers, days, rng
        self.memory = Memory(len(shoppers))
        self.first_day = calendar.first_day(days)
        self._hours = calendar.hour_cdf()
        self._sessions = 0

    def __repr__(self) -> str:
        return f"<Behaviour {len(self.shoppers)} shoppers, {len(self.world)} items, {self._sessions} sessions so far>"

    def day_weights(self) -> NDArray[np.float64]:
        """Expected trade of each day of the window in relative terms, (days,): dates and who is around."""
        present = np.zeros(self.days + 1)
        np.add.at(present, np.clip(self.shoppers.arrives, 0, self.days), self.shoppers.activity)
        np.add.at(present, np.clip(self.shoppers.leaves, 0, self.days), -self.shoppers.activity)
        dates = [self.first_day + timedelta(days=d) for d in range(self.days)]
        calm = [calendar.day_weight(when, d / self.days) for d, when in enumerate(dates)]
        return np.asarray(np.cumsum(present)[: self.days] * np.array(calm), np.float64)

    def day(self, day: int, rate: float = 1.0) -> DayEvents:
        """Events of day number *day*; *rate* multiplies the number of sessions."""
        today = self._open(day)
        who, mission, intent, anchor = self._arrivals(today, rate)
        shown, utility, page_of = self._pages(today, who, mission, intent, anchor)
        views, carts = self._choose(today, who, mission, intent, shown, utility, page_of)
        rebuys = self._rebuys(today, who, mission)
        n = len(self.world)
        carts = _Lines.join(rebuys, carts).distinct(n)
        extra = self._complements(today, carts)
        carts = _Lines.join(carts, extra).distinct(n)
        seen_first = _Lines(carts.session, carts.item, carts.order - 0.1)
        straight = (carts.order < 0) & (self.rng.random(len(carts.item)) < 0.4)
        # What is put in the cart was looked at, but for some re-bought things that go in from the order history.
        views = _Lines.join(views, seen_first.take(~straight)).distinct(n)
        events = self._checkout(today, who, mission, views, carts)
        self._remember(day, events)
        return events

    def _open(self, day: int) -> _Today:
        """The shop as it is this morning: what is on sale and how strongly each item draws."""
        world, when = self.world, self.first_day + timedelta(days=day)
        season = np.array([calendar.season_weight(leaf.season, when) for leaf in world.leaves])
        age = day - world.born
        fresh = 1.0 + 0.9 * np.exp(-np.maximum(age, 0) / 25.0) * (world.born > 0)
        fashion = np.exp(world.fashion[world.design, day // 7])
        promoted = world.promoted[:, day // 7]
        weight = world.weight * season[world.leaf] * fresh * fashion * np.where(promoted, 1.6, 1.0)
        on_sale, sold_out = world.on_sale(day), world.sold_out(day)
        weight = np.where(on_sale, weight, 0.0) * np.where(sold_out, 0.25, 1.0)
        pull = np.asarray(np.bincount(world.leaf, weight, len(world.leaves)), np.float64)
        return _Today(
            day=day,
            position=day / max(1, self.days - 1),
            weight=weight,
            cumulative=np.concatenate([[0.0], np.cumsum(weight)]),
            buyable=on_sale & ~sold_out,
            promoted=promoted,
            leaf_pull=pull,
        )

    def _arrivals(self, today: _Today, rate: float) -> tuple[Ints, Ints, NDArray[np.bool_], Ints]:
        """Sessions of the day: shopper, mission, whether they came to buy, and the item a complement is sought for."""
        people, rng, day = self.shoppers, self.rng, today.day
        present = (people.arrives <= day) & (day < people.leaves)
        due = self.memory.has_due(day)
        trade = calendar.day_weight(self.first_day + timedelta(days=day), today.position)
        expected = SESSIONS_A_DAY * rate * trade * people.activity * present * np.where(due, 1.3, 1.0)
        who = np.repeat(np.arange(len(people)), rng.poisson(expected))
        draw = rng.random(len(who))
        anchor = self.memory.last_item[who]
        recent = (anchor >= 0) & (day - self.memory.last_day[who] <= 30)
        mission = np.full(len(who), BROWSE)
        mission[draw < 0.08] = GIFT
        mission[(draw >= 0.08) & (draw < 0.20) & recent] = COMPLEMENT
        mission[due[who] & (draw >= 0.6)] = REBUY
        intent = rng.random(len(who)) < np.where(mission == BROWSE, INTENT_SHARE, 1.6 * INTENT_SHARE)
        return who, mission, intent, anchor

    def _pages(
        self, today: _Today, who: Ints, mission: Ints, intent: NDArray[np.bool_], anchor: Ints
    ) -> tuple[Ints, NDArray[np.float32], Ints]:
        """Shelves the sessions open, (p, SHELF) items; utilities beside them; the session of each page, (p,)."""
        rng, world = self.rng, self.world
        count = np.minimum(rng.geometric(1 - np.where(intent, MORE_PAGES_TO_BUY, MORE_PAGES)), 8)
        page_of = np.repeat(np.arange(len(who)), count)
        first = np.ones(len(page_of), bool)
        first[1:] = page_of[1:] != page_of[:-1]
        # Gifts are chosen with the friend's taste; everything else with one's own.
        taster = np.where(mission == GIFT, self.shoppers.friend[who], who)[page_of]
        leaf = self._leaves(today, taster)
        stay = ~first & (rng.random(len(leaf)) < 0.45)
        leaf[1:] = np.where(stay[1:], leaf[:-1], leaf[1:])
        partner = self._partner(anchor[page_of])
        led = (mission[page_of] == COMPLEMENT) & first & (partner >= 0)
        leaf = np.where(led, world.leaf[np.maximum(partner, 0)], leaf)

        low, high = today.cumulative[world.bounds[leaf]], today.cumulative[world.bounds[leaf + 1]]
        points = low[:, None] + rng.random((len(leaf), SHELF)) * (high - low)[:, None]
        shown = np.searchsorted(today.cumulative, points, side="right") - 1
        shown = np.clip(shown, world.bounds[leaf][:, None], world.bounds[leaf + 1][:, None] - 1)
        shown[led, 0] = np.where(today.weight[partner[led]] > 0, partner[led], shown[led, 0])
        shown = np.where(today.weight[shown] > 0, shown, -1)
        utility = np.concatenate(
            [
                self._utility(today, taster[i : i + BLOCK_ROWS], shown[i : i + BLOCK_ROWS])
                for i in range(0, len(leaf), BLOCK_ROWS)
            ]
            or [np.zeros((0, SHELF), np.float32)]
        )
        utility[led, 0] += 2.0
        return shown, utility, page_of

    def _leaves(self, today: _Today, taster: Ints) -> Ints:
        """The leaf each page shows: mostly a favourite that is in season, else anything the shop pushes."""
        rng, world = self.rng, self.world
        pull = today.leaf_pull / max(today.leaf_pull.mean(), 1e-9)
        favourites = self.shoppers.favourites[taster]
        share = self.shoppers.shares(taster, today.position) * np.sqrt(pull)[favourites]
        cdf = np.cumsum(share, axis=1)
        pick = (rng.random(len(taster))[:, None] * cdf[:, -1:] > cdf).sum(axis=1)
        own = favourites[np.arange(len(taster)), np.minimum(pick, favourites.shape[1] - 1)]
        pushed = np.searchsorted(np.cumsum(today.leaf_pull), rng.random(len(taster)) * today.leaf_pull.sum())
        leaf = np.where(rng.random(len(taster)) < 0.88, own, np.minimum(pushed, len(world.leaves) - 1))
        return np.where(today.leaf_pull[leaf] > 0, leaf, np.argmax(today.leaf_pull))

    def _partner(self, anchor: Ints) -> Ints:
        """One complement for each anchor item, by strength; −1 where there is none."""
        safe = np.maximum(anchor, 0)
        strength = self.world.complement_strength[safe]
        cdf = np.cumsum(strength, axis=1)
        pick = (self.rng.random(len(anchor))[:, None] * cdf[:, -1:] > cdf).sum(axis=1)
        chosen = self.world.complements[safe, np.minimum(pick, strength.shape[1] - 1)]
        return np.where(anchor >= 0, chosen, -1)

    def _utility(self, today: _Today, taster: Ints, shown: Ints) -> NDArray[np.float32]:
        """
        Taste for each item on the shelf with what is new and what one is tired of, (p, SHELF); −inf for empty
        slots.
        """
        world = self.world
        safe = np.maximum(shown, 0)
        taste = self.shoppers.tastes(taster, today.position)
        utility = np.einsum("pkd,pd->pk", world.factors[safe], taste)
        fresh = np.exp(-np.maximum(today.day - world.born[safe], 0) / 30.0)
        utility += self.shoppers.novelty[taster][:, None] * fresh + 0.3 * today.promoted[safe]
        utility -= self.memory.tired_of(taster, safe)
        return np.where(shown >= 0, utility, -np.inf).astype(np.float32)

    def _choose(
        self, today: _Today, who: Ints, mission: Ints, intent: NDArray[np.bool_], shown: Ints,
        utility: NDArray[np.float32], page_of: Ints,
    ) -> tuple[_Lines, _Lines]:  # fmt: skip
        """Which slots of a shelf are opened (position-biased), and which of these go in the cart."""
        rng = self.rng
        depth = POSITION_BIAS * np.log2(1 + np.arange(shown.shape[1]))
        noisy = utility - depth + rng.gumbel(0, 1, utility.shape).astype(np.float32)
        most = 7
        best = np.argsort(-noisy, axis=1, kind="stable")[:, :most]
        looks = np.minimum(1 + rng.poisson(VIEWS_A_PAGE - 1 + 0.6, len(shown)), most)
        item = np.take_along_axis(shown, best, axis=1)
        taken = (np.arange(most)[None, :] < looks[:, None]) & (item >= 0)
        page, slot = np.nonzero(taken)
        session = page_of[page]
        item = item[page, slot]
        start = np.searchsorted(page_of, np.arange(len(who)))
        order = np.asarray((page - start[session]) * 10.0 + slot, np.float64)
        views = _Lines(session, item, order)

        # Liking relative to the shelf decides; an errand multiplies it.
        filled = np.isfinite(utility)
        typical = np.where(filled, utility, 0.0).sum(axis=1) / np.maximum(filled.sum(axis=1), 1)
        liking = utility[page, best[page, slot]] - typical[page]
        odds = np.where(intent[session], -1.15, -5.4) + 0.65 * liking
        odds -= self.memory.owns(who[session], item) * np.where(self.world.cycle_days[item] > 0, 0.8, 2.5)
        chance = today.buyable[item] / (1 + np.exp(-odds))
        carted = rng.random(len(item)) < chance
        # Things on one shelf replace each other: after the first, another seldom goes in.
        again = np.zeros(len(item), bool)
        rank = _running_count(page[carted])
        again[np.nonzero(carted)[0]] = (rank > 0) & (rng.random(len(rank)) > 0.4)
        return views, views.take(carted & ~again)

    def _rebuys(self, today: _Today, who: Ints, mission: Ints) -> _Lines:
        """What has run out goes in the cart first; a few swap it for a near relative of the same design."""
        rng, world = self.rng, self.world
        sessions = np.nonzero(mission == REBUY)[0]
        item, due = self.memory.due_items(who[sessions], today.day)
        wanted = due & (rng.random(item.shape) < 0.82)
        row, column = np.nonzero(wanted)
        bought = item[row, column]
        neighbour = np.clip(bought + rng.choice([-1, 1], len(bought)), 0, len(world) - 1)
        same_design = world.design[neighbour] == world.design[bought]
        bought = np.where(same_design & (rng.random(len(bought)) < 0.12), neighbour, bought)
        lines = _Lines(sessions[row], bought, np.asarray(column - 20.0, np.float64))
        return lines.take(today.buyable[bought])

    def _complements(self, today: _Today, carts: _Lines) -> _Lines:
        """Lines that other lines drew into the basket."""
        rng, world = self.rng, self.world
        partner = self._partner(carts.item)
        drawn = (partner >= 0) & (rng.random(len(partner)) < COMPLEMENT_IN_BASKET)
        drawn &= today.buyable[np.maximum(partner, 0)] & (world.weight[np.maximum(partner, 0)] > 0)
        return _Lines(carts.session[drawn], partner[drawn], np.abs(carts.order[drawn]) + 0.5)

    def _checkout(self, today: _Today, who: Ints, mission: Ints, views: _Lines, carts: _Lines) -> DayEvents:
        """Removals, orders, times, prices: the rows of the day as events."""
        rng, world = self.rng, self.world
        pays = rng.random(len(who)) < np.array([CHECKOUT[k] for k in range(4)])[mission]
        removed = rng.random(len(carts.item)) < np.where(carts.order < 0, 0.3, 1.0) * REMOVAL
        bought = ~removed & pays[carts.session]
        session = np.concatenate([views.session, carts.session, carts.session[removed], carts.session[bought]])
        item = np.concatenate([views.item, carts.item, carts.item[removed], carts.item[bought]])
        kind = np.repeat(
            [VIEW, CART, REMOVE, PURCHASE], [len(views.item), len(carts.item), int(removed.sum()), int(bought.sum())]
        )
        order = np.concatenate(
            [views.order, carts.order + 0.2, np.full(int(removed.sum()), 800.0), np.full(int(bought.sum()), 900.0)]
        )
        household = self.shoppers.household[who[session]]
        wanted = np.where(
            world.cycle_days[item] > 0, 1 + rng.poisson(0.12 * household), 1 + rng.poisson(0.06, len(item))
        )
        keys = np.lexsort((item, kind, order, session))
        session, item, kind, quantity = session[keys], item[keys], kind[keys], wanted[keys].astype(np.float64)
        # A cart line and its purchase have the same quantity: draw it from the pair, not from the row.
        offset = self._times(session, kind, len(who))
        price = world.price[item].astype(np.float64) * np.where(today.promoted[item], 0.8, 1.0)
        by_time = np.argsort(offset, kind="stable")
        number = session + self._sessions
        self._sessions += len(who)
        quantity = np.where(kind == VIEW, np.nan, _same_per_pair(session * len(world) + item, quantity))
        return DayEvents(
            who[session][by_time], number[by_time], item[by_time], kind[by_time], offset[by_time],
            quantity[by_time], price.round(2)[by_time],
        )  # fmt: skip

    def _times(self, session: Ints, kind: Ints, n_sessions: int) -> Ints:
        """Microseconds after midnight of each row; rows come sorted by session. Lines of one order share theirs."""
        rng = self.rng
        hour = np.searchsorted(self._hours, rng.random(n_sessions), side="right")
        start = ((np.minimum(hour, 22) * 3600 + rng.random(n_sessions) * 3599) * 1e6).astype(np.int64)
        gap = (rng.lognormal(3.4, 0.8, len(session)) * 1e6).astype(np.int64)
        first = np.ones(len(session), bool)
        first[1:] = session[1:] != session[:-1]
        together = np.zeros(len(session), bool)
        together[1:] = (kind[1:] == PURCHASE) & (kind[:-1] == PURCHASE) & ~first[1:]
        gap[first | together] = 0
        elapsed = np.cumsum(gap)
        elapsed -= np.repeat(elapsed[first], np.diff(np.append(np.nonzero(first)[0], len(session))))
        return start[session] + np.minimum(elapsed, 3_500_000_000)

    def _remember(self, day: int, events: DayEvents) -> None:
        viewed = events.kind == VIEW
        self.memory.saw(events.shopper[viewed], events.item[viewed])
        bought = events.kind == PURCHASE
        shopper, item = events.shopper[bought], events.item[bought]
        cycle = self.world.cycle_days[item] / (0.7 + 0.15 * self.shoppers.household[shopper])
        self.memory.bought(shopper, item, day, cycle, self.rng)


def _running_count(keys: Ints) -> Ints:
    """For each element how many equal ones stand before it; *keys* is sorted."""
    if not len(keys):
        return keys
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    starts = np.nonzero(first)[0]
    return np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))


def _same_per_pair(pair: Ints, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """*value* with every row of a pair given the value of the pair's first row."""
    _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    return np.asarray(value[first][inverse], np.float64)
