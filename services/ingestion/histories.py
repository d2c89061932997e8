"""
Histories of a data directory into Redis: the last events of every shopper, as the edge would have written them.

The rule: nothing that the edge wrote is lost. Entries newer than the data stay in front of those that come from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protos import vocabulary
from protos.history import (
    ENTRY,
    IMPRESSION,
    MAX_ENTRIES,
    SEEDED_FOR_S,
    history_key,
    shown_key,
    slates_key,
    watermark_key,
)
from protos.tutti.v1 import common_pb2

# Shoppers a round trip. Derived: 500 lists of 200 entries are 1.3 MB.
_BATCH = 500


def write(data: Path, client: Any) -> tuple[int, int]:
    """
    Write the histories of *data* through a redis-py *client*, raise watermarks and drop cached slates.

    Events of items that the vocabulary does not know are left out.

    Returns:
        shoppers, events written.
    """
    user_ids, starts, entries = _by_user(data)
    last_us = int(entries["at_us"].max()) if len(entries) else 0
    n_written = 0
    for first in range(0, len(user_ids), _BATCH):
        subjects = [f"u:{user_id}" for user_id in user_ids[first : first + _BATCH]]
        with client.pipeline(transaction=False) as pipe:
            for subject in subjects:
                pipe.lrange(history_key(subject), 0, MAX_ENTRIES - 1)
                pipe.lrange(shown_key(subject), 0, MAX_ENTRIES - 1)
            before = pipe.execute()
        with client.pipeline(transaction=False) as pipe:
            for i, subject in enumerate(subjects, start=first):
                own = entries[starts[i] : starts[i + 1]]
                shown = own["type"] == IMPRESSION
                present = before[2 * (i - first) : 2 * (i - first) + 2]
                pipe.delete(history_key(subject), shown_key(subject), slates_key(subject))
                n_own = 0
                for key, part, live in zip(
                    (history_key(subject), shown_key(subject)), (own[~shown], own[shown]), present, strict=True
                ):
                    kept = part[-MAX_ENTRIES:]
                    newest_first = [*_newer(live, last_us), *(entry.tobytes() for entry in kept[::-1])][:MAX_ENTRIES]
                    if newest_first:
                        pipe.rpush(key, *newest_first)
                        pipe.expire(key, SEEDED_FOR_S)
                    n_own += len(kept)
                pipe.incrby(watermark_key(subject), n_own)
                pipe.expire(watermark_key(subject), SEEDED_FOR_S)
                n_written += n_own
            pipe.execute()
    return len(user_ids), n_written


def _newer(present: list[bytes], last_us: int) -> list[bytes]:
    """Entries of a list, newest first, that came after the data's last event."""
    return [entry for entry in present if int(np.frombuffer(entry, ENTRY)["at_us"][0]) > last_us]


def _by_user(data: Path) -> tuple[list[str], NDArray[np.int64], NDArray[np.void]]:
    """User ids, where each one's entries start (one more than users), and all entries, oldest first a user."""
    table = pq.read_table(data / "events.parquet", columns=["user_id", "item_id", "event_type", "timestamp"])
    ids = pa.array(vocabulary.read(data / vocabulary.FILE_NAME), pa.string())
    keys = pc.index_in(table.column("item_id"), value_set=ids).combine_chunks()
    table = table.append_column("key", keys).filter(keys.is_valid())
    entries = np.empty(table.num_rows, ENTRY)
    entries["key"] = table.column("key").to_numpy()
    types = table.column("event_type").combine_chunks().dictionary_encode()
    codes = [common_pb2.EventType.Value(f"EVENT_TYPE_{name.upper()}") for name in types.dictionary.to_pylist()]
    entries["type"] = np.array(codes, np.uint8)[types.indices.to_numpy()]
    entries["at_us"] = table.column("timestamp").cast(pa.timestamp("us", "UTC")).cast("int64").to_numpy()
    users = table.column("user_id").combine_chunks().dictionary_encode()
    numbers = users.indices.to_numpy()
    order = np.lexsort((entries["at_us"], numbers))
    starts = np.searchsorted(numbers[order], np.arange(len(users.dictionary) + 1)).astype(np.int64)
    return users.dictionary.to_pylist(), starts, entries[order]
