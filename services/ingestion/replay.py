"""
Online state made anew from files: histories, shown lists, watermarks and live features, from base and event log.

The rule: nothing the store has is lost, and a second run changes nothing. Entries of files and store become one list,
an entry as often as the side that has it more often; a watermark never falls. One script a shopper, so that what the
edge writes meanwhile is in it. In no file, and so not made anew: who was merged with whom, seen markers, slates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis
from numpy.typing import NDArray

from protos import redactions, vocabulary
from protos.history import (
    ENTRY,
    IMPRESSION,
    MAX_ENTRIES,
    SEEDED_FOR_S,
    history_key,
    identity_key,
    shown_key,
    slates_key,
    watermark_key,
)
from protos.tutti.v1 import common_pb2

VISITOR_FOR_S = 30 * 86_400
"""What is made anew of a visitor lives this long without an event; the edge's default (`retention.visitor_days`)."""

_BATCH = 200
"""Shoppers a round trip. Derived: two lists of 200 entries each are 5 kB, so 1 MB."""

_COLUMNS = ["event_id", "user_id", "visitor_id", "item_id", "event_type", "timestamp"]

# KEYS: history, shown, watermark, slates. ARGV: entries kept, seconds to live, the least the watermark may be, how many
# of the entries that follow are the history's (newest first), then these, then the shown list's.
RESTORE = """
local function moment(entry)
  if #entry ~= 13 then return -1 end
  local a, b, c, d, e, f, g = string.byte(entry, 6, 12)
  return a + 256 * (b + 256 * (c + 256 * (d + 256 * (e + 256 * (f + 256 * g)))))
end
local function restore(list, first, last)
  local present = redis.call('LRANGE', list, 0, -1)
  local times, merged = {}, {}
  for place, entry in ipairs(present) do
    times[entry] = (times[entry] or 0) + 1
    merged[#merged + 1] = {moment(entry), place, entry}
  end
  local added = 0
  for i = first, last do
    local entry = ARGV[i]
    if (times[entry] or 0) > 0 then
      times[entry] = times[entry] - 1
    else
      added = added + 1
      merged[#merged + 1] = {moment(entry), #present + added, entry}
    end
  end
  if added == 0 then return 0 end
  -- Of one moment, what the store had stays in front.
  table.sort(merged, function(a, b) if a[1] ~= b[1] then return a[1] > b[1] end return a[2] < b[2] end)
  redis.call('DEL', list)
  local kept = 0
  for place, item in ipairs(merged) do
    if place > tonumber(ARGV[1]) then break end
    redis.call('RPUSH', list, item[3])
    if item[2] > #present then kept = kept + 1 end
  end
  redis.call('EXPIRE', list, ARGV[2])
  return kept
end

local n_history = tonumber(ARGV[4])
local n_added = restore(KEYS[1], 5, 4 + n_history) + restore(KEYS[2], 5 + n_history, #ARGV)
local watermark = tonumber(redis.call('GET', KEYS[3]) or '0')
if watermark < tonumber(ARGV[3]) then
  redis.call('SET', KEYS[3], ARGV[3], 'EX', ARGV[2])
  n_added = n_added + 1
end
if n_added > 0 then redis.call('DEL', KEYS[4]) end
return n_added
"""

Progress = Callable[[int, int], None]
"""Shoppers done, of how many."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """
    What a replay came to.

    events    of the files, of shoppers with something from then on
    shoppers  whose lists were looked at; changed: how many of these lacked something
    """

    events: int
    shoppers: int
    changed: int


def replay(data: Path, client: redis.Redis, since: datetime, progress: Progress = lambda done, of: None) -> Replayed:
    """
    Bring back the lists and watermarks of everybody who did something from *since* on.

    Raises:
        FileNotFoundError: no vocabulary or no events in *data*. redis.exceptions.RedisError: run it again.
    """
    events = _known(data)
    subjects, numbers = _subjects(events, client)
    at_us = events.column("timestamp").cast(pa.timestamp("us", "UTC")).cast("int64").to_numpy()
    since_us = int(since.timestamp() * 1_000_000)
    wanted = np.unique(numbers[(at_us >= since_us) & (numbers >= 0)])
    entries, has_item = _entries(data, events, at_us)
    order = np.lexsort((at_us, numbers))
    starts = np.searchsorted(numbers[order], np.arange(len(subjects) + 1))
    script = client.register_script(RESTORE)
    n_events = n_changed = 0
    for first in range(0, len(wanted), _BATCH):
        some = wanted[first : first + _BATCH].tolist()
        with client.pipeline(transaction=False) as pipe:
            for number in some:
                own = order[starts[number] : starts[number + 1]]
                n_events += len(own)
                _queue(script, pipe, subjects[number], entries[own[has_item[own]]], len(own))
            n_changed += sum(1 for added in pipe.execute() if added)
        progress(min(first + _BATCH, len(wanted)), len(wanted))
    return Replayed(n_events, len(wanted), n_changed)


def _queue(script: Any, pipe: Any, subject: str, entries: NDArray[np.void], watermark: int) -> None:
    shown = entries["type"] == IMPRESSION
    done, seen = ([one.tobytes() for one in part[-MAX_ENTRIES:][::-1]] for part in (entries[~shown], entries[shown]))
    lives_s = SEEDED_FOR_S if subject.startswith("u:") else VISITOR_FOR_S
    script(
        keys=[history_key(subject), shown_key(subject), watermark_key(subject), slates_key(subject)],
        args=[MAX_ENTRIES, lives_s, watermark, len(done), *done, *seen],
        client=pipe,
    )


def _known(data: Path) -> pa.Table:
    """Base and log, an event_id once, the first written first; without what erased people did before they went."""
    base = pq.ParquetFile(data / "events.parquet").read(columns=[name for name in _COLUMNS if name != "visitor_id"])
    parts = [base.append_column("visitor_id", pa.nulls(base.num_rows, pa.string())).select(_COLUMNS)]
    for path in sorted((data / "event_log").rglob("part-*.parquet"), key=lambda one: one.name):
        parts.append(pq.ParquetFile(path).read(columns=_COLUMNS).select(_COLUMNS))
    schema = pa.schema([(name, pa.timestamp("us", "UTC") if name == "timestamp" else pa.string()) for name in _COLUMNS])
    table = pa.concat_tables([part.cast(schema) for part in parts])
    ids = table.column("event_id").combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(ids, return_index=True)
    table = table.take(pa.array(np.sort(first)))
    return table.filter(pa.array(~_is_erased(table, redactions.read(data))))


def _is_erased(table: pa.Table, erased: redactions.Redactions) -> NDArray[np.bool_]:
    at_us = table.column("timestamp").cast("int64").to_numpy()
    gone = np.zeros(table.num_rows, np.bool_)
    if not erased.erased_at_us:
        return gone
    for name, find in (("user_id", erased.of_users), ("visitor_id", erased.of_visitors)):
        column = table.column(name)
        known = find(one for one in pc.unique(column).to_pylist() if one is not None)
        until_us = np.array([known.get(one, -(2**62)) for one in column.to_pylist()], np.int64)
        is_theirs = column.is_valid().to_numpy() if name == "user_id" else table.column("user_id").is_null().to_numpy()
        gone |= is_theirs & (at_us <= until_us)
    return gone


def _subjects(events: pa.Table, client: redis.Redis) -> tuple[list[str], NDArray[np.int64]]:
    """Whose each event is now, `u:…` or `v:…`, by number; -1: nobody's. What a merged visitor did is the user's."""
    users, visitors = events.column("user_id").to_pylist(), events.column("visitor_id").to_pylist()
    guests = sorted({v for u, v in zip(users, visitors, strict=True) if u is None and v is not None})
    owner = dict(_merged(guests, client))
    whose = [
        f"u:{user}" if user is not None else None if visitor is None else owner.get(visitor, f"v:{visitor}")
        for user, visitor in zip(users, visitors, strict=True)
    ]
    subjects = sorted({one for one in whose if one is not None})
    number = {subject: i for i, subject in enumerate(subjects)}
    return subjects, np.array([-1 if one is None else number[one] for one in whose], np.int64)


def _merged(guests: list[str], client: redis.Redis) -> Iterator[tuple[str, str]]:
    for start in range(0, len(guests), _BATCH):
        some = guests[start : start + _BATCH]
        found: Any = client.mget([identity_key(one) for one in some])
        yield from ((one, f"u:{user.decode()}") for one, user in zip(some, found, strict=True) if user is not None)


def _entries(data: Path, events: pa.Table, at_us: NDArray[np.int64]) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """An entry a row, and whether it is of an item that has a key: the others are counted and in no list."""
    ids = pa.array(vocabulary.read(data / vocabulary.FILE_NAME), pa.string())
    keys = pc.index_in(events.column("item_id"), value_set=ids).combine_chunks()
    entries = np.zeros(events.num_rows, ENTRY)
    entries["key"] = pc.fill_null(keys, -1).to_numpy()
    types = events.column("event_type").combine_chunks().dictionary_encode()
    codes = [common_pb2.EventType.Value(f"EVENT_TYPE_{name.upper()}") for name in types.dictionary.to_pylist()]
    entries["type"] = np.array(codes, np.uint8)[types.indices.to_numpy()]
    entries["at_us"] = at_us
    has_item: NDArray[np.bool_] = keys.is_valid().to_numpy(zero_copy_only=False)
    return entries, has_item
