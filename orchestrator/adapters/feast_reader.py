"""
The shopper from Redis in one round trip: Feast's features read in Feast's own layout, recent history, watermark.

Feast's SDK reads the same values for 20 times the CPU (docs/features.md); the parity test holds the two equal. What is
read, and in which order, is the read plan of the model that will be asked, so this file knows no feature by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.adapters.redis_pipeline import Address, RedisPipeline, command
from protos.arrays import Float32, Int32
from protos.feast_layout import ReadPlan
from protos.history import MAX_ENTRIES, columns, history_key, shown_key, watermark_key

_LAST = b"%d" % (MAX_ENTRIES - 1)


@dataclass(frozen=True, slots=True)
class UserRow:
    """
    What Redis knows of one subject.

    numeric        (k,) float32 in plan order, NaN where missing or expired
    categorical    (c,) str in plan order, "" where missing or expired
    found          at least one view had a fresh row
    history_keys   (h,) int32 item keys, oldest first: what was done, and what was shown, at most 200 of each
    history_types  (h,) uint8 EventType, aligned
    history_at_us  (h,) int64 microseconds since the epoch, aligned
    watermark      events accepted so far
    """

    numeric: Float32
    categorical: tuple[str, ...]
    found: bool
    history_keys: Int32
    history_types: NDArray[np.uint8]
    history_at_us: NDArray[np.int64]
    watermark: int


class FeastRedisReader:
    """
    Reads shoppers over one pipelined connection that it keeps up by itself.

    The caller sets the timeout (`asyncio.timeout`); giving up is safe at any moment.
    """

    def __init__(self, plan: ReadPlan | None, redis_url: str) -> None:
        """
        Without a *plan* there are no features to read; history and watermark still are.

        Raises:
            ValueError: a URL that is not redis://, rediss:// or unix://.
        """
        self.plan = plan
        self._pipeline = RedisPipeline(Address.parse(redis_url))
        self._user = plan.user if plan is not None and plan.user.fields else None
        # HMGET with everything but the key, written once: 25 fields a request are not put together again.
        fields = self._user.fields if self._user is not None else ()
        self._hmget = b"*%d\r\n$5\r\nHMGET\r\n" % (len(fields) + 2)
        self._fields = b"".join([b"$%d\r\n%b\r\n" % (len(name), name) for name in fields])
        n_numeric, n_categorical = (len(plan.user.numeric), len(plan.user.categorical)) if plan is not None else (0, 0)
        self._unknown = np.full(n_numeric, np.nan, np.float32), ("",) * n_categorical

    @property
    def is_connected(self) -> bool:
        """Whether a read could be answered now."""
        return self._pipeline.is_connected

    async def start(self) -> None:
        """Connect. A Redis that is down is retried in the background and is no error here."""
        await self._pipeline.start()

    async def close(self) -> None:
        """Close the connection."""
        await self._pipeline.close()

    async def read(self, subject: str, user_id: str | None, now_s: float) -> UserRow:
        """
        Everything known of *subject* at *now_s* (seconds since the epoch, for the views' ttl).

        Args:
            subject: `u:<user_id>` or `v:<visitor_id>`, whose history and watermark are read.
            user_id: whose features are read; None reads none. Somebody unknown is all missing, not an error.

        Raises:
            ConnectionError: Redis is not there, hangs, or has too much waiting.
            hiredis.ReplyError: Redis refused a command.
            ValueError: a reply that cannot be what was asked for.
        """
        commands = [
            command(b"LRANGE", history_key(subject), b"0", _LAST),
            command(b"LRANGE", shown_key(subject), b"0", _LAST),
            command(b"GET", watermark_key(subject)),
        ]
        key = self._key(user_id)
        if key is not None and self._user is not None:
            commands.append(b"%b$%d\r\n%b\r\n%b" % (self._hmget, len(key), key, self._fields))
        replies = await self._pipeline.ask(b"".join(commands), len(commands))
        keys, types, at_us = columns(replies[0], replies[1])
        (numeric, categorical), found = self._unknown, False
        if len(replies) > 3 and self._user is not None:
            known = self._user.decode_one(replies[3], now_s)
            numeric, categorical, found = known.numeric, known.categorical, known.found
        return UserRow(numeric, categorical, found, keys, types, at_us, int(replies[2] or 0))

    def _key(self, user_id: str | None) -> bytes | None:
        if user_id is None or self._user is None:
            return None
        try:
            return self._user.redis_key(user_id)
        except ValueError:  # an id that the join key's type cannot hold belongs to nobody
            return None

    def __repr__(self) -> str:
        return f"<FeastRedisReader {self.plan!r} over {self._pipeline!r}>"
