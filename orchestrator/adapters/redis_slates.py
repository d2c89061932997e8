"""
Cached slates in Redis: one hash a subject, so that one event forgets all of that shopper's slates at once.

An entry that is older than the shopper's newest event is a miss; one that cannot be read or is of another version is
deleted besides. A lease is a field of the same hash (`lease:<field>`, holding token and end in Redis' own clock) and
not a key beside it: an event and the erasure of a shopper delete one key and so end it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
import zlib
from dataclasses import replace
from itertools import starmap
from typing import Any, TypeVar

import hiredis
import numpy as np
import orjson

from orchestrator.adapters.redis_client import counted
from orchestrator.adapters.redis_pipeline import Read, RedisPipeline, as_they_came, command
from orchestrator.core.model import Int32, Level, Loss, Rung, Slate, SlateItem
from orchestrator.core.report import keys_of
from orchestrator.core.slate_cache import LEASE_S, Entry, Found
from orchestrator.core.unread import Unread, UnreadSlots, said_by
from orchestrator.core.wording import read_pairs, read_slots, read_sources, say_pairs, say_slots, say_sources
from orchestrator.ports import DependencyError
from protos.history import slates_key, watermark_key

T = TypeVar("T")

FORMAT = 4
"""Version of the stored bytes. A reader that finds another one misses; nothing is migrated."""

LEASE = b"lease:"

# What each script opens with: the moment in ms, and whether the lease ARGV[2] of the field ARGV[1] is held.
_LEASE_HELD = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local token, until_ms = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%S+) (%d+)$')
local is_running = token and tonumber(until_ms) > now_ms
"""

# ARGV: lease field, new token, ms. A hash that only holds a lease must end as well.
TAKE_LEASE = (
    _LEASE_HELD
    + """
if is_running then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], now_ms + ARGV[3]))
if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
)

# ARGV: lease field, token.
RELEASE = (
    _LEASE_HELD
    + """
if is_running and token == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
"""
)

# ARGV: lease field, token ("" = stored without one), field, entry, its last second. The hash's expiry only grows: a
# short-lived entry must not take the others with it.
PUT = (
    _LEASE_HELD
    + """
if ARGV[2] ~= '' then
  if not is_running or token ~= ARGV[2] then return 0 end
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
local left_s = redis.call('TTL', KEYS[1])
if left_s == -1 or time[1] + left_s < tonumber(ARGV[5]) then redis.call('EXPIREAT', KEYS[1], ARGV[5]) end
return 1
"""
)

# ARGV: field, the bytes that could not be read. Another process may have written better ones since.
FORGET = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end"


class RedisSlates:
    """
    The SlateCache on Redis, over one pipelined connection: giving up on an answer costs nobody the connection, where
    redis-py would close it (150 reconnects in 300 cancelled reads, measured).
    """

    def __init__(self, pipeline: RedisPipeline) -> None:
        self._pipeline = pipeline

    def get(self, subject: str, field: str, timeout_s: float) -> asyncio.Future[Found]:
        """See the port. Raises DependencyError when Redis does not answer."""
        name = field.encode()
        reads = command(b"HGET", slates_key(subject), name) + command(b"GET", watermark_key(subject))

        def found(replies: list[Any] | ConnectionError) -> Found:
            stored, reply = _read(replies)
            watermark = counted(reply)
            if stored is None:
                return Found(None, watermark)
            entry = decode(stored)
            if entry is None:
                self._forget(subject, name, stored)
                return Found(None, watermark)
            # A slate being computed while an event arrives is stored after the event emptied the hash.
            return Found(entry if entry.slate.watermark == watermark else None, watermark)

        return self._asked(reads, 2, found)

    def _forget(self, subject: str, field: bytes, stored: bytes) -> None:
        """Delete what cannot be read. Nobody waits: what it would have told is lost either way."""
        forget = command(b"EVAL", FORGET.encode(), b"1", slates_key(subject), field, stored)
        with contextlib.suppress(ConnectionError):
            self._pipeline.asked(forget, 1, lambda _: None)

    async def put(self, subject: str, field: str, entry: Entry, lease: str | None = None) -> bool:
        """See the port. Raises DependencyError when Redis does not answer."""
        token, last_second = (lease or "").encode(), b"%d" % (int(entry.kept_until) + 1)
        return await self._run(PUT, subject, LEASE + field.encode(), token, field.encode(), encode(entry), last_second)

    async def lease(self, subject: str, field: str) -> str | None:
        """See the port. Raises DependencyError when Redis does not answer."""
        token = secrets.token_hex(8)
        taken = await self._run(
            TAKE_LEASE, subject, LEASE + field.encode(), token.encode(), b"%d" % int(LEASE_S * 1000)
        )
        return token if taken else None

    async def release(self, subject: str, field: str, lease: str) -> None:
        """See the port. Raises DependencyError when Redis does not answer."""
        await self._run(RELEASE, subject, LEASE + field.encode(), lease.encode())

    async def _run(self, script: str, subject: str, *arguments: bytes) -> bool:
        """Run *script* on the subject's hash."""
        [answer] = await self._ask(command(b"EVAL", script.encode(), b"1", slates_key(subject), *arguments), 1)
        return bool(answer)

    async def _ask(self, commands: bytes, n_replies: int) -> list[Any]:
        return await self._asked(commands, n_replies, _read)

    def _asked(self, commands: bytes, n_replies: int, read: Read[T]) -> asyncio.Future[T]:
        try:
            return self._pipeline.asked(commands, n_replies, read)
        except ConnectionError as error:
            # Raised by who awaits it, as whatever else goes wrong.
            failed: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            failed.set_exception(_translated(error))
            return failed


def _read(replies: list[Any] | ConnectionError) -> list[Any]:
    """The replies; raises DependencyError for what stands instead of them."""
    try:
        return as_they_came(replies)
    except (ConnectionError, hiredis.HiredisError) as error:
        raise _translated(error) from error


def _translated(error: ConnectionError | hiredis.HiredisError) -> DependencyError:
    loss = Loss.UNAVAILABLE if isinstance(error, ConnectionError) else Loss.REFUSED
    return DependencyError(loss, str(error))


def encode(entry: Entry) -> bytes:
    """
    The entry as versioned bytes: a head, keys, and behind them what answers will say, as text (`core.wording`).

    A hit is served as this text; who wants the slots themselves reads them from it (`core.unread`).
    """
    slate = entry.slate
    items = said_by(slate.items, say_slots) if slate.items else b""
    sources = said_by(slate.sources, say_sources)
    versions, removed = said_by(slate.model_versions, say_pairs), said_by(slate.removed, say_pairs)
    made_as, seldom = slate.made_as.encode(), _say_seldom(slate)
    numbers = _NUMBERS.pack(
        entry.fresh_until,
        entry.stale_until,
        entry.kept_until,
        entry.delta_s,
        slate.created_at,
        slate.watermark,
        _LEVELS.index(slate.level),
        slate.rung,
        len(slate.items),
        len(slate.pool),
        *map(len, (items, sources, versions, removed, made_as, seldom)),
    )
    keys = np.concatenate([keys_of(slate.items), keys_of(slate.pool)]).astype(_KEY).tobytes()
    body = b"".join((numbers, keys, items, sources, versions, removed, made_as, seldom))
    return _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def decode(stored: bytes) -> Entry | None:
    """The entry, or None when the bytes are not one of this version, or not as they were written."""
    if stored[:4] != _MAGIC or len(stored) < _BODY_AT + _NUMBERS.size:
        return None
    # The text is read later or never, so that whether it can be is settled here.
    if zlib.crc32(stored[_BODY_AT:]).to_bytes(4, "little") != stored[4:_BODY_AT]:
        return None
    numbers = _NUMBERS.unpack_from(stored, _BODY_AT)
    fresh, stale, kept, delta, created_at, watermark, level, rung, n_items, n_pool = numbers[:10]
    keys = np.frombuffer(stored, _KEY, n_items + n_pool, _BODY_AT + _NUMBERS.size)
    end = _BODY_AT + _NUMBERS.size + _KEY.itemsize * (n_items + n_pool)
    texts = [stored[end : (end := end + length)] for length in numbers[10:]]
    items, sources, versions, removed, made_as, seldom = texts
    slate = Slate(
        items=UnreadSlots(items, keys[:n_items], read_slots) if n_items else (),
        level=_LEVELS[level],
        sources=Unread(sources, read_sources),
        degraded=(),
        losses=(),
        model_versions=Unread(versions, read_pairs),
        watermark=watermark,
        created_at=created_at,
        removed=Unread(removed, read_pairs),
        rung=_RUNGS[rung],
        made_as=made_as.decode(),
    )
    return Entry(_with_seldom(slate, seldom, keys[n_items:]) if seldom else slate, fresh, stale, kept, delta)


_MAGIC, _BODY_AT = b"tts%c" % FORMAT, 8
_NUMBERS = struct.Struct("<5dq2B2H6I")
"""Four moments and the time it took, when it was made; watermark; level, rung; slots, pool; lengths of six texts."""

_KEY = np.dtype("<i4")
_LEVELS = tuple(Level)
_RUNGS = tuple(Rung)


def _say_seldom(slate: Slate) -> bytes:
    """As JSON, what hardly any remembered slate has; nothing where this one has none of it."""
    pool = slate.pool
    if not (slate.degraded or slate.losses or slate.pinned or slate.stages_ms or pool):
        return b""
    losses = [(name, loss.value) for name, loss in slate.losses]
    # Nobody is served a pool as it is, so it is not said as slots are but by column, in a third of the bytes.
    proposers: dict[tuple[str, ...], int] = {}
    found_by = [proposers.setdefault(item.sources, len(proposers)) for item in pool]
    columns = [[item.score for item in pool], found_by, list(proposers), [item.propensity for item in pool]]
    return orjson.dumps([slate.degraded, losses, slate.pinned, slate.stages_ms, columns])


def _with_seldom(slate: Slate, said: bytes, pool: Int32) -> Slate:
    degraded, losses, pinned, stages_ms, (scores, found_by, proposers, propensities) = orjson.loads(said)
    names = [tuple(each) for each in proposers]
    columns = zip(pool.tolist(), scores, [names[number] for number in found_by], propensities, strict=True)
    return replace(
        slate,
        degraded=tuple(degraded),
        losses=tuple([(name, Loss(loss)) for name, loss in losses]),
        pinned=tuple(pinned),
        stages_ms=tuple([(name, ms) for name, ms in stages_ms]),
        pool=tuple(starmap(SlateItem, columns)),
    )
