"""
The event stream as one reader follows it without a group: every entry counts at once, and not when its file is written.

The rule: `position` speaks of what `read` has returned and of nothing else. Whoever keeps it, once what was read has
had its effect, misses nothing after a death.
"""

from __future__ import annotations

from typing import Any, Protocol

import redis.asyncio
from redis.exceptions import ResponseError

from services.ingestion.redact import position as place
from services.ingestion.streams import Entry, flat

READ_AT_ONCE = 1_000
"""As the consumer."""


class Tail(Protocol):
    """Every method raises RedisError or OSError (streams.StreamAway) while the broker is away."""

    @property
    def position(self) -> bytes:
        """Up to where was read; for `begin` of a later life, and nobody else's to understand."""

    async def begin(self, settled: bytes | None) -> bool:
        """
        Read on where nothing before is missing in the log's files, and nothing after is in the store for sure.

        Args:
            settled: the position up to which the store has everything; None: it has nothing of it.

        Returns:
            Whether that still holds. False: what came right after it may be gone, and the log has to be asked.
        """

    async def read(self, block_s: float | None) -> list[Entry]:
        """What comes next, oldest first, after at most *block_s* of waiting; None: what is there."""

    async def close(self) -> None:
        """Give up what belongs to this reader alone."""


class RedisTail:
    """On a Redis Stream; *group* is the consumers', whose files are the log."""

    def __init__(self, client: redis.asyncio.Redis, stream: str, group: str) -> None:
        self._client, self._stream, self._group = client, stream, group
        self._last: bytes = b"0-0"

    @property
    def position(self) -> bytes:
        """See the protocol: the last entry's id."""
        return self._last

    async def begin(self, settled: bytes | None) -> bool:
        """See the protocol. What another broker's reader has left as its position does not hold."""
        if settled is not None and not is_entry(settled):
            settled = None
        settled, self._last = await self._where_to_begin(settled)
        return settled is not None

    async def _where_to_begin(self, settled: bytes | None) -> tuple[bytes | None, bytes]:
        try:
            groups: Any = await self._client.xinfo_groups(self._stream)
        except ResponseError:
            groups = []
        group = next((one for one in groups if _bytes(one["name"]) == self._group.encode()), None)
        if group is None:
            return settled, b"0-0"
        pending: Any = await self._client.xpending(self._stream, self._group)
        beginnings = [_bytes(group["last-delivered-id"])]
        if pending["min"] is not None:
            beginnings.append(_before(_bytes(pending["min"])))
        if settled is not None:
            beginnings.append(settled)
            oldest: Any = await self._client.xrange(self._stream, count=1)
            if oldest and place(oldest[0][0]) > place(settled):
                # What came right after it may have been trimmed before anybody here read it; the log has it.
                settled = None
        return settled, min(beginnings, key=place)

    async def read(self, block_s: float | None) -> list[Entry]:
        """See the protocol."""
        block_ms = None if block_s is None else max(1, int(block_s * 1000))
        found = flat(await self._client.xread({self._stream: self._last}, count=READ_AT_ONCE, block=block_ms))
        if found:
            self._last = found[-1][0]
        return [Entry(entry_id, fields) for entry_id, fields in found]

    async def close(self) -> None:
        """See the protocol: the client is the caller's."""


def is_entry(position: bytes) -> bool:
    """Whether this is an entry's id, and not what another broker's reader has left."""
    milliseconds, dash, sequence = position.partition(b"-")
    return bool(dash) and milliseconds.isdigit() and sequence.isdigit()


def _before(entry_id: bytes) -> bytes:
    """The id right before: reading after it begins with this entry."""
    milliseconds, sequence = place(entry_id)
    return b"%d-%d" % ((milliseconds, sequence - 1) if sequence else (max(milliseconds - 1, 0), 2**64 - 1))


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value
