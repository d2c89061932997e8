"""
What Redis keeps of people and items, kind of key by kind of key, after days of traffic on a clock that runs fast:
memory of a user, a visitor, an event, an item, against what docs/operating.md says.

    python -m loadtests.retention [--days 7] [--day-s 8] [--visitors 150] [--users 40] [--items 200]

Starts a Redis of its own and writes to it by the adapters of the edge: visits, impressions, log-ins, remembered slates.
A day lasts --day-s seconds, and every life of a key in days shrinks with it; --visitor-days 2, so that a week sees
visitors end. Only the markers of event ids keep their day of 86,400 s, and are counted by it. Every item is repriced
once a day. Sizes are MEMORY USAGE of a sample of each kind. Exit code 1 when a key has no end, when a kind of key is
more numerous or larger than its bound, or when Redis holds more than all bounds together.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import redis
import redis.asyncio
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from orchestrator import settings as tree
from orchestrator.adapters import redis_client
from orchestrator.adapters.redis_events import RedisEvents
from orchestrator.adapters.redis_items import RedisItems
from orchestrator.adapters.redis_people import RedisPeople
from orchestrator.adapters.redis_pipeline import Address, RedisPipeline
from orchestrator.adapters.redis_slates import RedisSlates
from orchestrator.core.model import Event, Level, Slate, SlateItem
from orchestrator.core.slate_cache import Entry
from orchestrator.settings import Retention
from orchestrator.supervisor.redis_server import command, find_binary
from protos.catalogue import Wish
from protos.history import IMPRESSION

DAY_S = 86_400

VIEW, PURCHASE = 1, 6

ENDLESS = {b"tutti:events", b"tutti:items", b"tutti:catalogue", b"tutti:catalogue:version"}
"""Bounded by their length, the catalogue's size, or being one number."""

COUNTED = {
    b"tutti:events": "events (an entry)",
    b"tutti:items": "items (an item)",
    b"tutti:catalogue": "catalogue (an entry)",
}
"""Keys whose size is told by what they hold."""

SAMPLE = 500
"""Keys of a kind that are asked for their size. Judged: all 49,000 of a week's took longer than the days before."""

BOUND_BYTES = {
    "history": 3_700,
    "shown": 3_700,
    "watermark": 160,
    "identity": 160,
    "visitors": 400,
    "slates": 16_000,
    "event": 130,
    "events (an entry)": 400,
    "items (an item)": 600,
    "catalogue (an entry)": 600,
    "catalogue": 200,
}
"""
Most bytes a key of each kind may take on average, as MEMORY USAGE says, ids of 12 characters. Derived for full lists
(200 entries of 13 bytes and 3 of the list's own, a key and its expiry) and for slates of 20 items with a pool of 40;
judged for the rest, from what was measured.
"""

VISITS_A_USER, PAGES, SHOWN_A_PAGE = 2, 4, 8


@dataclass(frozen=True, slots=True)
class Traffic:
    """A day: new visitors, users who come, and the share of visitors who log in."""

    visitors: int
    users: int
    log_ins: float
    items: int


async def live(url: str, days: int, day_s: float, traffic: Traffic, visitor_days: float, seed: int) -> bool:
    """Days of *traffic*; prints a line a day and the kinds of keys at the end. True when every bound held."""
    settings = tree.load(environment={})
    retention = Retention(user_days=400 * day_s / DAY_S, visitor_days=visitor_days * day_s / DAY_S)
    section = settings.redis.model_copy(update={"url": url, "event_timeout_ms": 20_000, "connect_timeout_ms": 5_000})
    rng = random.Random(seed)  # noqa: S311 – replayable, not secret
    async with redis_client.connect(section) as client:
        pipeline = RedisPipeline(Address.parse(url))
        await pipeline.start()
        world = _World(
            RedisEvents(client, settings.events, retention),
            RedisPeople(client, None, retention),
            RedisSlates(pipeline),
            RedisItems(client),
            rng,
            kept_s=day_s,
        )
        empty = int((await client.info("memory"))["used_memory"])
        for day in range(days):
            ends_at = time.monotonic() + day_s
            n_events = await world.day(day, traffic)
            late_s = time.monotonic() - ends_at
            await asyncio.sleep(max(-late_s, 0))
            used = int((await client.info("memory"))["used_memory"]) - empty
            late = f", {late_s:.1f} s longer than a day" if late_s > 0 else ""
            print(f"day {day + 1}: {n_events} events, {await client.dbsize()} keys, {used / 1e6:.1f} MB{late}")
        found = await _kinds(client, rng)
        holds = _judged(found, traffic, visitor_days + 1)
        if unexpected := await _endless(client) - ENDLESS:
            print(f"without an end: {sorted(unexpected)[:5]}")
            holds = False
        held = int((await client.info("memory"))["used_memory"]) - empty
        allowed = _allowed(found)
        print(f"Redis holds {held / 1e6:.1f} MB; all bounds together {allowed / 1e6:.1f} MB")
        holds &= held <= allowed
        print(f"an event costs {world.events_bytes(found):.0f} bytes in the stream and as a marker, together")
        await pipeline.close()
    return holds


@dataclass
class _World:
    """The edge's adapters, and what people do with them."""

    events: RedisEvents
    people: RedisPeople
    slates: RedisSlates
    items: RedisItems
    rng: random.Random
    kept_s: float
    n_events: int = 0

    async def day(self, day: int, traffic: Traffic) -> int:
        before = self.n_events
        for n in range(traffic.visitors):
            visitor = f"visit{day:02d}{n:05d}"
            await self._visit(f"v:{visitor}", self.rng.randrange(1, PAGES + 1))
            if self.rng.random() < traffic.log_ins:
                await self.people.merge(visitor, f"user{self.rng.randrange(traffic.users):08d}")
        for _ in range(traffic.users * VISITS_A_USER):
            await self._visit(f"u:user{self.rng.randrange(traffic.users):08d}", PAGES)
        await self.items.change([Wish(f"item{n:06d}", self._document(n)) for n in range(traffic.items)])
        return self.n_events - before

    def _document(self, n: int) -> dict[str, object]:
        title = f"Vintage enamel kettle, two litres, number {n}"
        about = {"category": "Home > Kitchen > Kettles", "brand": "Emailwerk", "in_stock": True}
        return {"item_id": f"item{n:06d}", "title": title, **about, "price": round(self.rng.uniform(5, 90), 2)}

    async def _visit(self, subject: str, pages: int) -> None:
        seen = [self._event(subject, IMPRESSION) for _ in range(pages * SHOWN_A_PAGE)]
        did = [self._event(subject, VIEW) for _ in range(pages)] + [self._event(subject, PURCHASE)]
        await self.events.append([*seen, *did])
        items = tuple(SlateItem(self.rng.randrange(10_000), 0.5, ("collaborative_filtering",)) for _ in range(60))
        slate = Slate(items[:20], Level.FULL, (), (), (), (), len(seen) + len(did), time.time(), pool=items[20:])
        until = time.time() + self.kept_s
        await self.slates.put(subject, "0123456789abcdef", Entry(slate, until, until, until, 0.0))

    def _event(self, subject: str, type_code: int) -> Event:
        self.n_events += 1
        name, key, now_us = f"event{self.n_events:012d}", self.rng.randrange(10_000), time.time_ns() // 1000
        who = {("user_id" if subject[0] == "u" else "visitor_id"): subject[2:]}
        moment = "2026-03-01T12:00:00.000000Z"
        body = {"event_id": name, "event_type": "impression", "item_id": f"item{key:06d}", **who}
        whole = orjson.dumps({**body, "session_id": "s-1", "timestamp": moment, "received_at": moment})
        return Event(name, subject, key, type_code, now_us, whole)

    @staticmethod
    def events_bytes(found: Mapping[str, tuple[int, int]]) -> float:
        """Of one event, whatever shopper's lists it is in."""
        return sum(size / n for n, size in (found["events (an entry)"], found["event"]))


async def _kinds(client: redis.asyncio.Redis, rng: random.Random) -> dict[str, tuple[int, int]]:
    """Kind of key → how many, bytes by a sample. Subjects' keys are told apart: `history u`, `history v`."""
    keys: dict[str, list[bytes]] = defaultdict(list)
    found: dict[str, tuple[int, int]] = {}
    async for key in client.scan_iter(count=1000):
        _, kind, *rest = key.split(b":")
        if key in COUNTED:
            entries = await (client.hlen(key) if key == b"tutti:items" else client.xlen(key))  # type: ignore[misc]
            found[COUNTED[key]] = (int(entries), int(await client.memory_usage(key, samples=1000) or 0))
        else:
            keys[kind.decode() + (f" {rest[0].decode()}" if rest and rest[0] in (b"u", b"v") else "")].append(key)
    for name, of_kind in keys.items():
        pipe = client.pipeline(transaction=False)
        for key in rng.sample(of_kind, min(len(of_kind), SAMPLE)):
            pipe.memory_usage(key, samples=0)
        # A key that ended meanwhile has no size.
        sizes = [size for size in await pipe.execute() if size is not None]
        if sizes:
            found[name] = (len(of_kind), round(len(of_kind) * sum(sizes) / len(sizes)))
    return found


def _allowed(found: Mapping[str, tuple[int, int]]) -> int:
    """Bytes that these kinds may take by their bounds."""
    return sum(n * (BOUND_BYTES.get(name) or BOUND_BYTES[name.split()[0]]) for name, (n, _) in found.items())


async def _endless(client: redis.asyncio.Redis) -> set[bytes]:
    keys = [key async for key in client.scan_iter(count=1000)]
    found: set[bytes] = set()
    for start in range(0, len(keys), 1000):
        pipe, page = client.pipeline(transaction=False), keys[start : start + 1000]
        for key in page:
            pipe.ttl(key)
        found |= {key for key, ttl in zip(page, await pipe.execute(), strict=True) if ttl == -1}
    return found


def _judged(found: Mapping[str, tuple[int, int]], traffic: Traffic, days: float) -> bool:
    holds = True
    print(f"\n{'kind of key':20} {'keys':>8} {'bytes':>11} {'each':>7} {'bound':>7} {'most keys':>10}")
    for name, (n, size) in sorted(found.items()):
        bound, most = BOUND_BYTES.get(name) or BOUND_BYTES.get(name.split()[0]), _most_keys(name, traffic, days)
        each = size / max(n, 1)
        is_kept = bound is None or (each <= bound and (most is None or n <= most))
        holds &= is_kept
        shown = "" if is_kept else "  BROKEN"
        print(f"{name:20} {n:8} {size:11} {each:7.0f} {bound or '–':>7} {'–' if most is None else most:>10}{shown}")
    n_items, items_size = found.get("items (an item)", (0, 0))
    print(f"an item that was ever changed costs {items_size / max(n_items, 1):.0f} bytes, of {n_items}")
    for kind, who in (("u", "user"), ("v", "visitor")):
        n = max((count for name, (count, _) in found.items() if name.endswith(f" {kind}")), default=0)
        size = sum(size for name, (_, size) in found.items() if name.endswith(f" {kind}"))
        print(f"a {who} costs {size / max(n, 1):.0f} bytes, of {n}")
    return holds


def _most_keys(name: str, traffic: Traffic, days: float) -> int | None:
    """As many as can have been written within the life of a key; None where only time bounds it."""
    if name.endswith(" v") or name == "identity":
        return int(traffic.visitors * days)
    return traffic.users if name.endswith(" u") or name == "visitors" else None


@contextmanager
def a_redis() -> Iterator[str]:
    """URL of a server with an append-only file, as `tutti up` starts it; gone at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        binary = command(find_binary(), Path(folder))
        process = subprocess.Popen([*binary, "--port", str(port)], stdout=subprocess.DEVNULL)
        try:
            with redis.Redis(port=port, retry=Retry(ConstantBackoff(0.1), 100)) as client:
                client.ping()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(20)


def _run(asked: argparse.Namespace) -> bool:
    traffic = Traffic(asked.visitors, asked.users, asked.log_ins, asked.items)
    with a_redis() as url:
        return asyncio.run(live(url, asked.days, asked.day_s, traffic, asked.visitor_days, asked.seed))


def main() -> int:
    """Live through the days; 1 when a bound did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument(
        "--day-s", type=float, default=8, help="seconds a day lasts; longer where a day's traffic is late"
    )
    parser.add_argument("--visitors", type=int, default=150, help="new ones a day")
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--items", type=int, default=200, help="of the catalogue, each repriced once a day")
    parser.add_argument("--log-ins", type=float, default=0.1, help="share of visitors who log in")
    parser.add_argument("--visitor-days", type=float, default=2)
    parser.add_argument("--seed", type=int, default=1)
    return 0 if _run(parser.parse_args()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
