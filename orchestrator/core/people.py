"""
What is known of one person, what a merge and an erasure did; and how two lists of one person become one.

A person is a subject, `u:<user_id>` or `v:<visitor_id>`. Merging a visitor into a user moves what the visitor did, and
what they do later, to the user; docs/adr/0033 says what that means and what it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MAX_VISITORS = 1_000
"""Visitors remembered of one user, the latest merged. Judged: a browser that forgets its visitor every day needs three
years to fill it; an erasure does not find the log's entries of older ones."""


@dataclass(frozen=True, slots=True)
class Merged:
    """
    What a merge did.

    is_new     False: this visitor belonged to this user already, nothing was changed
    moved      entries of the visitor's lists that are the user's now
    watermark  the user's, afterwards
    """

    is_new: bool
    moved: int
    watermark: int


@dataclass(frozen=True, slots=True)
class Erased:
    """
    What an erasure found and removed, in numbers; all 0 when there was nothing.

    redaction  names the work that is left: the stream, the log and the training data, by ingestion and `tutti train`
    """

    features: int
    history: int
    shown: int
    slates: int
    watermark: int
    identities: int
    redaction: str


@dataclass(frozen=True, slots=True)
class Deed:
    """One entry of a list: interned item key, EventType code, microseconds since the epoch, UTC."""

    key: int
    type_code: int
    at_us: int


@dataclass(frozen=True, slots=True)
class HeldSlate:
    """A remembered slate: when it was made, seconds since the epoch, and its items' keys, in order."""

    made_at: float
    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """
    All that the online store holds of one person.

    features     `view__feature` → value, None where missing; those the serving model reads; of users only
    history      what they did, newest first; shown: what they were shown
    visitor_ids  of a user: visitors merged into them, the latest last
    user_id      of a visitor: whom they were merged into
    """

    features: Mapping[str, object]
    history: tuple[Deed, ...]
    shown: tuple[Deed, ...]
    watermark: int
    visitor_ids: tuple[str, ...]
    user_id: str | None
    slates: tuple[HeldSlate, ...]


def put_in_place(entries: list[T], new: T, moment: Callable[[T], int], limit: int) -> None:
    """
    Insert *new* where its moment belongs among *entries* (newest first); of one moment, the last to come is newest.

    A late event so never passes for the latest. What is beyond *limit* is dropped.
    """
    place = next((i for i, entry in enumerate(entries) if moment(entry) <= moment(new)), len(entries))
    entries.insert(place, new)
    del entries[limit:]


def together(own: Sequence[T], theirs: Sequence[T], moment: Callable[[T], int], limit: int) -> list[T]:
    """Two lists, each newest first, as one of at most *limit*; of one moment, *own* stays in front."""
    merged = [*own, *theirs]
    # Stable: entries of one moment keep the order they came in.
    merged.sort(key=moment, reverse=True)
    return merged[:limit]
