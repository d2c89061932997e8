"""
The catalogue's changes in Redis: a hash of what items became, and the stream that tells everybody.

`tutti:items` lies over the data directory's items.parquet: each item that was changed since, whole, or a tombstone.
`tutti:catalogue` has one entry for each change, in the order in which Redis took them; hash, stream and counter are
written by one script, so nobody sees one without the others. Written by the edge (documents) and by ingestion (keys of
new items), followed by every orchestrator, by services that encode items, and by ingestion (docs/adr/0032).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

ITEMS = "tutti:items"
STREAM = "tutti:catalogue"
VERSION = "tutti:catalogue:version"

STREAM_MAX_LENGTH = 100_000
"""Approximate cap. Derived: 40 MB at 400 bytes an entry, and hours of a shop that changes ten items a second; a reader
who was away for longer reads the hash instead."""

NO_KEY = -1
"""Key of an item that was not given one yet."""

FIELDS = ("title", "description", "category", "brand", "price", "in_stock", "attributes")
"""Of an item's document, as in items.parquet; `attributes` is an object here and JSON text there."""

PUT, DELETE, KEY = b"put", b"delete", b"key"
"""What an entry of the stream is about; in every case it carries the whole item as it is after it."""


class Unreadable(ValueError):
    """Bytes that nobody of ours wrote."""


@dataclass(frozen=True, slots=True)
class ItemState:
    """
    What an item is after a change.

    version   number of the change, from 1, in the order of all changes; 0: as the data directory has it
    key       interned key, NO_KEY until one is given
    document  FIELDS that are known; None: deleted
    """

    item_id: str
    version: int
    key: int
    document: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What an item is to become.

    document  all of it afterwards; None: deleted
    key       its interned key as far as the wisher knows
    expected  only if this is still its version (0: as in the data directory); None: whatever it is
    """

    item_id: str
    document: Mapping[str, Any] | None
    key: int = NO_KEY
    expected: int | None = None


class Verdict(Enum):
    """TAKEN: it is so now. SAME: it was so before. STALE: somebody else changed it meanwhile, nothing was done."""

    TAKEN = "taken"
    SAME = "same"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a wish. *state*: the item as the store has it now; None: the store has no change of it."""

    verdict: Verdict
    state: ItemState | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the stream."""

    op: bytes
    state: ItemState


def document_bytes(document: Mapping[str, Any] | None) -> bytes:
    """A document as it stands in the hash; nothing for a deleted item."""
    return b"" if document is None else orjson.dumps(document)


def state_bytes(version: int, key: int, document: bytes) -> bytes:
    """A value of the hash: `VERSION KEY JSON`. The two numbers stand outside so that scripts parse no JSON."""
    return b"%d %d %b" % (version, key, document)


def read_state(item_id: bytes, held: bytes) -> ItemState:
    """
    A field of the hash and its value.

    Raises:
        Unreadable: this is not what `state_bytes` writes.
    """
    version, _, rest = held.partition(b" ")
    key, _, document = rest.partition(b" ")
    try:
        parsed = orjson.loads(document) if document else None
        if parsed is not None and not isinstance(parsed, dict):
            raise ValueError(f"a document is an object; found {type(parsed).__name__}")
        return ItemState(item_id.decode(), int(version), int(key), parsed)
    except ValueError as error:
        raise Unreadable(f"item {item_id!r:.60} holds {held!r:.60}: {error}") from error


def read_entry(fields: Mapping[bytes, bytes]) -> Entry:
    """
    The fields of a stream entry.

    Raises:
        Unreadable: a field is missing or is not what our scripts write.
    """
    try:
        op, item_id, held = fields[b"op"], fields[b"id"], fields[b"item"]
    except KeyError as error:
        raise Unreadable(f"an entry without {error}; it has {sorted(fields)!r:.80}") from error
    return Entry(op, read_state(item_id, held))


class Continuity:
    """
    Whether a reader of the stream has missed nothing: changes are numbered without gaps.

    A gap means that entries were trimmed before they were read; a number that was had before (`has_begun_anew`), that
    Redis lost its memory and older numbers mean nothing any more. In both cases the hash is to be read anew.
    """

    def __init__(self, version: int) -> None:
        """*version*: the counter, read in the same instant as the stream's last id."""
        self.version = version
        self.has_begun_anew = False

    def follows(self, entry: Entry) -> bool:
        """Whether *entry* is the next one; it is taken as read if so. Giving a key is no change of its own."""
        if entry.op == KEY:
            return True
        if entry.state.version != self.version + 1:
            self.has_begun_anew = entry.state.version <= self.version
            return False
        self.version += 1
        return True

    def is_lost(self, counter: int) -> bool:
        """Whether Redis, whose counter stands at *counter*, has forgotten what we have read."""
        self.has_begun_anew = self.has_begun_anew or counter < self.version
        return self.has_begun_anew

    def __repr__(self) -> str:
        return f"<Continuity up to {self.version}>"
