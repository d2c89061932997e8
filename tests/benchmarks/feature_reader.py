"""
CPU of one shopper's read – features, history, impressions, watermark – with 32 in flight, against a real Redis.

    python -m tests.benchmarks.feature_reader [--reads 3000] [--rounds 5]

Prints the CPU time of this process for each read, in microseconds: the best and the median round, for shoppers with
histories of 0, 20 and 200 entries, and what of it is decoding alone. Wall time would count the others on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import redis

from orchestrator.adapters.feast_reader import FeastRedisReader
from orchestrator.adapters.user_reader import RedisUserReader
from orchestrator.core.model import Placement, Query
from protos.feast_layout import EntityPlan, ReadPlan
from protos.history import columns, history_key, shown_key, watermark_key
from tests.benchmarks import sizes
from tests.support import redis_server

IN_FLIGHT = 32

PLAN = ReadPlan("reranking", sizes.USER_PLAN, EntityPlan("tutti", "item_id", "STRING", ()))

HISTORIES = (0, 20, 200)


def know(url: str, n: int) -> str:
    """A shopper with features, *n* events and half as many impressions; gives the user's id."""
    user = f"u{n}"
    with redis.Redis.from_url(url) as client:
        cells = dict(zip(sizes.USER_PLAN.fields, sizes.user_cells(), strict=True))
        client.hset(sizes.USER_PLAN.redis_key(user), mapping=cells)
        for key, length in ((history_key(f"u:{user}"), n), (shown_key(f"u:{user}"), n // 2)):
            if length:
                client.rpush(key, *sizes.entries(length))
        client.set(watermark_key(f"u:{user}"), n)
    return user


async def cpu_a_read(read: Callable[[], Awaitable[object]], reads: int) -> float:
    """Seconds of this process's CPU for each of *reads*, `IN_FLIGHT` at a time."""
    left = reads

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await read()

    began = time.process_time()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return (time.process_time() - began) / reads


async def measure(url: str, reads: int, rounds: int) -> dict[int, list[float]]:
    """History length → CPU seconds a read of each round; the lengths take turns, so that a busy minute hits all."""
    users = {n: know(url, n) for n in HISTORIES}
    feast = FeastRedisReader(PLAN, url)
    await feast.start()
    reader = RedisUserReader(feast, lambda: sizes.NOW_US / 1e6)
    queries = {n: Query("r", Placement.HOME, 12, user_id=user) for n, user in users.items()}
    found: dict[int, list[float]] = {n: [] for n in HISTORIES}
    for _ in range(rounds):
        for n, query in queries.items():
            found[n].append(await cpu_a_read(lambda query=query: reader.read(query, 5.0), reads))
    await feast.close()
    return found


def decoding(n: int, times: int = 2000) -> float:
    """CPU seconds of decoding one reply, without socket and loop."""
    cells, done, shown = sizes.user_cells(), sizes.entries(n), sizes.entries(n // 2)
    now_s = sizes.NOW_US / 1e6
    began = time.process_time()
    for _ in range(times):
        columns(done, shown)
        sizes.USER_PLAN.decode_one(cells, now_s)
    return (time.process_time() - began) / times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    try:
        from uvloop import new_event_loop
    except ImportError:  # not on Windows
        from asyncio import new_event_loop
    with redis_server.running() as url, asyncio.Runner(loop_factory=new_event_loop) as runner:
        found = runner.run(measure(url, asked.reads, asked.rounds))
    for n, seconds in found.items():
        best, usual = min(seconds) * 1e6, statistics.median(seconds) * 1e6
        decode = min(decoding(n) for _ in range(3)) * 1e6
        print(f"history {n:3}: {best:6.0f} µs CPU a read at best, {usual:6.0f} median; {decode:5.0f} of it decoding")


if __name__ == "__main__":
    main()
