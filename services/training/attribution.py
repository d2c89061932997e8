"""
What became of every slot that was shown: slates and events joined by recommendation id and position.

Pure. The rule: nothing vanishes. Every event ends in exactly one of the counts, credited to one slot or with the reason
why to none; the order in which events arrived changes nothing, so a late one counts like one that was in time.

    recommendation id and position     that slot, if the event's item stands there or the event names none
    recommendation id and item         that item's slot of the slate
    item                               the slot in which the same session, else the same shopper, was last shown it
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.tutti.v1 import common_pb2
from services.chassis.signals import STRENGTH

OUTCOMES = (
    common_pb2.EVENT_TYPE_VIEW,
    common_pb2.EVENT_TYPE_CLICK,
    common_pb2.EVENT_TYPE_ADD_TO_CART,
    common_pb2.EVENT_TYPE_PURCHASE,
)
"""What can become of a slot; the columns of `Outcomes.done`."""

CLOCKS_APART_US = 300_000_000
"""An event that names its slate may lie this much before it. Borrowed from what the edge allows a shopper's clock."""

_NEVER = np.iinfo(np.int64).max
_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Slates:
    """
    What was served: q slates of n slots in all.

    ids           (q,) recommendation ids, each once
    subjects      (q,) `u:<user_id>` or `v:<visitor_id>`, "" where nobody is known
    sessions      (q,) session ids, "" where unknown
    at_us         (q,) int64 when the slate was answered, microseconds since the epoch
    slots         q rows of item keys, position 1 first
    propensities  (n,) float64 with which the policy showed just this item in just this slot
    """

    ids: Sequence[str]
    subjects: Sequence[str]
    sessions: Sequence[str]
    at_us: NDArray[np.int64]
    slots: Rows
    propensities: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positions(self) -> NDArray[np.int64]:
        """(n,) from 1."""
        lengths = np.diff(self.slots.offsets)
        return np.arange(len(self.slots.values)) - np.repeat(self.slots.offsets[:-1], lengths) + 1


@dataclass(frozen=True, slots=True)
class Events:
    """
    What shoppers did, m rows in any order; the same event id twice counts once.

    types      (m,) uint8 EventType
    at_us      (m,) int64 the event's own moment
    keys       (m,) int32, -1 for no item or one without a key
    slates     (m,) recommendation ids, "" where the event names none
    positions  (m,) int32 from 1; 0 where the event names none
    """

    ids: Sequence[str]
    types: NDArray[np.uint8]
    at_us: NDArray[np.int64]
    keys: NDArray[np.int32]
    slates: Sequence[str]
    positions: NDArray[np.int32]
    subjects: Sequence[str]
    sessions: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Windows:
    """
    How long after it was shown a slot may still be credited, hours. All judged: a page is left within the hour, a
    basket is filled within the day, and what was put aside is bought within three.
    """

    look_h: float = 1.0
    cart_h: float = 24.0
    purchase_h: float = 72.0

    def us_of(self, event_type: int) -> int:
        """Microseconds for one of OUTCOMES."""
        hours: dict[int, float] = {
            common_pb2.EVENT_TYPE_ADD_TO_CART: self.cart_h,
            common_pb2.EVENT_TYPE_PURCHASE: self.purchase_h,
        }
        return int(hours.get(event_type, self.look_h) * _HOUR_US)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """
    What became of n slots.

    impressed  (n,) bool: an impression says that it was shown
    done       (n, 4) bool, columns OUTCOMES
    counts     reason → events. `impressions`, `by_position`, `by_item`, `by_shopper` were credited; `duplicates`,
               `impressions_without_slot`, `without_impression`, `too_late`, `too_early`, `no_outcome` were not
    """

    impressed: NDArray[np.bool_]
    done: NDArray[np.bool_]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """(n,) bool: an impression says so, or something was done to it, which nobody does unseen."""
        shown: NDArray[np.bool_] = self.impressed | self.done.any(1)
        return shown

    @property
    def gains(self) -> Float32:
        """(n,) float32 as lessons count them: the square root of the strength of the strongest thing done, else 0."""
        strengths = np.sqrt(STRENGTH[list(OUTCOMES)])
        gains: Float32 = (self.done * strengths).max(1, initial=0.0).astype(np.float32)
        return gains


def attribute(slates: Slates, events: Events, windows: Windows = Windows()) -> Outcomes:
    """
    Credit every event to one slot, or say why not.

    An event that names its slate is measured from the slot's impression, or from the slate's own moment where no
    impression came; one that does not is credited to the impression of this item that came last before it.
    """
    places = _Places(slates)
    counts: Counter[str] = Counter()
    done = np.zeros((len(slates.slots.values), len(OUTCOMES)), np.bool_)
    distinct = _once(events, counts)
    is_impression = events.types[distinct] == common_pb2.EVENT_TYPE_IMPRESSION
    for i in distinct[is_impression].tolist():
        slot, _ = places.named_by(events, i)
        counts["impressions_without_slot" if slot is None else "impressions"] += 1
        if slot is not None:
            places.note_shown(slot, events, i)
    for i in distinct[~is_impression].tolist():
        event_type, at_us = int(events.types[i]), int(events.at_us[i])
        if event_type not in OUTCOMES:
            counts["no_outcome"] += 1
            continue
        slot, way = places.named_by(events, i)
        since_us = 0 if slot is None else places.since(slot)
        if slot is None:
            slot, since_us = places.last_shown(events, i)
        if slot is None:
            counts["without_impression"] += 1
        elif at_us < since_us - CLOCKS_APART_US:
            counts["too_early"] += 1
        elif at_us > since_us + windows.us_of(event_type):
            counts["too_late"] += 1
        else:
            counts[way] += 1
            done[slot, OUTCOMES.index(event_type)] = True
    return Outcomes(places.shown_at_us < _NEVER, done, dict(counts))


def _once(events: Events, counts: Counter[str]) -> NDArray[np.int64]:
    """Rows of the events, each id once, by their own time; of one moment by id, so that arrival decides nothing."""
    order = sorted(range(len(events)), key=lambda i: (int(events.at_us[i]), events.ids[i]))
    seen: dict[str, int] = {}
    for i in order:
        seen.setdefault(events.ids[i], i)
    counts["duplicates"] += len(events) - len(seen)
    return np.fromiter(seen.values(), np.int64, len(seen))


class _Places:
    """Where things stand: slots by slate, position and item, and who was shown which item when."""

    def __init__(self, slates: Slates) -> None:
        self._slates = slates
        self._row_of = {one: row for row, one in enumerate(slates.ids)}
        self._row = np.repeat(np.arange(len(slates)), np.diff(slates.slots.offsets))
        self.shown_at_us = np.full(len(slates.slots.values), _NEVER, np.int64)
        # (session or shopper, item) → moments of its impressions in rising order, and the slots beside them.
        self._shown: dict[tuple[str, int], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))

    def named_by(self, events: Events, i: int) -> tuple[int | None, str]:
        """The slot that event *i* names, and by what; else None, and the way that is left."""
        row = self._row_of.get(events.slates[i])
        if row is None:
            return None, "by_shopper"
        slots, key = self._slates.slots, int(events.keys[i])
        start, own, position = int(slots.offsets[row]), slots.row(row), int(events.positions[i])
        if 1 <= position <= len(own) and key in (-1, int(own[position - 1])):
            return start + position - 1, "by_position"
        there = np.flatnonzero(own == key)
        # A storefront that counts from 0, or that left slots out, still says which item it was.
        return (start + int(there[0]), "by_item") if key >= 0 and len(there) else (None, "by_shopper")

    def note_shown(self, slot: int, events: Events, i: int) -> None:
        """The impression *i* of *slot*; to be called by rising time."""
        at_us, key, row = int(events.at_us[i]), int(self._slates.slots.values[slot]), int(self._row[slot])
        self.shown_at_us[slot] = min(self.shown_at_us[slot], at_us)
        # Whom the slate was made for, and who saw it: a guest may have logged in between.
        sessions = {self._slates.sessions[row], events.sessions[i]}
        people = {self._slates.subjects[row], events.subjects[i]}
        for who in [*(f"s:{one}" for one in sessions if one), *(one for one in people if one)]:
            moments, slots = self._shown[who, key]
            moments.append(at_us)
            slots.append(slot)

    def since(self, slot: int) -> int:
        """The moment from which *slot* is measured."""
        shown_us = int(self.shown_at_us[slot])
        return shown_us if shown_us < _NEVER else int(self._slates.at_us[self._row[slot]])

    def last_shown(self, events: Events, i: int) -> tuple[int | None, int]:
        """Where this event's item was last shown before it, and when: in its session, else to its shopper."""
        at_us, key = int(events.at_us[i]), int(events.keys[i])
        for who in (f"s:{events.sessions[i]}" if events.sessions[i] else "", events.subjects[i]):
            if who and (who, key) in self._shown:
                moments, slots = self._shown[who, key]
                before = bisect_right(moments, at_us)
                if before:
                    return slots[before - 1], moments[before - 1]
        return None, 0
