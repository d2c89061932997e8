"""
One person's keys in Redis: a visitor merged into a user, everything erased, everything shown.

A merge and an erasure are one script each: no event falls between what is moved and what is not, and nobody is half
erased. What cannot be done at once (the event stream, files) is left as an entry of `tutti:redactions`, written by the
same script, and done by services/ingestion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import redis.asyncio
import redis.exceptions

from orchestrator.adapters.redis_client import counted, translate
from orchestrator.adapters.redis_events import PRELUDE, STREAM
from orchestrator.adapters.redis_slates import LEASE, decode
from orchestrator.core.model import Loss
from orchestrator.core.people import MAX_VISITORS, Deed, Erased, Held, HeldSlate, Merged
from orchestrator.core.report import keys_of
from orchestrator.ports import DependencyError
from orchestrator.settings import Retention
from protos.feast_layout import EntityPlan, ReadPlan
from protos.history import (
    MAX_ENTRIES,
    REDACTIONS,
    decode_entries,
    history_key,
    identity_key,
    shown_key,
    slates_key,
    visitors_key,
    watermark_key,
)

# ARGV: visitor id, user id, entries kept, seconds a user's and a visitor's keys live, visitors kept.
MERGE = (
    PRELUDE
    + """
local visitor, user = ARGV[1], ARGV[2]
local theirs, own = 'v:' .. visitor, 'u:' .. user
local before = redis.call('GET', IDENTITY .. visitor)
local now = redis.call('TIME')
redis.call('SET', IDENTITY .. visitor, user, 'EX', ARGV[5])
redis.call('ZADD', VISITORS .. user, now[1] + now[2] / 1000000, visitor)
redis.call('ZREMRANGEBYRANK', VISITORS .. user, 0, -ARGV[6] - 1)
redis.call('EXPIRE', VISITORS .. user, ARGV[4])
local mine = tonumber(redis.call('GET', WATERMARK .. own) or 0)
if before == user then return {0, 0, mine} end

local moved = 0
for _, prefix in ipairs({HISTORY, SHOWN}) do
  local from = redis.call('LRANGE', prefix .. theirs, 0, -1)
  if #from > 0 then
    local into, both, i, j = redis.call('LRANGE', prefix .. own, 0, -1), {}, 1, 1
    while #both < tonumber(ARGV[3]) and (into[i] or from[j]) do
      if into[i] and (not from[j] or moment(into[i]) >= moment(from[j])) then
        both[#both + 1], i = into[i], i + 1
      else
        both[#both + 1], j = from[j], j + 1
      end
    end
    redis.call('DEL', prefix .. theirs, prefix .. own)
    redis.call('RPUSH', prefix .. own, unpack(both))
    redis.call('EXPIRE', prefix .. own, ARGV[4])
    moved = moved + #from
  end
end
-- The user's number is at least the visitor's from here on, and both have grown: a slate that is being made of what was
-- before can be stored and is never served. A visitor's events are counted once, with the first user.
local seen = tonumber(redis.call('GET', WATERMARK .. theirs) or 0)
local total = before and math.max(mine, seen) or mine + seen
redis.call('SET', WATERMARK .. theirs, seen + 1, 'EX', ARGV[5])
redis.call('SET', WATERMARK .. own, total + 1, 'EX', ARGV[4])
redis.call('DEL', SLATES .. theirs, SLATES .. own)
return {1, moved, total + 1}
"""
)

# KEYS: redactions, stream, and the features' hash, if there can be one. ARGV: "u" or "v", id.
ERASE = (
    PRELUDE
    + """
local kind, id = ARGV[1], ARGV[2]
local subject, visitors = kind .. ':' .. id, {}
local found = {
  KEYS[3] and redis.call('DEL', KEYS[3]) or 0,
  redis.call('LLEN', HISTORY .. subject), redis.call('LLEN', SHOWN .. subject), redis.call('HLEN', SLATES .. subject),
  tonumber(redis.call('GET', WATERMARK .. subject) or 0),
}
local function forget(one)
  redis.call('DEL', HISTORY .. one, SHOWN .. one, SLATES .. one, WATERMARK .. one)
end
forget(subject)
if kind == 'u' then
  visitors = redis.call('ZRANGE', VISITORS .. id, 0, -1)
  for _, visitor in ipairs(visitors) do
    -- A browser that has since become somebody else's stays theirs.
    if redis.call('GET', IDENTITY .. visitor) == id then
      redis.call('DEL', IDENTITY .. visitor)
      forget('v:' .. visitor)
    end
  end
  redis.call('DEL', VISITORS .. id)
  found[6] = #visitors
else
  local user = redis.call('GET', IDENTITY .. id)
  if user then redis.call('ZREM', VISITORS .. user, id) end
  found[6] = redis.call('DEL', IDENTITY .. id)
  visitors = {id}
end
local last, now = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1), redis.call('TIME')
local now_ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
found[7] = redis.call('XADD', KEYS[1], '*', 'users', kind == 'u' and id or '',
  'visitors', table.concat(visitors, '\\n'), 'until', last[1] and last[1][1] or '0-0', 'at_ms', now_ms)
return found
"""
)


class RedisPeople:
    """
    The People port on Redis.

    plan: what the serving model reads of a user, and so where Feast keeps it; None: nobody has features.
    """

    def __init__(self, client: redis.asyncio.Redis, plan: ReadPlan | None, retention: Retention) -> None:
        self._client = client
        self._user = plan.user if plan is not None and plan.user.fields else None
        self._user_s, self._visitor_s = retention.user_s, retention.visitor_s

    async def merge(self, visitor_id: str, user_id: str) -> Merged:
        """See the port. Raises DependencyError when Redis does not answer; then it may have happened."""
        is_new, moved, watermark = await self._run(
            MERGE, (), visitor_id, user_id, MAX_ENTRIES, self._user_s, self._visitor_s, MAX_VISITORS
        )
        return Merged(bool(is_new), int(moved), int(watermark))

    async def erase(self, subject: str) -> Erased:
        """See the port. Raises DependencyError when Redis does not answer; then it may have happened."""
        kind, identifier = subject[:1], subject[2:]
        key = self._features_key(subject)
        keys = (REDACTIONS, STREAM) if key is None else (REDACTIONS, STREAM, key)
        *numbers, redaction = await self._run(ERASE, keys, kind, identifier)
        features, history, shown, slates, watermark, identities = map(int, numbers)
        return Erased(features, history, shown, slates, watermark, identities, redaction.decode())

    async def held(self, subject: str) -> Held:
        """See the port. Raises DependencyError when Redis does not answer."""
        pipe = self._client.pipeline(transaction=False)
        pipe.lrange(history_key(subject), 0, MAX_ENTRIES - 1)
        pipe.lrange(shown_key(subject), 0, MAX_ENTRIES - 1)
        pipe.get(watermark_key(subject))
        pipe.zrange(visitors_key(subject[2:]) if subject.startswith("u:") else b"", 0, -1)
        pipe.get(identity_key(subject[2:]) if subject.startswith("v:") else b"")
        # The stubs know no bytes here.
        pipe.hgetall(slates_key(subject))  # type: ignore[arg-type]
        if (features := self._features_key(subject)) is not None and self._user is not None:
            pipe.hmget(features, list(self._user.fields))  # type: ignore[arg-type]
        try:
            history, shown, watermark, visitors, user, slates, *cells = await pipe.execute()
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error
        return Held(
            features=_features(self._user, cells[0]) if self._user is not None and cells else {},
            history=_deeds(history),
            shown=_deeds(shown),
            watermark=counted(watermark),
            visitor_ids=tuple(visitor.decode() for visitor in visitors),
            user_id=None if user is None else user.decode(),
            slates=_slates(slates),
        )

    def _features_key(self, subject: str) -> bytes | None:
        """Feast's hash of the user; None where nobody of this id can have one."""
        if self._user is None or not subject.startswith("u:"):
            return None
        try:
            return self._user.redis_key(subject[2:])
        except ValueError:
            return None

    async def _run(self, script: str, keys: Sequence[bytes], *arguments: Any) -> Any:
        try:
            # redis-py's stub gives the answer of its synchronous client.
            return await self._client.eval(script, len(keys), *keys, *arguments)  # type: ignore[misc]
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error


def _deeds(entries: Sequence[bytes]) -> tuple[Deed, ...]:
    return tuple(Deed(int(e["key"]), int(e["type"]), int(e["at_us"])) for e in decode_entries(entries)[::-1])


def _slates(fields: dict[bytes, bytes]) -> tuple[HeldSlate, ...]:
    entries = [decode(stored) for name, stored in fields.items() if not name.startswith(LEASE)]
    slates = [entry.slate for entry in entries if entry is not None]
    held = [HeldSlate(slate.created_at, tuple(keys_of(slate.items).tolist())) for slate in slates]
    return tuple(sorted(held, key=lambda slate: slate.made_at))


def _features(plan: EntityPlan, cells: Sequence[bytes | None]) -> dict[str, object]:
    """`view__feature` → value; empty for somebody without a row."""
    if not any(cell is not None for cell in cells):
        return {}
    try:
        # As of 1970, when nothing had expired: what the models do not use any more is held all the same.
        columns = plan.decode([cells], 0.0)
    except ValueError as error:
        raise DependencyError(Loss.INVALID_REPLY, str(error)) from error
    numbers = [None if math.isnan(value) else value for value in columns.numeric[0].tolist()]
    found: dict[str, object] = dict(zip(plan.numeric, numbers, strict=True))
    found |= {name: text or None for name, text in zip(plan.categorical, columns.categorical[0], strict=True)}
    return found | {name: values[0] for name, values in columns.others.items()}
