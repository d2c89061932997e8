"""
Changes of items into Redis: the hash of what they became, the stream that tells of it, and their number.

All of one change happens in one script (docs/adr/0032): nobody sees an item that the stream will not tell of, and
numbers have no gaps. Byte formats: protos/catalogue.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio
import redis.exceptions

from orchestrator.adapters.redis_client import translate
from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from protos.catalogue import (
    ITEMS,
    STREAM,
    STREAM_MAX_LENGTH,
    VERSION,
    ItemState,
    Outcome,
    Unreadable,
    Verdict,
    Wish,
    document_bytes,
    read_state,
)

WISHES_A_SCRIPT = 100
"""Derived: a script holds Redis' one thread; a change is three commands and some 10 µs, so that others wait 1 ms."""

# KEYS: items, stream, version; ARGV: cap, then four a wish: id, document ("" deletes), expected ("" any), key.
CHANGE = """
local outcomes = {}
for i = 2, #ARGV, 4 do
  local id, document, expected, known = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local held = redis.call('HGET', KEYS[1], id)
  local version, key, was = '0', known, nil
  if held then version, key, was = string.match(held, '^(%d+) (%-?%d+) (.*)$') end
  if expected ~= '' and expected ~= version then
    outcomes[#outcomes + 1] = {'stale', held or ''}
  elseif document == '' and (was == '' or (not held and known == '-1')) then
    outcomes[#outcomes + 1] = {'same', held or ''}
  else
    if key == '-1' then key = known end
    local state = string.format('%.0f', redis.call('INCR', KEYS[3])) .. ' ' .. key .. ' ' .. document
    local op = document == '' and 'delete' or 'put'
    redis.call('HSET', KEYS[1], id, state)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'op', op, 'id', id, 'item', state)
    outcomes[#outcomes + 1] = {'taken', state}
  end
end
return outcomes
"""


class RedisItems:
    """The ItemStore on Redis."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def change(self, wishes: Sequence[Wish]) -> Sequence[Outcome]:
        """See the port. Raises DependencyError when Redis does not answer; then any part may have been taken."""
        pipe = self._client.pipeline(transaction=False)
        for start in range(0, len(wishes), WISHES_A_SCRIPT):
            arguments: list[Any] = []
            for wish in wishes[start : start + WISHES_A_SCRIPT]:
                expected = b"" if wish.expected is None else wish.expected
                arguments += [wish.item_id, document_bytes(wish.document), expected, wish.key]
            pipe.eval(CHANGE, 3, ITEMS, STREAM, VERSION, STREAM_MAX_LENGTH, *arguments)
        try:
            replies = await pipe.execute()
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error
        told = [one for reply in replies for one in reply]
        return [_outcome(wish, *reply) for wish, reply in zip(wishes, told, strict=True)]

    async def read(self, item_id: str) -> ItemState | None:
        """See the port."""
        try:
            held = await self._client.hget(ITEMS, item_id)  # type: ignore[misc]  # redis-py's types say "or its value"
        except (redis.exceptions.RedisError, OSError) as error:
            raise translate(error) from error
        return _state(item_id, held)


def _outcome(wish: Wish, verdict: bytes, held: bytes) -> Outcome:
    return Outcome(Verdict(verdict.decode()), _state(wish.item_id, held))


def _state(item_id: str, held: bytes | None) -> ItemState | None:
    if not held:
        return None
    try:
        return read_state(item_id.encode(), held)
    except Unreadable as error:
        raise DependencyError(Loss.INVALID_REPLY, str(error)) from error
