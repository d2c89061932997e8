"""
What the shop's people decided: items pinned to a position, lifted, lowered or hidden, where and while they say so.

Decides, never reads a file or a clock. Rules move items by *place*, not by score: scores of fusion, of the re-ranker
and of the popular list have no scale in common, places always mean the same (docs/adr/0024). A rule is asked three
times, each time about less: is its window open at `now` and this its placement (`Rulebook.in_force`, remembered until
a window opens or closes), does the request fit, does the shopper (`InForce.applied`). What all that apply amount to is
kept as one array over the catalogue, so that a hundred rules cost a request no more than one.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from orchestrator.core.masks import both
from orchestrator.core.model import IMPRESSION, Float32, Int32, ItemFilter, Mask, Placement, Query, UserContext

MAX_EFFECTS = 16
"""Remembered combinations of rules that applied at once, a placement. Derived: 16 × 4 placements × 9 bytes an item are
29 MB at 50,000 items, and a combination is a device, a page's category or a segment of shoppers, of which few rule."""


class Action(Enum):
    """What a rule does to its items."""

    PIN = "pin"
    BOOST = "boost"
    BURY = "bury"
    HIDE = "hide"


class Shopper(Enum):
    """Whom a rule is about: everybody, shoppers with a history, or those without."""

    ANY = "any"
    KNOWN = "known"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Feature:
    """
    A condition on a column of the user's features; a missing value fits none.

    values: for a categorical column, one of these. at_least, at_most: for a numeric one.
    """

    name: str
    values: tuple[str, ...] = ()
    at_least: float = -math.inf
    at_most: float = math.inf


@dataclass(frozen=True, slots=True)
class When:
    """Which requests a rule is about; what is empty asks nothing, all that is not must hold."""

    placements: tuple[Placement, ...] = ()
    categories: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    shopper: Shopper = Shopper.ANY
    features: tuple[Feature, ...] = ()

    @property
    def is_about_the_shopper(self) -> bool:
        """Whether it can only be told once the shopper was read."""
        return self.shopper is not Shopper.ANY or bool(self.features)


ANYTHING, ALWAYS = ItemFilter(), When()


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One decision, as it was written down.

    item_ids, items    which items: these, or those that *items* allows
    opens_at, ends_at  seconds since the epoch; in force from the one to just before the other
    position           PIN: slot of the first item, from 1; further ones follow it
    factor             BOOST: an item at place p moves to p / factor; BURY: to p × factor; ≥ 1
    places             and so many places further up, or down; ≥ 0
    """

    name: str
    action: Action
    item_ids: tuple[str, ...] = ()
    items: ItemFilter = ANYTHING
    when: When = ALWAYS
    opens_at: float = -math.inf
    ends_at: float = math.inf
    position: int = 1
    factor: float = 1.0
    places: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """
    A rule and what it reaches in this catalogue.

    keys   (k,) int32 of `item_ids` that the shop has, in their order
    mask   (catalogue size,) bool: every item it touches
    columns  for each of the rule's features: its column among the user's numeric or categorical ones
    unknown  those of `item_ids` that the shop does not have
    """

    rule: Rule
    keys: Int32
    mask: Mask
    columns: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pin:
    """An item that wants a slot. *position* from 1."""

    position: int
    key: int


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """
    What the rules that apply to one request amount to; None: nothing of that kind.

    factor, shift  (catalogue size,) float32: an item at place p wants place p × factor + shift
    shown          (catalogue size,) bool: False where hidden
    pins           in the order of the rules; an earlier one has the right of way
    """

    reaches: tuple[Reach, ...] = ()
    factor: Float32 | None = None
    shift: Float32 | None = None
    shown: Mask | None = None
    pins: tuple[Pin, ...] = ()

    def visible(self, allowed: Mask | None) -> Mask | None:
        """*allowed* (catalogue size,) without what is hidden; None: everything."""
        if self.shown is None or allowed is None:
            return allowed if self.shown is None else self.shown
        return both(allowed, self.shown)

    def touching(self, key: int) -> tuple[str, ...]:
        """Names of the rules that touch item *key*; an item younger than they is touched by none."""
        return tuple(reach.rule.name for reach in self.reaches if key < len(reach.mask) and reach.mask[key])


NOTHING = Applied()
"""No rule applies."""


@dataclass(slots=True, eq=False)
class InForce:
    """
    The rules whose window is open, on one placement.

    digest  of what they say, for the names of cached slates; "" when there is none
    """

    reaches: tuple[Reach, ...] = ()
    digest: str = ""
    _effects: OrderedDict[tuple[int, ...], Applied] = field(default_factory=OrderedDict)

    @property
    def ask_the_shopper(self) -> bool:
        """Whether one of them is about the shopper, so that what applies is only known once they were read."""
        return any(reach.rule.when.is_about_the_shopper for reach in self.reaches)

    def applied(self, query: Query, user: UserContext) -> Applied:
        """What applies to this request of this shopper; nothing to a ranking, which is the caller's own list."""
        if not self.reaches or query.only_keys:
            return NOTHING
        chosen = tuple(i for i, reach in enumerate(self.reaches) if _fits(reach, query, user))
        if not chosen:
            return NOTHING
        found = self._effects.get(chosen)
        if found is None:
            found = self._effects[chosen] = _combined([self.reaches[i] for i in chosen])
            if len(self._effects) > MAX_EFFECTS:
                self._effects.popitem(last=False)
        self._effects.move_to_end(chosen)
        return found


NONE_IN_FORCE = InForce()


class Rulebook:
    """All rules of a shop, with what each reaches. Immutable but for what it remembers; replaced as a whole."""

    def __init__(self, reaches: Sequence[Reach] = ()) -> None:
        self.reaches = tuple(reaches)
        moments = {moment for reach in reaches for moment in (reach.rule.opens_at, reach.rule.ends_at)}
        self._boundaries = sorted(moment for moment in moments if math.isfinite(moment))
        self._epoch = -1
        self._in_force: dict[Placement, InForce] = {}

    def in_force(self, placement: Placement, now: float) -> InForce:
        """The rules of *placement* whose window is open at *now*, seconds since the epoch; in the file's order."""
        if not self.reaches:
            return NONE_IN_FORCE
        epoch = bisect_right(self._boundaries, now)
        if epoch != self._epoch:
            self._epoch, self._in_force = epoch, {}
        found = self._in_force.get(placement)
        if found is None:
            found = self._in_force[placement] = self._opened(placement, now)
        return found

    def _opened(self, placement: Placement, now: float) -> InForce:
        open_now = tuple(
            reach
            for reach in self.reaches
            if reach.rule.opens_at <= now < reach.rule.ends_at
            and (not reach.rule.when.placements or placement in reach.rule.when.placements)
        )
        if not open_now:
            return NONE_IN_FORCE
        said = repr([reach.rule for reach in open_now])
        return InForce(open_now, hashlib.blake2b(said.encode(), digest_size=8).hexdigest())

    def __len__(self) -> int:
        return len(self.reaches)

    def __repr__(self) -> str:
        return f"<Rulebook of {len(self.reaches)}, {len(self._boundaries)} moments at which one begins or ends>"


NO_RULES = Rulebook()


def _fits(reach: Reach, query: Query, user: UserContext) -> bool:
    when = reach.rule.when
    if when.devices and query.device not in when.devices:
        return False
    if when.categories and not _is_under(query.category, when.categories):
        return False
    match when.shopper:
        case Shopper.KNOWN if not _is_known(user):
            return False
        case Shopper.NEW if _is_known(user):
            return False
        case Shopper.KNOWN | Shopper.NEW | Shopper.ANY:
            pass
    return all(_has(user, feature, column) for feature, column in zip(when.features, reach.columns, strict=True))


def _is_known(user: UserContext) -> bool:
    """Whether the shopper ever did anything; being shown something is nothing they did."""
    return bool((user.history_types != IMPRESSION).any())


def _has(user: UserContext, feature: Feature, column: int) -> bool:
    if feature.values:
        return column < len(user.categorical) and user.categorical[column] in feature.values
    # NaN, a value that is missing, is in no range.
    return column < len(user.numeric) and feature.at_least <= float(user.numeric[column]) <= feature.at_most


def _is_under(path: str | None, categories: tuple[str, ...]) -> bool:
    return path is not None and any(path == category or path.startswith(category + " > ") for category in categories)


def _combined(reaches: Sequence[Reach]) -> Applied:
    # Bound one after the other, in a thread: the catalogue may have grown in between.
    size = min(len(reach.mask) for reach in reaches)
    factor = shift = shown = None
    pins: list[Pin] = []
    for reach in reaches:
        rule, mask = reach.rule, reach.mask[:size]
        match rule.action:
            case Action.PIN:
                pins += [Pin(rule.position + i, int(key)) for i, key in enumerate(reach.keys)]
            case Action.HIDE:
                shown = ~mask if shown is None else shown & ~mask
            case Action.BOOST | Action.BURY:
                is_up = rule.action is Action.BOOST
                if factor is None or shift is None:
                    factor, shift = np.ones(size, np.float32), np.zeros(size, np.float32)
                factor[mask] *= np.float32(1 / rule.factor if is_up else rule.factor)
                shift[mask] += np.float32(-rule.places if is_up else rule.places)
    return Applied(tuple(reaches), factor, shift, shown, tuple(pins))
