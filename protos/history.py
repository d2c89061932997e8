"""
A shopper's history in Redis: native lists of 13-byte entries, newest first by their own time, with a counter beside.

What the shopper did and what they were shown are two lists of one format: ten pages of twenty impressions would push
every click out of a single one. Readers get them merged.

Written by the edge (before `202`) and by the seeding of a new store, read by the orchestrator in the same
round trip as the features. Item keys are interned and never reused, so entries stay readable for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ENTRY = np.dtype([("key", "<i4"), ("type", "u1"), ("at_us", "<i8")])
"""One event: interned item key, EventType of common.proto, microseconds since the epoch, UTC."""

IMPRESSION = 3
"""EventType of common.proto; a test holds them equal."""

MAX_ENTRIES = 200
"""Entries kept of each. Derived: 200 entries are 2.6 kB and three orders of Online Retail's p90 size (46 lines)."""


def history_key(subject: str) -> bytes:
    """Redis key of the list. *subject* is `u:<user_id>` or `v:<visitor_id>`."""
    return b"tutti:history:" + subject.encode()


def shown_key(subject: str) -> bytes:
    """Redis key of the list of impressions; the rest is under `history_key`. Entries and length are the same."""
    return b"tutti:shown:" + subject.encode()


def list_key(subject: str, type_code: int) -> bytes:
    """Redis key of the list that an event of this type belongs to."""
    return shown_key(subject) if type_code == IMPRESSION else history_key(subject)


def watermark_key(subject: str) -> bytes:
    """Redis key of the counter of events accepted for *subject*; a slate carries the value it saw."""
    return b"tutti:watermark:" + subject.encode()


def slates_key(subject: str) -> bytes:
    """Redis key of the hash of cached slates; whoever appends to the history deletes it."""
    return b"tutti:slates:" + subject.encode()


def identity_key(visitor_id: str) -> bytes:
    """Redis key of the user id that a merged visitor belongs to; what that visitor does goes to the user's lists."""
    return b"tutti:identity:" + visitor_id.encode()


def visitors_key(user_id: str) -> bytes:
    """Redis key of the sorted set of visitors merged into *user_id*, by when: whose traces an erasure looks for."""
    return b"tutti:visitors:" + user_id.encode()


REDACTIONS = b"tutti:redactions"
"""
Stream of people to be taken out of the event stream and of the event log; an entry is deleted when that is done.
Fields: `users` and `visitors`, ids joined by newlines (an id holds no control characters); `until`, the last entry of
the event stream that may be about them; `at_ms`, the moment of the erasure by Redis' clock.
"""

SEEDED_FOR_S = 400 * 86_400
"""What seeding writes lives this long without an event; the edge's own default (`retention.user_days`)."""


def encode_entries(keys: Sequence[int] | NDArray[np.int32], types: Sequence[int], at_us: Sequence[int]) -> list[bytes]:
    """One bytes value an event, in the given order, ready for LPUSH (so give the oldest first)."""
    entries = np.empty(len(keys), ENTRY)
    entries["key"], entries["type"], entries["at_us"] = keys, types, at_us
    raw = entries.tobytes()
    return [raw[i : i + ENTRY.itemsize] for i in range(0, len(raw), ENTRY.itemsize)]


def decode_entries(values: Sequence[bytes]) -> NDArray[np.void]:
    """
    The list as LRANGE returned it (newest first) → structured array of ENTRY, oldest first.

    An entry of another length (a foreign writer) is dropped rather than trusted.
    """
    raw = b"".join([v for v in values if len(v) == ENTRY.itemsize])
    return np.frombuffer(raw, ENTRY)[::-1]


def columns(
    done: Sequence[bytes], shown: Sequence[bytes]
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
    """
    Both lists as LRANGE returned them → keys, types and at_us of one history, each (h,) contiguous, oldest first.

    Of one moment, what was shown comes before what was done. Entries of another length are dropped as in
    `decode_entries`. One read of all bytes: structured arrays are slow to join, sort and take apart.
    """
    values = [*done, *shown]
    if set(map(len, values)) - {ENTRY.itemsize}:
        done = [value for value in done if len(value) == ENTRY.itemsize]
        shown = [value for value in shown if len(value) == ENTRY.itemsize]
        values = [*done, *shown]
    # Backwards: what was shown, oldest first, and behind it what was done, so that a stable sort keeps them so.
    rows = np.frombuffer(b"".join(values), ENTRY)[::-1]
    at_us = np.ascontiguousarray(rows["at_us"])
    if not done or not shown:
        return np.ascontiguousarray(rows["key"]), np.ascontiguousarray(rows["type"]), at_us
    order = np.argsort(at_us, kind="stable")
    return rows["key"][order], rows["type"][order], at_us[order]
