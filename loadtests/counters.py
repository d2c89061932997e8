"""
How soon what a shopper did is in the re-ranker's memory: from the event stream, through ingestion's computation and
the online store, to the columns that calls are ranked by.

    python -m loadtests.counters [--data DIR | --events 1000000 --items 10000] [--rate 10] [--count 200] [--by 1]

Takes a copy of what it needs of the data directory DIR, or makes a shop; starts a Redis and an ingestion of its own.
The re-ranker's part is its item matrix, in this process, with its pauses for calls and without any call. Each event is
of another item, by known shoppers, --by of them at once; time counts from the moment Redis has it to the moment the
matrix published the item's row. Exit code 1 when an event was not seen, or p99 is above --within.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import psutil
import pyarrow.parquet as pq
import redis
from numpy.typing import NDArray

from loadtests.retention import a_redis
from protos import live_features, vocabulary
from protos.arrays import Float32
from services.chassis.item_matrix import ItemMatrix
from services.training import features, synthetic
from services.training import vocabulary as training_vocabulary

STREAM = "tutti:events"

EVENTS_A_SHOPPER = 50
"""Of a shop that is made here. Derived: the embedded shop's, 94,847 events of 1,866 ids."""

BEGUN_WITHIN_S, SEEN_WITHIN_S = 120.0, 30.0
"""Judged: a million events are read in 5 s; what was not seen half a minute after the last event is lost."""


@dataclass
class Arrivals:
    """The matrix' follower: when each item's row was published the first time. Its thread writes, others look."""

    at: dict[int, float] = field(default_factory=dict)
    _taken: list[int] = field(default_factory=list)

    def take(self, keys: NDArray[np.int64], numeric: Float32, categorical: NDArray[np.object_]) -> None:
        """See `item_matrix.Follower`."""
        self._taken += keys.tolist()

    def publish(self) -> None:
        """See `item_matrix.Follower`."""
        now = time.time()
        self.at |= {key: now for key in self._taken if key not in self.at}
        self._taken.clear()


@dataclass
class Sender:
    """Views, each batch a second of the shop's clock after the one before."""

    client: redis.Redis
    shops_now: datetime
    number: int = 0

    def send(self, item_ids: Sequence[str], user_id: str) -> float:
        """One batch, into the stream; returns when Redis had it, as `time.time`."""
        self.number += 1
        moment = self.shops_now + timedelta(seconds=self.number)
        with self.client.pipeline(transaction=True) as pipe:
            for place, item_id in enumerate(item_ids):
                event = {
                    "event_id": f"{self.number}-{place}",
                    "event_type": "view",
                    "timestamp": moment.isoformat(),
                    "item_id": item_id,
                    "user_id": user_id,
                }
                pipe.xadd(STREAM, {"event": orjson.dumps(event)})
            pipe.execute()
        return time.time()


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds of each event that was seen: until its row was written, and until the matrix had it."""

    stored_s: list[float]
    seen_s: list[float]
    missing: int
    cpu_share: float
    memory_mb: float


def measure(data: Path, url: str, rate: float, count: int, by: int, seed: int) -> Found:
    """Send *count* events, *by* at once, *rate* a second in all, and wait for each."""
    rng = random.Random(seed)  # noqa: S311 – replayable, not secret
    ids = vocabulary.read(data / vocabulary.FILE_NAME)
    users = pq.ParquetFile(data / "events.parquet").read(["user_id"]).column(0).unique().drop_null().to_pylist()
    first, *keys = rng.sample(range(len(ids)), count + 1)
    arrivals, matrix = Arrivals(), ItemMatrix(features.compile_plan(data), ids, url)
    client = redis.Redis.from_url(url)
    sender = Sender(client, features.now_of(data))
    sent: dict[int, float] = {}
    with _ingestion(data, url) as process:
        _until(lambda: client.exists(live_features.POSITION) == 1, BEGUN_WITHIN_S)
        matrix.start(follower=arrivals)
        # The first of anything is slower: libraries, connections.
        sender.send([ids[first]], users[0])
        _until(lambda: first in arrivals.at, SEEN_WITHIN_S)
        began_at, began_cpu_s = time.time(), _cpu_s(process)
        for start in range(0, count, by):
            time.sleep(max(began_at + start / rate - time.time(), 0))
            some = keys[start : start + by]
            sent |= dict.fromkeys(some, sender.send([ids[key] for key in some], rng.choice(users)))
        _until(lambda: arrivals.at.keys() >= sent.keys(), SEEN_WITHIN_S)
        cpu_share = (_cpu_s(process) - began_cpu_s) / (time.time() - began_at)
        memory_mb = process.memory_info().rss / 1e6
        matrix.stop()
    stored = _stored(client)
    client.close()
    seen = [key for key in sent if key in arrivals.at]
    return Found(
        [stored[ids[key]] - sent[key] for key in seen],
        [arrivals.at[key] - sent[key] for key in seen],
        len(sent) - len(seen),
        cpu_share,
        memory_mb,
    )


def _stored(client: redis.Redis) -> dict[str, float]:
    """Item → when the store first said that its row is written."""
    found: dict[str, float] = {}
    entries: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(live_features.CHANGES)  # type: ignore[assignment]
    for entry_id, fields in entries:
        for item_id in live_features.item_ids(fields):
            found.setdefault(item_id, int(entry_id.partition(b"-")[0]) / 1000)
    return found


@contextmanager
def _ingestion(data: Path, url: str) -> Iterator[psutil.Process]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "services.ingestion", "--data", str(data), "--redis", url]
    process = subprocess.Popen([*command, "--address", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def _a_shop(data: Path | None, n_events: int, n_items: int) -> Iterator[Path]:
    """A data directory that may be written to, with features computed; *data*'s events and items, or made ones."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Path(folder)
        if data is not None:
            for name in ("events.parquet", "items.parquet", "dataset.json"):
                shutil.copy(data / name, shop / name)
        else:
            shoppers = max(n_events // EVENTS_A_SHOPPER, synthetic.SMALLEST["shoppers"])
            synthetic.build(shop, shoppers=shoppers, items=n_items, events=n_events)
        training_vocabulary.maintain(shop)
        features.apply(shop)
        features.compute(shop, [features.now_of(shop)])
        yield shop


def _cpu_s(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def _until(holds: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)


def main() -> int:
    """Make the shop, send the events and print how long they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data directory whose events and items are taken")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=10, help="events a second")
    parser.add_argument("--count", type=int, default=200, help="events in all, each of another item")
    parser.add_argument("--by", type=int, default=1, help="events of one shopper that come at once")
    parser.add_argument("--within", type=float, default=1.0, help="seconds that p99 may take")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with _a_shop(asked.data, asked.events, asked.items) as data, a_redis() as url:
        n_events = pq.read_metadata(data / "events.parquet").num_rows
        found = measure(data, url, asked.rate, asked.count, asked.by, asked.seed)
    print(f"{asked.count} events, {asked.by} at once, {asked.rate:g} a second, beside {n_events:,} known ones")
    print(f"event → row in the online store: {_spread(found.stored_s)}")
    print(f"event → re-ranker's memory:      {_spread(found.seen_s)}; {found.missing} not seen")
    print(f"ingestion: {found.cpu_share:.2f} of a core, {found.memory_mb:.0f} MB")
    return int(found.missing > 0 or float(np.percentile(found.seen_s, 99)) > asked.within)


def _spread(seconds: Sequence[float]) -> str:
    p50, p99, most = np.percentile(np.array(seconds or [np.nan]), [50, 99, 100])
    return f"{p50:.2f} s (p50), {p99:.2f} s (p99), {most:.2f} s at most"


if __name__ == "__main__":
    raise SystemExit(main())
