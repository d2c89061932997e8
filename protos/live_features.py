"""
What ingestion and model services tell each other about fresh features, in Redis.

Ingestion writes rows in Feast's own layout and then says which items it wrote, in one stream; whoever holds items'
features in memory reads these items again. The stream is a hint and no record: who was away reads everything.
"""

from __future__ import annotations

from collections.abc import Iterable

CHANGES = "tutti:features:items"
"""Stream; one entry a batch, `items`: ids joined by newlines (an id holds no control characters)."""

CHANGES_MAX_LENGTH = 10_000
"""Approximate cap. Derived: four batches a second are 40 minutes, and a reader reads everything every minute anyway."""

POSITION = "tutti:features:position"
"""
Up to which entry of the event stream everything is in the store. Whoever takes features back to those of training (the
seeding of a store) deletes it: then all that the event log speaks of is computed again.
"""


AGAIN = "tutti:features:again"
"""
Set of `u:<user>` and `i:<item>`: rows that an erasure makes wrong. Whoever carries an erasure out names them before the
files forget the person; whoever writes rows takes them out when no erasure waits any more. So a death in between leaves
nobody's row behind.
"""


def entry(item_ids: Iterable[str]) -> dict[bytes, bytes]:
    """Fields of one entry of the stream."""
    return {b"items": "\n".join(item_ids).encode()}


def item_ids(fields: dict[bytes, bytes]) -> list[str]:
    """What `entry` was given; nothing for an entry of somebody else's."""
    try:
        return [one for one in fields.get(b"items", b"").decode().split("\n") if one]
    except UnicodeDecodeError:
        return []
