"""
Events into Redis: the stream (unless the log is elsewhere: kafka_events), the shopper's history, the watermark, and no
stale slate left behind.

All of one event happens in one script, so that a crash between two commands cannot leave an event in the log
and not in the history, or the other way round; and an event_id seen before changes nothing. Whose lists they are is
looked up in the same script: what a merged visitor does is the user's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import redis.asyncio
import redis.exceptions

from orchestrator.adapters.redis_client import counted, translate
from orchestrator.core.model import Event, Loss
from orchestrator.ports import DependencyError
from orchestrator.settings import EventSettings, Retention
from protos.history import (
    MAX_ENTRIES,
    encode_entries,
    history_key,
    identity_key,
    list_key,
    shown_key,
    slates_key,
    visitors_key,
    watermark_key,
)

STREAM = b"tutti:events"

STREAM_MAX_LENGTH = 1_000_000
"""Approximate cap: at 300 bytes an event 300 MB, more than a day of a shop with 10 events a second."""

SEEN_FOR_S = 86_400
"""An event_id is remembered for a day: longer than any sane retry, short enough to be forgotten."""

WAITED = b"tutti:waited"
"""Written before WAIT, which counts from its connection's last write: a batch of nothing but duplicates has none."""

# What each script of a shopper's keys opens with. `moment` reads an entry's microseconds, bytes 6 to 13, as far as they
# fit a double: until the year 2255. An entry of another length (a foreign writer) is older than everything.
PRELUDE = (
    f"local HISTORY, SHOWN = '{history_key('').decode()}', '{shown_key('').decode()}'\n"
    f"local WATERMARK, SLATES = '{watermark_key('').decode()}', '{slates_key('').decode()}'\n"
    f"local IDENTITY, VISITORS = '{identity_key('').decode()}', '{visitors_key('').decode()}'\n"
    """
local function moment(entry)
  if #entry ~= 13 then return -1 end
  local a, b, c, d, e, f, g = string.byte(entry, 6, 12)
  return a + 256 * (b + 256 * (c + 256 * (d + 256 * (e + 256 * (f + 256 * g)))))
end
"""
)

# KEYS: seen, stream. ARGV: body, subject ("" = nobody's), entry ("" = in neither list), prefix of the list, entries
# kept, length of the stream (0: the log is elsewhere), and for how many seconds: an event_id, a user's keys, a
# visitor's.
APPEND = (
    PRELUDE
    + """
local function put(list, entry)
  local newest = redis.call('LINDEX', list, 0)
  if not newest or moment(newest) <= moment(entry) then
    redis.call('LPUSH', list, entry)
  else
    -- Late: where it belongs. Equal entries are of one moment, so the first of them is the place.
    local place
    for _, other in ipairs(redis.call('LRANGE', list, 0, -1)) do
      if moment(other) <= moment(entry) then place = other break end
    end
    if place then redis.call('LINSERT', list, 'BEFORE', place, entry) else redis.call('RPUSH', list, entry) end
  end
  redis.call('LTRIM', list, 0, ARGV[5] - 1)
end
local function count(subject, lives_s)
  redis.call('INCR', WATERMARK .. subject)
  redis.call('EXPIRE', WATERMARK .. subject, lives_s)
  redis.call('DEL', SLATES .. subject)
end

if redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[7]) == false then return 0 end
if ARGV[6] ~= '0' then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'event', ARGV[1]) end
local owner, lives_s = ARGV[2], ARGV[8]
if owner == '' then return 1 end
if string.sub(owner, 1, 2) == 'v:' then
  local identity = IDENTITY .. string.sub(owner, 3)
  local user = redis.call('GET', identity)
  lives_s = ARGV[9]
  if user then
    -- The visitor's own number goes on as well: who asks by visitor_id alone never sees it go back.
    count(owner, lives_s)
    redis.call('EXPIRE', identity, lives_s)
    owner, lives_s = 'u:' .. user, ARGV[8]
  end
end
count(owner, lives_s)
if string.sub(owner, 1, 2) == 'u:' then redis.call('EXPIRE', VISITORS .. string.sub(owner, 3), lives_s) end
if ARGV[3] ~= '' then
  put(ARGV[4] .. owner, ARGV[3])
  redis.call('EXPIRE', ARGV[4] .. owner, lives_s)
end
return 1
"""
)
_APPEND_SHA = hashlib.sha1(APPEND.encode(), usedforsecurity=False).hexdigest()


class RedisEvents:
    """
    The EventLog on Redis.

    Args:
        events: how many replicas have to have an event before it is accepted, and how long that is waited for.
        retention: how long a shopper's keys live after the last event.
        is_log: whether events are appended to the stream; False: what they change of a shopper is all that is kept.
    """

    def __init__(
        self, client: redis.asyncio.Redis, events: EventSettings, retention: Retention, is_log: bool = True
    ) -> None:
        self._client, self._is_log = client, is_log
        self._wait_replicas, self._wait_ms = events.wait_replicas, int(events.wait_ms)
        self._user_s, self._visitor_s = retention.user_s, retention.visitor_s

    async def append(self, events: Sequence[Event]) -> Sequence[bool]:
        """
        See the port. Raises DependencyError when Redis does not answer; then any part may have been taken.

        The same when too few replicas have acknowledged in time: the events are here, and sending them again is
        harmless.
        """
        if not events:
            return []
        pipe = self._client.pipeline(transaction=False)
        # Sent once a batch and named by digest for each event: 2 kB, and no answer "unknown script" to go round by.
        pipe.script_load(APPEND)
        for event in events:
            entry = b"" if event.key is None else encode_entries([event.key], [event.type_code], [event.at_us])[0]
            pipe.evalsha(
                _APPEND_SHA,
                2,
                *(_seen_key(event), STREAM),
                *(event.body if self._is_log else b"", event.subject or b"", entry, list_key("", event.type_code)),
                *(MAX_ENTRIES, STREAM_MAX_LENGTH if self._is_log else 0, SEEN_FOR_S, self._user_s, self._visitor_s),
            )
        if self._wait_replicas:
            pipe.set(WAITED, 1, ex=60)
            pipe.wait(self._wait_replicas, self._wait_ms)
        try:
            replies = await pipe.execute()
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error
        if self._wait_replicas and replies[-1] < self._wait_replicas:
            detail = f"{replies[-1]} of {self._wait_replicas} replicas had the events after {self._wait_ms} ms"
            raise DependencyError(Loss.UNAVAILABLE, detail)
        return [bool(taken) for taken in replies[1 : 1 + len(events)]]

    async def unseen(self, events: Sequence[Event]) -> list[Event]:
        """
        Those of *events* that were not taken before, each event_id once; a hint, for who asks now is not alone.

        Raises:
            DependencyError: Redis does not answer.
        """
        if not events:
            return []
        # A command each and not one MGET: an event's keys live on one node, those of two events need not.
        pipe = self._client.pipeline(transaction=False)
        for event in events:
            pipe.exists(_seen_key(event))
        try:
            known = await pipe.execute()
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error
        fresh: dict[str, Event] = {}
        for event, is_known in zip(events, known, strict=True):
            if not is_known:
                fresh.setdefault(event.event_id, event)
        return list(fresh.values())

    async def watermark(self, subject: str) -> int:
        """See the port."""
        try:
            return counted(await self._client.get(watermark_key(subject)))
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error

    async def durability(self) -> str:
        """See the port. A server that does not let itself be asked (CONFIG is often closed) is believed."""
        try:
            found = await self._client.info("persistence")
            if not int(found.get("aof_enabled", 0)):
                return "no append-only file: what was accepted since the last snapshot is lost when Redis dies"
            if found.get("aof_last_write_status", "ok") != "ok":
                return "the append-only file cannot be written"
            try:
                policy = (await self._client.config_get("appendfsync")).get("appendfsync", "everysec")
            except redis.exceptions.ResponseError:
                return "ok"
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error
        return "appendfsync is no: half a minute of events is lost with the machine" if policy == "no" else "ok"


def _seen_key(event: Event) -> bytes:
    return b"tutti:event:" + event.event_id.encode()
