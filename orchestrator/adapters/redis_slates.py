"""
Cached slates in Redis: one hash a subject, so that one event forgets all of that shopper's slates at once.

An entry that is older than the shopper's newest event is a miss; one that cannot be read or is of another version is
deleted besides. A lease is a field of the same hash (`lease:<field>`, holding token and end in Redis' own clock) and
not a key beside it: an event and the erasure of a shopper delete one key and so end it too.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import fields
from itertools import starmap
from typing import Any

import hiredis
import orjson

from orchestrator.adapters.redis_client import counted
from orchestrator.adapters.redis_pipeline import RedisPipeline, command
from orchestrator.core.model import Level, Loss, Slate, SlateItem, SourceReport
from orchestrator.core.slate_cache import LEASE_S, Entry, Found
from orchestrator.ports import DependencyError
from protos.history import slates_key, watermark_key

FORMAT = 3
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

    async def get(self, subject: str, field: str, timeout_s: float) -> Found:
        """See the port. Raises DependencyError when Redis does not answer."""
        reads = command(b"HGET", slates_key(subject), field.encode()) + command(b"GET", watermark_key(subject))
        stored, reply = await self._ask(reads, 2)
        watermark = counted(reply)
        if stored is None:
            return Found(None, watermark)
        entry = decode(stored)
        if entry is None:
            # What it would have told is lost either way; failing to delete it must not lose the request more.
            with contextlib.suppress(DependencyError):
                await self._run(FORGET, subject, field.encode(), stored)
            return Found(None, watermark)
        # A slate being computed while an event arrives is stored after the event emptied the hash.
        return Found(entry if entry.slate.watermark == watermark else None, watermark)

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
        try:
            return await self._pipeline.ask(commands, n_replies)
        except (ConnectionError, OSError) as error:
            raise DependencyError(Loss.UNAVAILABLE, str(error)) from error
        except hiredis.HiredisError as error:
            raise DependencyError(Loss.REFUSED, str(error)) from error


def encode(entry: Entry) -> bytes:
    """The entry as versioned JSON; slots by column, which is quicker to read and half as long as by row."""
    slate = {name: getattr(entry.slate, name) for name in _AS_IT_IS}
    slate["level"] = entry.slate.level.value
    slate["losses"] = [[name, loss.value] for name, loss in entry.slate.losses]
    slate["items"], slate["pool"] = _columns(entry.slate.items), _columns(entry.slate.pool)
    moments = {"fresh": entry.fresh_until, "stale": entry.stale_until, "kept": entry.kept_until}
    return orjson.dumps({"v": FORMAT, **moments, "delta": entry.delta_s, "slate": slate})


def decode(stored: bytes) -> Entry | None:
    """The entry, or None when the bytes are not one of this version."""
    try:
        raw = orjson.loads(stored)
        if raw["v"] != FORMAT:
            return None
        fresh, stale, kept = float(raw["fresh"]), float(raw["stale"]), float(raw["kept"])
        return Entry(_slate(raw["slate"]), fresh, stale, kept, float(raw["delta"]))
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        return None


_AS_IT_IS = [field.name for field in fields(Slate) if field.name not in ("items", "pool", "touched", "level", "losses")]


def _columns(items: Sequence[SlateItem]) -> dict[str, Any]:
    proposers: dict[tuple[str, ...], int] = {}
    found_by = [proposers.setdefault(item.sources, len(proposers)) for item in items]
    return {
        "keys": [item.key for item in items],
        "scores": [item.score for item in items],
        "found_by": found_by,
        "proposers": list(proposers),
        "propensities": [item.propensity for item in items],
    }


def _slate(raw: dict[str, Any]) -> Slate:
    return Slate(
        items=_items(raw["items"]),
        level=Level(raw["level"]),
        sources=tuple([SourceReport(**source) for source in raw["sources"]]),
        degraded=tuple(raw["degraded"]),
        losses=tuple([(name, Loss(loss)) for name, loss in raw["losses"]]),
        model_versions=tuple([(name, version) for name, version in raw["model_versions"]]),
        watermark=int(raw["watermark"]),
        created_at=raw["created_at"],
        removed=tuple([(name, n) for name, n in raw["removed"]]),
        stages_ms=tuple([(name, ms) for name, ms in raw["stages_ms"]]),
        pinned=tuple(map(int, raw["pinned"])),
        pool=_items(raw["pool"]),
        made_as=str(raw["made_as"]),
    )


def _items(raw: dict[str, Any]) -> tuple[SlateItem, ...]:
    """Slots. Keys index arrays and scores are compared, so neither is taken for what it is not."""
    keys = raw["keys"]
    if not keys:
        return ()
    if set(map(type, keys)) != {int} or min(keys) < 0 or max(keys) >= 2**31:
        raise ValueError(f"item keys are int32 from 0; found {keys!r:.80}")
    proposers = [tuple(names) for names in raw["proposers"]]
    found_by = [proposers[number] for number in raw["found_by"]]
    columns = zip(keys, map(float, raw["scores"]), found_by, map(float, raw["propensities"]), strict=True)
    return tuple(starmap(SlateItem, columns))
