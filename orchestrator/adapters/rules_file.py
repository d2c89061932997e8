"""
The operator's file of rules: read, checked as a whole, and taken over anew when it changes.

A rule that cannot be meant as it is written is refused by name and key, never half applied. What only the shop can
say, such as an item it does not have, is told and no reason to refuse: assortments change more often than rules.

    RulesError   the file cannot be used; the message says which rule, which key, what was found
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from orchestrator.core.fatigue import FATIGUE
from orchestrator.core.model import ItemFilter, Placement
from orchestrator.core.rules import Action, Feature, Reach, Rule, Rulebook, Shopper, When
from orchestrator.ports import Catalogue
from orchestrator.telemetry import Metrics, log

MAX_POSITION = 1000
MAX_RULES = 1000
"""Judged: one mask over the catalogue each, 50 MB for 50,000 items; who writes more writes filters."""


class RulesError(Exception):
    """The rules cannot be used."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _with_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("needs its zone: 2026-03-01T00:00:00Z")
    return moment


Moment = Annotated[datetime, AfterValidator(_with_zone)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=False)]
Names = Annotated[list[Name], Field(min_length=1)]


class _Items(_Part):
    ids: Names | None = None
    categories: Names | None = None
    brands: Names | None = None
    price_min: Annotated[Number, Field(ge=0)] | None = None
    price_max: Annotated[Number, Field(ge=0)] | None = None
    attributes: dict[Name, Names] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("needs ids, or a description: categories, brands, price_min, price_max, attributes")
        if self.ids is not None and len(self.model_fields_set) > 1:
            raise ValueError("ids stand alone; write a rule of its own for what is described")
        if self.price_min is not None and self.price_max is not None and self.price_max < self.price_min:
            raise ValueError(f"price_max = {self.price_max:g} is below price_min = {self.price_min:g}")
        return self


class _Range(_Part):
    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs min or max")
        if self.min is not None and self.max is not None and self.max < self.min:
            raise ValueError(f"max = {self.max:g} is below min = {self.min:g}")
        return self


def _words_or_range(written: object) -> str:
    return WORDS if isinstance(written, list) else RANGE


WORDS, RANGE = "a list of words", "a range"
Wanted = Annotated[Annotated[Names, Tag(WORDS)] | Annotated[_Range, Tag(RANGE)], Discriminator(_words_or_range)]


class _When(_Part):
    placements: Annotated[list[Literal["home", "item", "cart", "category"]], Field(min_length=1)] | None = None
    categories: Names | None = None
    devices: Names | None = None
    shopper: Literal["any", "known", "new"] = "any"
    features: dict[Name, Wanted] | None = None


class _Rule(_Part):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    action: Literal["pin", "boost", "bury", "hide"]
    items: _Items
    when: _When = _When()
    opens: Moment | None = Field(default=None, alias="from")
    ends: Moment | None = Field(default=None, alias="until")
    position: Annotated[int, Field(ge=1, le=MAX_POSITION)] | None = None
    factor: Annotated[Number, Field(gt=1)] | None = None
    places: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.name == FATIGUE:
            raise ValueError(f"name = {FATIGUE!r} is what an explanation calls weariness; choose another")
        if self.opens is not None and self.ends is not None and self.ends <= self.opens:
            raise ValueError(f"until = {self.ends.isoformat()} is not after from = {self.opens.isoformat()}")
        moves = self.factor is not None or self.places is not None
        if self.action == "pin":
            if self.position is None or self.items.ids is None:
                raise ValueError("a pin needs position and items.ids")
        elif self.position is not None:
            raise ValueError(f"position goes with action = 'pin'; found action = {self.action!r}")
        if self.action in ("boost", "bury") and not moves:
            raise ValueError(f"a {self.action} needs factor (above 1) or places (above 0)")
        if self.action in ("pin", "hide") and moves:
            raise ValueError(f"factor and places go with boost and bury; found action = {self.action!r}")
        return self


def read(path: Path) -> tuple[Rule, ...]:
    """
    The rules of the TOML file *path*, in its order.

    Raises:
        RulesError: no such file, not TOML, or a rule that cannot be meant as it is written.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise RulesError(f"no rules file at {path}; write one or leave out rules.path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError(f"{path} cannot be read: {error}") from error


def parse(text: str, name: str = "rules") -> tuple[Rule, ...]:
    """
    The rules of *text*; *name* says in messages where it is from.

    Raises:
        RulesError: as `read`.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{name}: not TOML: {error}") from error
    entries = tree.pop("rules", [])
    if tree:
        raise RulesError(f"{name}: {next(iter(tree))!r} is not known here; every rule is a [[rules]]")
    if not isinstance(entries, list) or len(entries) > MAX_RULES:
        raise RulesError(f"{name}: rules should be a list of at most {MAX_RULES}, one [[rules]] each")
    rules: list[Rule] = []
    for number, entry in enumerate(entries, 1):
        called = f"rule {entry.get('name', number)!r}" if isinstance(entry, dict) else f"rule {number}"
        try:
            rules.append(_rule(_Rule.model_validate(entry)))
        except ValidationError as error:
            raise RulesError(f"{name}: {called}: {_first(error)}") from error
        if rules[-1].name in {rule.name for rule in rules[:-1]}:
            raise RulesError(f"{name}: {called}: name is used twice; names tell rules apart in explanations")
    return tuple(rules)


def bound(
    rules: Sequence[Rule], catalogue: Catalogue, numeric: Sequence[str] = (), categorical: Sequence[str] = ()
) -> Rulebook:
    """
    *rules* with what they reach in this shop.

    Args:
        numeric, categorical: columns of the user's features, `view__feature`, in the read plan's order.

    Raises:
        RulesError: a rule about a feature that is not read for users, or is of the other kind.
    """
    return Rulebook([_reach(rule, catalogue, numeric, categorical) for rule in rules])


class RulesFile:
    """
    The rules of the moment, from a file that may change at any time. Call it for the rulebook.

    A file that has become wrong or has gone changes nothing: the rules that were right stay, and it is said once. What
    rules reach is looked up again when the catalogue has changed.
    """

    def __init__(
        self,
        path: Path,
        bind: Callable[[Sequence[Rule]], Rulebook],
        metrics: Metrics,
        n_changes: Callable[[], int] = lambda: 0,
    ) -> None:
        """
        Read it. *n_changes*: how often the catalogue has changed.

        Raises:
            RulesError: it cannot be used; nobody starts with rules other than those that were meant.
        """
        self._path, self._bind, self._metrics = path, bind, metrics
        self._n_changes = n_changes
        self._stamp, self._bound_to = self._stamped(), n_changes()
        self._rules = read(path)
        self._book = bind(self._rules)

    def __call__(self) -> Rulebook:
        return self._book

    def look(self) -> None:
        """Take the file over if it has changed since the last look; bind the rules again if the catalogue has."""
        stamp, n_changes = self._stamped(), self._n_changes()
        if stamp == self._stamp:
            if n_changes != self._bound_to:
                self._bound_to, self._book = n_changes, self._bind(self._rules)
            return
        self._stamp, self._bound_to = stamp, n_changes
        try:
            rules = read(self._path)
            self._rules, self._book = rules, self._bind(rules)
        except RulesError as error:
            self._metrics.rule_loads.labels("refused").inc()
            log.error("rules_refused", reason=str(error), still=len(self._book))
        else:
            self._metrics.rule_loads.labels("taken").inc()
            log.info("rules_taken", rules=len(self._book))

    async def keep_looking(self, every_s: float) -> None:
        """Look for ever. Reading and binding are milliseconds, in a thread all the same: a page may be waiting."""
        while True:
            await asyncio.sleep(every_s)
            await asyncio.to_thread(self.look)

    def _stamped(self) -> tuple[int, int, int] | None:
        """What changes when the file does: also when another file is moved over it within one tick of the clock."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def __repr__(self) -> str:
        return f"<RulesFile {self._path}: {self._book!r}>"


def _rule(written: _Rule) -> Rule:
    items, when = written.items, written.when
    features = tuple(
        Feature(name, values=tuple(wanted))
        if isinstance(wanted, list)
        else Feature(
            name,
            at_least=-np.inf if wanted.min is None else wanted.min,
            at_most=np.inf if wanted.max is None else wanted.max,
        )
        for name, wanted in (when.features or {}).items()
    )
    return Rule(
        name=written.name,
        action=Action(written.action),
        item_ids=tuple(dict.fromkeys(items.ids or ())),
        items=ItemFilter(
            categories=tuple(items.categories or ()),
            brands=tuple(items.brands or ()),
            price_min=items.price_min,
            price_max=items.price_max,
            attributes=tuple((name, tuple(values)) for name, values in sorted((items.attributes or {}).items())),
        ),
        when=When(
            placements=tuple(Placement(placement) for placement in when.placements or ()),
            categories=tuple(when.categories or ()),
            devices=tuple(when.devices or ()),
            shopper=Shopper(when.shopper),
            features=features,
        ),
        opens_at=-np.inf if written.opens is None else written.opens.astimezone(UTC).timestamp(),
        ends_at=np.inf if written.ends is None else written.ends.astimezone(UTC).timestamp(),
        position=written.position or 1,
        factor=written.factor or 1.0,
        places=written.places or 0.0,
    )


def _reach(rule: Rule, catalogue: Catalogue, numeric: Sequence[str], categorical: Sequence[str]) -> Reach:
    found = {one: catalogue.key_of(one) for one in rule.item_ids}
    keys = np.asarray([key for key in found.values() if key is not None], np.int32)
    unknown = tuple(one for one, key in found.items() if key is None)
    if rule.item_ids:
        mask = np.zeros(catalogue.size, np.bool_)
        mask[keys] = True
    else:
        mask = catalogue.mask(rule.items)
    columns = tuple(_column(rule, feature, numeric, categorical) for feature in rule.when.features)
    return Reach(rule, keys, mask, columns, unknown)


def _column(rule: Rule, feature: Feature, numeric: Sequence[str], categorical: Sequence[str]) -> int:
    here, there = (categorical, numeric) if feature.values else (numeric, categorical)
    if feature.name in here:
        return list(here).index(feature.name)
    if feature.name in there:
        why = "is a number: give min or max" if feature.values else "is a word: give a list of words"
    else:
        why = f"is not read for users; known: {', '.join([*numeric, *categorical]) or 'none'}"
    raise RulesError(f"rule {rule.name!r}: when.features.{feature.name} {why}")


def _first(error: ValidationError) -> str:
    """The first thing wrong, by its key as it stands in the file."""
    first = error.errors()[0]
    # Which kind of condition it was taken for is our affair: only what stands in the file is named.
    way = [str(part) for part in first["loc"] if part not in (WORDS, RANGE)]
    found: Any = first.get("input")
    message = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(way)}: {message}; found {found!r:.120}" if way else message
