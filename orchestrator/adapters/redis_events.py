"""
Events into Redis: the stream, the shopper's history, the watermark, and no stale slate left behind.

All of one event happens in one script, so that a crash between two commands cannot leave an event in the log
and not in the history, or the other way round; and an event_id seen before changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import redis.asyncio
import redis.exceptions

from orchestrator.adapters.redis_client import counted, translate
from orchestrator.core.model import Event
from protos.history import MAX_ENTRIES, encode_entries, list_key, slates_key, watermark_key

STREAM = b"tutti:events"

STREAM_MAX_LENGTH = 1_000_000
"""Approximate cap: at 300 bytes an event 300 MB, more than a day of a shop with 10 events a second."""

SEEN_FOR_S = 86_400
"""An event_id is remembered for a day: longer than any sane retry, short enough to be forgotten."""

# KEYS: seen, stream, the list, watermark, slates; ARGV: body, entry ("" = in neither list), caps, has subject.
APPEND = """
if redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[5]) == false then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'event', ARGV[1])
if ARGV[6] == '1' then
  if ARGV[2] ~= '' then
    redis.call('LPUSH', KEYS[3], ARGV[2])
    redis.call('LTRIM', KEYS[3], 0, ARGV[3] - 1)
  end
  redis.call('INCR', KEYS[4])
  redis.call('DEL', KEYS[5])
end
return 1
"""


class RedisEvents:
    """The EventLog on Redis."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def append(self, events: Sequence[Event]) -> Sequence[bool]:
        """See the port. Raises DependencyError when Redis does not answer; then any part may have been taken."""
        pipe = self._client.pipeline(transaction=False)
        for event in events:
            subject = event.subject or ""
            entry = b"" if event.key is None else encode_entries([event.key], [event.type_code], [event.at_us])[0]
            pipe.eval(
                APPEND,
                5,
                *(b"tutti:event:" + event.event_id.encode(), STREAM),
                *(list_key(subject, event.type_code), watermark_key(subject), slates_key(subject)),
                *(event.body, entry, MAX_ENTRIES, STREAM_MAX_LENGTH, SEEN_FOR_S),
                b"1" if event.subject else b"0",
            )
        try:
            return [bool(taken) for taken in await pipe.execute()]
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error

    async def watermark(self, subject: str) -> int:
        """See the port."""
        try:
            return counted(await self._client.get(watermark_key(subject)))
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error
