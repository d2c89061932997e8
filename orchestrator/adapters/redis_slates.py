"""
Cached slates in Redis: one hash a subject, so that one event forgets all of that shopper's slates at once.

An entry that cannot be read, is of another version, or is older than the shopper's newest event is a miss.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import hiredis
import orjson

from orchestrator.adapters.redis_client import counted
from orchestrator.adapters.redis_pipeline import RedisPipeline, command
from orchestrator.core.model import Level, Loss, Slate, SlateItem, SourceReport
from orchestrator.core.slate_cache import Entry
from orchestrator.ports import DependencyError
from protos.history import slates_key, watermark_key

FORMAT = 1
"""Version of the stored bytes. A reader that finds another one misses; nothing is migrated."""


class RedisSlates:
    """
    The SlateCache on Redis, over one pipelined connection: giving up on an answer costs nobody the connection, where
    redis-py would close it (150 reconnects in 300 cancelled reads, measured).
    """

    def __init__(self, pipeline: RedisPipeline) -> None:
        self._pipeline = pipeline

    async def get(self, subject: str, field: str, timeout_s: float) -> Entry | None:
        """See the port. Raises DependencyError when Redis does not answer."""
        reads = command(b"HGET", slates_key(subject), field.encode()) + command(b"GET", watermark_key(subject))
        stored, watermark = await self._ask(reads, 2)
        entry = decode(stored) if stored is not None else None
        # A slate being computed while an event arrives is stored after the event emptied the hash.
        if entry is not None and entry.slate.watermark != counted(watermark):
            return None
        return entry

    async def put(self, subject: str, field: str, entry: Entry) -> None:
        """See the port. Raises DependencyError when Redis does not answer."""
        key = slates_key(subject)
        expires_at = str(int(entry.stale_until) + 1).encode()
        writes = command(b"HSET", key, field.encode(), encode(entry)) + command(b"EXPIREAT", key, expires_at)
        await self._ask(writes, 2)

    async def _ask(self, commands: bytes, n_replies: int) -> list[Any]:
        try:
            return await self._pipeline.ask(commands, n_replies)
        except (ConnectionError, OSError) as error:
            raise DependencyError(Loss.UNAVAILABLE, str(error)) from error
        except hiredis.HiredisError as error:
            raise DependencyError(Loss.REFUSED, str(error)) from error


def encode(entry: Entry) -> bytes:
    """The entry as versioned JSON."""
    slate = asdict(entry.slate)
    slate["level"] = entry.slate.level.value
    slate["losses"] = [[name, loss.value] for name, loss in entry.slate.losses]
    return orjson.dumps({"v": FORMAT, "fresh": entry.fresh_until, "stale": entry.stale_until, "slate": slate})


def decode(stored: bytes) -> Entry | None:
    """The entry, or None when the bytes are not one of this version."""
    try:
        raw = orjson.loads(stored)
        if raw["v"] != FORMAT:
            return None
        return Entry(_slate(raw["slate"]), float(raw["fresh"]), float(raw["stale"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def _slate(raw: dict[str, Any]) -> Slate:
    return Slate(
        items=tuple(_item(item) for item in raw["items"]),
        level=Level(raw["level"]),
        sources=tuple(SourceReport(**source) for source in raw["sources"]),
        degraded=tuple(raw["degraded"]),
        losses=tuple((name, Loss(loss)) for name, loss in raw["losses"]),
        model_versions=tuple((name, version) for name, version in raw["model_versions"]),
        watermark=int(raw["watermark"]),
        created_at=raw["created_at"],
        removed=tuple((name, n) for name, n in raw["removed"]),
        stages_ms=tuple((name, ms) for name, ms in raw["stages_ms"]),
    )


def _item(raw: dict[str, Any]) -> SlateItem:
    """One slot. Keys index arrays and scores are compared, so neither is taken for what it is not."""
    key = raw["key"]
    if type(key) is not int or not 0 <= key < 2**31:
        raise ValueError(f"an item key is an int32 from 0; found {key!r}")
    return SlateItem(key, float(raw["score"]), tuple(raw["sources"]), float(raw["propensity"]))
