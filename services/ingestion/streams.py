"""
A durable stream as one consumer of a group reads it: the seam between what ingestion does and where entries come from.

The rule: an entry that was given and not acknowledged is given again, to this consumer after its death or to another
one; so whoever reads does nothing that may not be done twice. `RedisStream` is a Redis Stream, `kafka_stream` a topic.

    open → read, read, …  (what an earlier life had in hand comes first) → acknowledge what is done
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

_ALL_OF_IT = b"0"


class StreamAway(ConnectionError):
    """A broker that is not Redis does not answer, or refuses; Redis' own errors are redis-py's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One entry.

    fields      None: it left the stream while it was in hand, and nothing of it is left
    deliveries  how often it was given to somebody, this time included, as far as the broker counts
    """

    entry_id: bytes
    fields: Mapping[bytes, bytes] | None
    deliveries: int = 1


class Stream(Protocol):
    """One consumer's view. Every method raises RedisError or OSError (StreamAway) while the broker is away."""

    async def open(self) -> None:
        """Be ready to read; again after the broker was away."""

    async def read(self, block_s: float) -> list[Entry]:
        """The next entries, oldest first, after at most *block_s* of waiting; what is in hand may be among them."""

    async def acknowledge(self, entry_ids: Iterable[bytes]) -> None:
        """These are done with. What is acknowledged twice, or was taken over by another consumer, is no error."""

    async def close(self) -> None:
        """Give up what belongs to this reader alone."""


class RedisStream:
    """
    A consumer of a group on a Redis Stream. Redis may come back empty: the group is made again, from the beginning of
    what is there.

    Args:
        name: stable over restarts, unique among consumers: what it had in hand is found again by it.
        batch: entries a read asks for.
        claim_every_s, claim_idle_s: how often to look for entries another consumer took and did not finish, and how
            old those must be; far above what finishing takes, so that a healthy consumer is never robbed.
        is_emptied: entries leave the stream when they are acknowledged.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        stream: str | bytes,
        group: str,
        name: str,
        log: structlog.stdlib.BoundLogger,
        *,
        batch: int,
        claim_every_s: float,
        claim_idle_s: float,
        is_emptied: bool = False,
    ) -> None:
        self._client, self._stream, self._group, self._name, self._log = client, stream, group, name, log
        self._batch, self._claim_every_s, self._claim_idle_s = batch, claim_every_s, claim_idle_s
        self._is_emptied = is_emptied
        # After which entry what is in hand is read on; None: all of it is.
        self._in_hand_after: bytes | None = _ALL_OF_IT
        self._claimed_at = 0.0

    async def open(self) -> None:
        """See the protocol. Makes the group if need be."""
        try:
            await self._client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._in_hand_after = _ALL_OF_IT

    async def read(self, block_s: float) -> list[Entry]:
        """See the protocol: what is in hand, then what others left, then what is new."""
        try:
            if self._in_hand_after is not None:
                found = await self._ask(self._in_hand_after, None)
                self._in_hand_after = found[-1][0] if found else None
                if found:
                    return await self._counted(found)
            now = time.monotonic()
            if now - self._claimed_at >= self._claim_every_s:
                self._claimed_at = now
                if claimed := await self._claim():
                    self._log.info("claimed", entries=len(claimed), stream=self._stream)
                    return await self._counted(claimed)
            new = await self._ask(b">", max(1, int(block_s * 1000)))
            return [Entry(entry_id, fields) for entry_id, fields in new]
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._log.warning("the group is gone; making it again", stream=self._stream)
            await self.open()
            return []

    async def acknowledge(self, entry_ids: Iterable[bytes]) -> None:
        """See the protocol."""
        done = list(entry_ids)
        if not done:
            return
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xack(self._stream, self._group, *done)
            if self._is_emptied:
                pipe.xdel(self._stream, *done)
            await pipe.execute()

    async def close(self) -> None:
        """See the protocol: the client is the caller's."""

    async def _ask(self, after: bytes, block_ms: int | None) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
        answer: Any = await self._client.xreadgroup(
            self._group, self._name, {self._stream: after}, count=self._batch, block=block_ms
        )
        return flat(answer)

    async def _claim(self) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
        """Take over what a consumer that is gone left unfinished."""
        idle_ms, start, found = int(self._claim_idle_s * 1000), b"0-0", []
        while True:
            answer: Any = await self._client.xautoclaim(
                self._stream, self._group, self._name, idle_ms, start_id=start, count=self._batch
            )
            start = answer[0]
            found.extend(answer[1])
            if start in (b"0-0", "0-0"):
                return found

    async def _counted(self, entries: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Entry]:
        pending: Any = await self._client.xpending_range(
            self._stream, self._group, entries[0][0], entries[-1][0], len(entries), consumername=self._name
        )
        times = {one["message_id"]: int(one["times_delivered"]) for one in pending}
        return [Entry(entry_id, fields, times.get(entry_id, 1)) for entry_id, fields in entries]


def flat(answer: Any) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
    """The entries of XREAD's or XREADGROUP's answer for one stream."""
    # redis-py answers [[stream, entries]] with protocol 2 and {stream: [entries]} with protocol 3.
    if isinstance(answer, dict):
        return [entry for entries in answer.values() for part in entries for entry in part]
    return [entry for _, entries in answer or () for entry in entries]


def connect(url: str) -> redis.asyncio.Redis:
    """
    A client that fails at once and plainly: waiting and trying again is the consumer's own business.

    The socket timeout is far above the longest blocking read, or every quiet second would look like a broken server.
    """
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url, socket_timeout=10.0, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0)
    )
    return client
