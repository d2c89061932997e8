"""
Whether data may be trained on: a profile of it, and what is wrong with it, alone and against the last run's.

The rule: pure arithmetic over a `Dataset`; faults are sentences with what was found and what was expected. Limits are
wide on purpose: they are for feeds that broke, not for seasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from services.training.dataset import DAY_US, TYPE_CODES, Dataset, iso


@dataclass(frozen=True, slots=True)
class Limits:
    """
    When data is refused.

    rows_share       part of the last run's events there must still be. Judged: half a history does not go by itself
    shoppers_share   the same of shoppers
    duplicate_share  events that repeat another one's moment, shopper, item and type. Measured: 1.3 % of Online Retail's
                     lines do after the import; of a feed sent twice, half
    unknown_share    events of items the catalogue does not list. Judged: above, the catalogue is another shop's
    mix_distance     total variation between the event types of the last week and those of the four weeks before:
                     measured 0 on Online Retail, below .03 on the embedded shop; a funnel step that is lost moves it by
                     its share
    least_type       share a type must have had for its silence in a week to be a fault
    week_share       part of a usual week the last one must have. Measured: the quietest week of Online Retail has half
                     of the mean of the four before; the one in which it was closed for Christmas 11 %, and is refused
    least_week       events a week below which weeks are not compared
    ahead_days       an event may lie this far ahead of the moment of training; clocks differ, weeks do not
    """

    rows_share: float = 0.5
    shoppers_share: float = 0.5
    duplicate_share: float = 0.1
    unknown_share: float = 0.2
    mix_distance: float = 0.3
    least_type: float = 0.02
    week_share: float = 0.25
    least_week: int = 100
    ahead_days: float = 2.0


@dataclass(frozen=True, slots=True)
class Profile:
    """
    What is remembered of a run's data. Shares are in [0, 1].

    types_before, types_last  event type → share, in the four weeks before the last week and in the last week
    week_before, week_last    events a week on average in those four weeks, and in the last one
    """

    events: int
    shoppers: int
    items: int
    first_event_us: int
    last_event_us: int
    duplicate_share: float
    unknown_share: float
    week_before: float
    week_last: int
    types_before: Mapping[str, float] = field(default_factory=dict)
    types_last: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the run's report."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self | None:
        """The profile of an earlier report; None where it was written by a version that knew other fields."""
        try:
            return cls(**found)
        except TypeError:
            return None


def profile(dataset: Dataset) -> Profile:
    """The profile of *dataset*; of one without events, zeros."""
    if not len(dataset):
        return Profile(0, 0, dataset.n_items, 0, 0, 0.0, 0.0, 0.0, 0)
    repeated = _repeated(dataset)
    listed = np.array([bool(title) for title in dataset.items.titles]) | (dataset.items.categories != "")
    # A catalogue without a title anywhere cannot be told from no catalogue.
    unknown = float((~listed[dataset.keys]).mean()) if listed.any() else 0.0
    end = int(dataset.at_us[-1]) + 1
    last = dataset.at_us >= end - 7 * DAY_US
    before = (dataset.at_us >= end - 35 * DAY_US) & ~last
    covered = min(4.0, max((end - 7 * DAY_US - int(dataset.at_us[0])) / (7 * DAY_US), 1e-9))
    return Profile(
        events=len(dataset),
        shoppers=len(np.unique(dataset.users)),
        items=dataset.n_items,
        first_event_us=int(dataset.at_us[0]),
        last_event_us=int(dataset.at_us[-1]),
        duplicate_share=repeated / len(dataset),
        unknown_share=unknown,
        # Less than four weeks of history: the mean over what there is, one week at least.
        week_before=float(before.sum() / max(covered, 1.0)),
        week_last=int(last.sum()),
        types_before=_shares(dataset.types[before]),
        types_last=_shares(dataset.types[last]),
    )


def _repeated(dataset: Dataset) -> int:
    """Events that repeat another one's moment, shopper, item and type; looked for among those of one moment only."""
    same = np.diff(dataset.at_us) == 0
    shared = np.flatnonzero(np.append(same, False) | np.append(False, same))
    columns = (dataset.types[shared], dataset.keys[shared], dataset.users[shared], dataset.at_us[shared])
    order = np.lexsort(columns)
    equal = np.ones(max(len(shared) - 1, 0), np.bool_)
    for column in columns:
        equal &= column[order][1:] == column[order][:-1]
    return int(equal.sum())


def faults(found: Profile, last: Profile | None, now_us: int, limits: Limits | None = None) -> tuple[str, ...]:
    """
    What is wrong with *found*, in words.

    Args:
        last: the profile of the run whose models serve; None when there was none.
        now_us: the moment of training.
    """
    used = limits or Limits()
    return (*_alone(found, now_us, used), *(_against(found, last, used) if last is not None else ()))


def _alone(found: Profile, now_us: int, limits: Limits) -> list[str]:
    said = []
    if found.duplicate_share > limits.duplicate_share:
        said.append(
            f"{found.duplicate_share:.0%} of the events repeat another one in everything; expected at most "
            f"{limits.duplicate_share:.0%}: was a file imported twice?"
        )
    if found.unknown_share > limits.unknown_share:
        said.append(
            f"{found.unknown_share:.0%} of the events are of items the catalogue does not describe; expected at most "
            f"{limits.unknown_share:.0%}: is it the catalogue of this shop?"
        )
    if found.last_event_us > now_us + limits.ahead_days * DAY_US:
        said.append(f"the newest event is of {iso(found.last_event_us)}, which is yet to come: are times in UTC?")
    if found.week_before >= limits.least_week:
        if found.week_last < limits.week_share * found.week_before:
            said.append(
                f"the last week has {found.week_last:,} events, a usual one {found.week_before:,.0f}; expected at "
                f"least {limits.week_share:.0%} of that: does the feed still arrive?"
            )
        else:
            said += _mix(found, limits)
    return said


def _mix(found: Profile, limits: Limits) -> list[str]:
    names = sorted({*found.types_before, *found.types_last})
    before, last = ([shares.get(n, 0.0) for n in names] for shares in (found.types_before, found.types_last))
    silent = [n for n, b, v in zip(names, before, last, strict=True) if b >= limits.least_type and v == 0]
    if silent:
        return [
            f"no {' and no '.join(silent)} event in the last week, {found.types_before[silent[0]]:.0%} of all before; "
            "expected every kind of event to go on"
        ]
    distance = sum(abs(b - v) for b, v in zip(before, last, strict=True)) / 2
    if distance <= limits.mix_distance:
        return []
    return [
        f"the mix of event types moved by {distance:.2f} in the last week (from {_words(found.types_before)} to "
        f"{_words(found.types_last)}); expected at most {limits.mix_distance:.2f}"
    ]


def _against(found: Profile, last: Profile, limits: Limits) -> list[str]:
    said = []
    for name, share in (("events", limits.rows_share), ("shoppers", limits.shoppers_share)):
        now, then = getattr(found, name), getattr(last, name)
        if now < share * then:
            said.append(f"{now:,} {name}, the last run had {then:,}; expected at least {share:.0%} of them")
    if found.last_event_us < last.last_event_us:
        said.append(
            f"the newest event is of {iso(found.last_event_us)}, the last run knew events until "
            f"{iso(last.last_event_us)}: is it an old copy?"
        )
    return said


def _shares(types: np.ndarray) -> dict[str, float]:
    names = {code: name for name, code in TYPE_CODES.items()}
    codes, counts = np.unique(types, return_counts=True)
    return {names.get(int(c), "other"): float(n / len(types)) for c, n in zip(codes, counts, strict=True)}


def _words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in sorted(shares.items(), key=lambda one: -one[1]))
