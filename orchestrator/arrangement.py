"""
Stage 8 of a request: what may be shown here, and how the ranked candidates become the slots of a slate.

Decides nothing itself: rules, fatigue, spreading and exploration are pure and live in `core`; this file gathers what
they need from the catalogue and the settings. Its rule: nobody pays for what nobody asked for. Without rules,
impressions, diversity or a broken cap the top of the list is the slate.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.exploration import explored
from orchestrator.core.fatigue import FATIGUE, has_impressions, unanswered, weariness
from orchestrator.core.filters import forbidden_keys
from orchestrator.core.masks import both, says
from orchestrator.core.model import (
    Candidates,
    Diversity,
    Int32,
    ItemFilter,
    Mask,
    Placement,
    Query,
    Slate,
    SlateItem,
    UserContext,
)
from orchestrator.core.places import wanted
from orchestrator.core.report import keys_of
from orchestrator.core.rules import Applied, InForce, Pin, Rulebook
from orchestrator.core.selection import (
    PINNED,
    Selected,
    fill,
    pins_within,
    placed,
    rearranged,
    slots,
    topped_up,
)
from orchestrator.core.spread import PARENT_COLUMN, WEIGHTS, Caps, Spread, keeps, spread
from orchestrator.ports import Catalogue
from orchestrator.settings import Settings

REACH = 200
"""Places, filled up with popular items, among which a slate is arranged where there is something to arrange. Judged:
ten slates; a shopper of whom nothing is known has popular candidates only, and rules hold for them too."""

_NOBODY = UserContext.cold(0, 0)
_NO_KEYS = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """
    What may be shown in answer to one request; None: everything.

    allowed  (catalogue size,) bool: by the caller's filter and the page's category
    visible  the same, and not hidden by a rule
    """

    rules: Applied
    allowed: Mask | None
    visible: Mask | None


class Arrangement:
    """Arranges slates. One a process."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        rulebook: Callable[[], Rulebook],
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """*rulebook*: the rules of the moment; *wall*: the clock that opens and closes their windows."""
        self._catalogue, self._rulebook, self._wall, self._rng = catalogue, rulebook, wall, rng
        self._fatigue, self._exploration = settings.fatigue, settings.exploration
        self._caps: dict[Placement, Caps] = {}
        for placement in Placement:
            caps = getattr(settings.placements, placement.value).caps
            self._caps[placement] = Caps(caps.category, caps.brand, caps.parent)

    def in_force(self, query: Query) -> InForce:
        """The rules of the query's placement whose window is open now."""
        return self._rulebook().in_force(query.placement, self._wall())

    def terms(self, query: Query, user: UserContext, in_force: InForce) -> Terms:
        """What the caller's filter, the page and those rules in force that apply to this shopper let through."""
        rules = in_force.applied(query, user)
        allowed = self._allowed(query)
        return Terms(rules, allowed, rules.visible(allowed))

    def _allowed(self, query: Query) -> Mask | None:
        wanted = [] if query.filter.is_empty else [query.filter]
        if query.placement is Placement.CATEGORY and query.category is not None:
            wanted.append(ItemFilter(categories=(query.category,)))
        masks = [self._catalogue.allowed(one) for one in wanted]
        return reduce(both, masks) if masks else None

    # Ranked candidates → slots.

    def select(self, query: Query, user: UserContext, ranked: Candidates, terms: Terms) -> Selected:
        """
        The slots: rules and weariness move, caps and diversity spread, pins hold their places, popular items fill.

        A ranking is the caller's own list: it is ordered and otherwise left alone.
        """
        if query.only_keys:
            return Selected(slots(ranked.head(query.count)))
        plain = self._filled(query, user, slots(ranked.head(query.count)), query.count, terms.visible)
        if self._stands(query, user, plain, terms.rules):
            return Selected(plain)
        pins = self._pins(query, user, terms)
        line = topped_up(ranked, self._popular(terms.visible), forbidden_keys(query, user), max(query.count, REACH))
        line, weary = self._moved(user, line, terms.rules)
        pinned = [(pin.position, _pinned(pin, ranked)) for pin in pins]
        if pins:
            line = line.take(~np.isin(line.keys, [pin.key for pin in pins]))
        chosen = self._spread(query, line, query.count - len(pins), pins)
        items, where = placed(slots(line.take(chosen.chosen)), pinned)
        pool = slots(line.take(self._pool(chosen)))
        touched = _touched(items, terms.rules, weary) if query.explain else ()
        return Selected(tuple(items), where, pool, touched)

    def _stands(self, query: Query, user: UserContext, plain: tuple[SlateItem, ...], rules: Applied) -> bool:
        """Whether the top of the list is the slate, since nobody asks for anything else: the way of most requests."""
        return not (
            rules.reaches
            or query.diversity is not Diversity.OFF
            or self._exploration.share
            or (self._fatigue.patience and has_impressions(user))
            or not self._keeps_caps(query, plain)
        )

    def _keeps_caps(self, query: Query, plain: tuple[SlateItem, ...]) -> bool:
        caps = self._caps[query.placement]
        if not any(caps.most):
            return True
        return keeps(caps, self._catalogue.kinds(keys_of(plain)), self._taken(query))

    def _filled(
        self,
        query: Query,
        user: UserContext,
        items: tuple[SlateItem, ...],
        count: int,
        visible: Mask | None,
        besides: Int32 = _NO_KEYS,
    ) -> tuple[SlateItem, ...]:
        """*items* and popular ones behind them, none of *besides*."""
        if len(items) >= count:
            return items
        forbidden = np.concatenate([forbidden_keys(query, user), besides])
        return fill(items, self._popular(visible), forbidden, count)

    def _popular(self, visible: Mask | None) -> Int32:
        popular = self._catalogue.popular
        return popular if visible is None else popular[says(visible, popular)]

    def _pins(self, query: Query, user: UserContext, terms: Terms) -> tuple[Pin, ...]:
        pins = terms.rules.pins
        if not pins:
            return ()
        keys = np.asarray([pin.key for pin in pins], np.int32)
        may = self._catalogue.facts(keys).in_stock & ~np.isin(keys, forbidden_keys(query, user))
        if terms.visible is not None:
            may &= says(terms.visible, keys)
        return pins_within(pins, query.count, may)

    def _moved(self, user: UserContext, line: Candidates, rules: Applied) -> tuple[Candidates, frozenset[int]]:
        """*line* as rules and weariness want it, and the keys that were weary."""
        patience = self._fatigue.patience
        counts = unanswered(user, line.keys, self._fatigue.window_s) if patience else None
        if rules.factor is None and counts is None:
            return line, frozenset()
        weary = None if counts is None else weariness(counts, patience)
        tired = frozenset() if counts is None else frozenset(line.keys[counts > 0].tolist())
        return rearranged(line, wanted(line.keys, rules.factor, rules.shift, weary)), tired

    def _spread(self, query: Query, line: Candidates, count: int, pins: tuple[Pin, ...]) -> Spread:
        """Which of *line* fill the *count* slots beside the pinned ones."""
        caps, weight = self._caps[query.placement], WEIGHTS[query.diversity]
        n, count, taken = len(line), min(count, len(line)), self._taken(query)
        pinned = np.asarray([pin.key for pin in pins], np.int32)
        if not weight and not self._exploration.share:
            head = self._catalogue.kinds(np.concatenate([line.keys[:count], pinned]))
            if keeps(caps, head, taken):
                rows = np.arange(n)
                return Spread(rows[:count], rows[count:], np.zeros(n - count, np.bool_))
        keys = np.concatenate([line.keys, pinned])
        marks = self._catalogue.marks(keys) if weight else None
        beside = tuple(range(n, n + len(pins)))
        return spread(n, count, caps, self._catalogue.kinds(keys), weight, marks, beside, taken)

    def _taken(self, query: Query) -> Int32:
        """Parents of what is looked at now: no variant of it belongs beside it."""
        if not (query.context_keys or query.cart_keys):
            return _NO_KEYS
        around = np.asarray([*query.context_keys, *query.cart_keys], np.int32)
        parents = self._catalogue.kinds(around)[:, PARENT_COLUMN]
        return np.unique(parents[parents >= 0])

    def _pool(self, chosen: Spread) -> NDArray[np.intp]:
        if not self._exploration.share:
            return chosen.reserve[:0]
        return chosen.reserve[chosen.fits][: max(0, self._exploration.pool - len(chosen.chosen))]

    # Remembered slates.

    def still_shown(self, query: Query, slate: Slate) -> Slate | None:
        """
        *slate* without what sold out, was deleted or is no longer what was asked for, filled with popular items where
        it is shorter than asked; None when the gap cannot be filled, or when another process put an item into it that
        this one has not heard of yet.
        """
        try:
            return self._still_shown(query, slate)
        except IndexError:
            return None

    def _still_shown(self, query: Query, slate: Slate) -> Slate | None:
        items = slate.items
        if query.only_keys:
            return slate
        in_force = self.in_force(query)
        is_plain = not in_force.reaches and query.filter.is_empty and query.placement is not Placement.CATEGORY
        # Most hits: nothing but the stock has a say, and nothing is sold out.
        if is_plain and not slate.pool and len(items) >= query.count and self._catalogue.are_in_stock(keys_of(items)):
            return slate
        visible = self.terms(query, _NOBODY, in_force).visible
        # Which rules are about the shopper is only known once they are read: none of these takes an item away.
        asked = self._allowed(query) if in_force.ask_the_shopper else visible
        stays = self._still_fits(keys_of(items), asked)
        if stays.all() and len(items) >= query.count and not slate.pool:
            return slate
        pinned = set(slate.pinned)
        there = [(at, item) for at, (item, is_there) in enumerate(zip(items, stays, strict=True), 1) if is_there]
        free = tuple(item for at, item in there if at not in pinned)
        # Also where all stay: a slate that was short when it was made need not be short any more.
        filled = self._filled(query, _NOBODY, free, query.count - (len(there) - len(free)), visible, keys_of(items))
        # What the shopper has seen, and which rules are about them, is only known once they are read.
        if len(filled) > len(free) and (query.exclude_seen or in_force.ask_the_shopper):
            return None
        line, where = placed(filled, [(at, item) for at, item in there if at in pinned])
        pool = slate.pool
        if pool:
            waits = self._still_fits(keys_of(pool), asked) & ~np.isin(keys_of(pool), keys_of(filled))
            pool = tuple(item for item, is_there in zip(pool, waits, strict=True) if is_there)
        return replace(slate, items=tuple(line), pinned=where, pool=pool)

    def _still_fits(self, keys: Int32, asked: Mask | None) -> Mask:
        """(len(keys),) which of them may be shown by today's facts."""
        in_stock = self._catalogue.facts(keys).in_stock
        return in_stock if asked is None else in_stock & says(asked, keys)

    # Chance.

    def explored(self, query: Query, slate: Slate) -> Slate:
        """
        *slate* as it is shown: with exploration on, one exchange now and then, and the propensity of every slot.

        Drawn anew for every answer, behind the cache, so that a remembered slate is what models and rules decided and
        answers are independent draws (docs/adr/0028). A ranking and an explained slate are not played with.
        """
        share = self._exploration.share
        if not share or query.only_keys or query.explain or not slate.items:
            return replace(slate, pool=()) if slate.pool else slate
        pinned = set(slate.pinned)
        free = [at for at in range(len(slate.items)) if at + 1 not in pinned]
        line = [*(slate.items[at] for at in free), *slate.pool]
        items = list(slate.items)
        for at, (item, propensity) in zip(free, explored(line, len(free), share, self._rng), strict=True):
            items[at] = SlateItem(item.key, item.score, item.sources, propensity)
        return replace(slate, items=tuple(items), pool=())


def _pinned(pin: Pin, ranked: Candidates) -> SlateItem:
    """The pinned item with what models said of it; who has nothing to say did not put it there."""
    proposed = slots(ranked.take(ranked.keys == pin.key))
    return proposed[0] if proposed else SlateItem(pin.key, 0.0, (PINNED,))


def _touched(items: list[SlateItem], rules: Applied, tired: frozenset[int]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    names = ((item.key, (*rules.touching(item.key), *([FATIGUE] * (item.key in tired)))) for item in items)
    return tuple((key, by) for key, by in names if by)
