"""
How far ingestion is behind, asked of the broker: for the metrics of the process, and for `tutti ingest status`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import redis.asyncio
from redis.exceptions import ResponseError

from protos.history import REDACTIONS
from protos.live_features import POSITION
from services.ingestion.consume import DEAD, GROUP, STREAM
from services.ingestion.kafka_lag import TopicWatch
from services.ingestion.redact import position
from services.ingestion.tails import is_entry


@dataclass(frozen=True, slots=True)
class Lag:
    """
    What waits. Ages are seconds by Redis' clock, 0.0 for nothing that waits.

    unread          entries no consumer was given yet
    pending         given, and not in the log yet
    oldest_s        age of the oldest entry of both
    features_s      age of the oldest entry whose features may not be in the store yet; None: all that the log speaks of
                    is still to be computed
    dead            entries that will never be events, and when the last came, if there is any
    redactions      people's orders not carried out
    stream, consumers  entries in the stream; names in the group
    broker          redis, or kafka: then `unread` is all that waits, for a topic does not know what was given to
                    whom, and `consumers` is not asked
    """

    unread: int
    pending: int
    oldest_s: float
    features_s: float | None
    dead: int
    last_dead_s: float | None
    last_dead_reason: str
    redactions: int
    stream: int
    consumers: tuple[str, ...]
    broker: str = "redis"


async def look(client: redis.asyncio.Redis, watch: TopicWatch | None = None) -> Lag:
    """
    Now; *watch*: where events are in Kafka.

    Raises:
        redis.exceptions.RedisError: Redis is not there or refuses; OSError: the same of Kafka.
    """
    lag = await _of_redis(client)
    if watch is None:
        return lag
    topic = await watch.look(await client.get(POSITION))
    return replace(
        lag,
        unread=topic.waiting,
        pending=0,
        oldest_s=topic.oldest_s,
        features_s=topic.features_s,
        stream=topic.length,
        consumers=(),
        broker="kafka",
    )


async def _of_redis(client: redis.asyncio.Redis) -> Lag:
    async with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.xlen(STREAM)
        pipe.xlen(DEAD)
        pipe.xrevrange(DEAD, count=1)
        pipe.xlen(REDACTIONS)
        pipe.get(POSITION)
        (seconds, micros), length, dead, last_dead, orders, settled = await pipe.execute()
    now_ms = seconds * 1000 + micros // 1000
    unread, pending, oldest, consumers = await _of_group(client, length)
    unsettled: float | None = None
    if settled is not None and is_entry(settled):
        unsettled = _age_s(await _first_after(client, settled), now_ms)
    return Lag(
        unread=unread,
        pending=pending,
        oldest_s=_age_s(oldest, now_ms),
        features_s=unsettled,
        dead=dead,
        last_dead_s=_age_s(last_dead[0][0], now_ms) if last_dead else None,
        last_dead_reason=last_dead[0][1].get(b"reason", b"").decode(errors="replace") if last_dead else "",
        redactions=orders,
        stream=length,
        consumers=consumers,
    )


async def _of_group(client: redis.asyncio.Redis, length: int) -> tuple[int, int, bytes | None, tuple[str, ...]]:
    """Entries unread and pending, the oldest of them, and the consumers; without a group everything is unread."""
    try:
        groups: Any = await client.xinfo_groups(STREAM)
    except ResponseError:
        groups = []
    group = next((one for one in groups if _text(one["name"]) == GROUP), None)
    if group is None:
        return length, 0, await _first_after(client, b"0-0"), ()
    pending: Any = await client.xpending(STREAM, GROUP)
    delivered = _text(group["last-delivered-id"]).encode()
    next_one = await _first_after(client, delivered)
    oldest = min((one for one in (pending["min"], next_one) if one is not None), key=position, default=None)
    consumers: Any = await client.xinfo_consumers(STREAM, GROUP)
    # The server cannot count past a deletion, and says nothing then; the stream's own length is a bound.
    unread = group.get("lag")
    if unread is None:
        unread = 0 if next_one is None else length
    return int(unread), int(pending["pending"]), oldest, tuple(sorted(_text(one["name"]) for one in consumers))


async def _first_after(client: redis.asyncio.Redis, entry_id: bytes) -> bytes | None:
    found: Any = await client.xrange(STREAM, f"({_text(entry_id)}", "+", count=1)
    return found[0][0] if found else None


def _age_s(entry_id: bytes | None, now_ms: int) -> float:
    return 0.0 if entry_id is None else max(0.0, (now_ms - position(entry_id)[0]) / 1000)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
