"""
What a large import of items costs, and whom: items a second, memory of every process and of Redis, the slates of those
who shop meanwhile, and how long until the last item has a key.

    python -m loadtests.import_items --data DIR [--items 1000000] [--slates 5]

Attaches to the system that runs in DIR, or starts one of its own on it; DIR's Redis keeps the items, so give it a copy.
The items are made, some 300 bytes a line, one of a thousand with a mistake that is to be refused. --slates home shelves
a second are asked for by known shoppers, none of them remembered, before and during the import. Exit code 1 when other
lines were refused than were wrong, when a shelf was not answered, or when the last item has no key after five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import orjson
import psutil
import redis.asyncio

from orchestrator.doctor.system import System, started
from orchestrator.supervisor.state import holder

NDJSON = "application/x-ndjson"

CHUNK = 65_536
"""Bytes sent at once, as `tutti items import`."""

WRONG_EVERY = 1_000
SILENT_S = 180.0
"""Judged: an import that says nothing for three minutes is stuck."""

KNOWN_WITHIN_S = 300.0

KINDS = ("lamp", "chair", "kettle", "scarf", "poster", "bicycle bell", "notebook", "vase", "blanket", "clock")
MANNERS = ("small", "white", "wooden", "hanging", "striped", "vintage", "folding", "painted", "woollen", "brass")


@dataclass
class Seen:
    """
    latencies_s     of the shelves, by phase: before, during
    most_mb         process → its largest resident memory
    redis_mb        Redis' own count, largest
    cpu_s           process → seconds of processor time, from the first line to the last item's key
    """

    latencies_s: dict[str, list[float]] = field(default_factory=lambda: {"before": [], "during": []})
    unanswered: int = 0
    most_mb: dict[str, float] = field(default_factory=dict)
    redis_mb: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)


def lines(count: int, seed: int) -> Iterator[bytes]:
    """Items as NDJSON, ids `import-0` on."""
    rng = random.Random(seed)  # noqa: S311 – replayable, not secret
    for number in range(count):
        kind, manner = rng.choice(KINDS), rng.choice(MANNERS)
        item = {
            "item_id": f"import-{number}",
            "title": f"{manner} {kind} no {number % 5000}",
            "description": f"A {manner} {kind}, {rng.choice(MANNERS)} and {rng.choice(MANNERS)}, made to last.",
            "category": f"Home > {kind}s",
            "brand": f"Brand {number % 300}",
            "price": -1 if number % WRONG_EVERY == 1 else round(rng.uniform(2, 200), 2),
            "in_stock": True,
            "attributes": {"colour": manner, "batch": str(number // 1000)},
        }
        yield orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)


async def _chunks(count: int, seed: int) -> AsyncIterator[bytes]:
    gathered, size = [], 0
    for line in lines(count, seed):
        gathered.append(line)
        size += len(line)
        if size >= CHUNK:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


async def measure(system: System, count: int, slates: float, seed: int) -> tuple[dict[str, object], float, Seen]:
    """Import, with shoppers and a look at memory beside it; the answer, seconds until all have keys, and `Seen`."""
    seen, phase = Seen(), ["before"]
    base = f"http://{system.host}:{system.port}"
    store = redis.asyncio.Redis.from_url(f"redis://{system.of('redis')[0].address}")
    async with httpx.AsyncClient(base_url=base, timeout=httpx.Timeout(SILENT_S, write=None)) as client:
        tasks = [
            asyncio.create_task(_shop(client, system, slates, seen, phase, seed)),
            asyncio.create_task(_watch(system, store, seen)),
        ]
        await asyncio.sleep(10)
        phase[0], before_s = "during", _cpu_s(system)
        began_at, answer = time.monotonic(), {}
        headers = {"content-type": NDJSON, "accept": NDJSON}
        async with client.stream("POST", "/v1/items:import", content=_chunks(count, seed), headers=headers) as reply:
            told_at = 0.0
            async for line in reply.aiter_lines():
                answer = orjson.loads(line)
                if "lines" in answer and time.monotonic() - told_at > 10:
                    told_at = time.monotonic()
                    most = {name: round(mb) for name, mb in seen.most_mb.items()}
                    print(f"{told_at - began_at:5.0f} s: {answer['lines']} lines; MB {most}, Redis {seen.redis_mb:.0f}")
        answer["seconds"] = time.monotonic() - began_at
        print(f"CPU until the answer, s: {_since(system, before_s)}")
        known_s = await _known(client, f"import-{count - 1}")
        seen.cpu_s = _since(system, before_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await store.aclose()
    return answer, known_s, seen


async def _known(client: httpx.AsyncClient, item_id: str) -> float:
    """Seconds until the item has a key. Whether it is proposed is not asked: that is for a part of a large import."""
    began_at = time.monotonic()
    while time.monotonic() - began_at < KNOWN_WITHIN_S:
        item = (await client.get(f"/v1/items/{item_id}")).json()
        if item.get("state") == "known":
            return time.monotonic() - began_at
        await asyncio.sleep(0.2)
    return float("nan")


async def _shop(
    client: httpx.AsyncClient, system: System, rate: float, seen: Seen, phase: list[str], seed: int
) -> None:
    rng, shop = random.Random(seed), system.shop()  # noqa: S311 – replayable, not secret
    asked: set[asyncio.Task[None]] = set()

    async def one(due_at: float, name: str) -> None:
        body = {"placement": "home", "user_id": rng.choice(shop.users), "exclude_item_ids": rng.sample(shop.items, 2)}
        try:
            reply = await client.post("/v1/recommendations", json=body)
        except httpx.HTTPError:
            seen.unanswered += 1
            return
        seen.latencies_s[name].append(time.monotonic() - due_at)
        seen.unanswered += reply.status_code != 200

    due_at = time.monotonic()
    while rate > 0:
        due_at += 1 / rate
        await asyncio.sleep(max(due_at - time.monotonic(), 0))
        task = asyncio.create_task(one(due_at, phase[0]))
        asked.add(task)
        task.add_done_callback(asked.discard)


def _families(system: System) -> dict[str, list[int]]:
    return {f"{one.name} {one.replica}" if one.replica else one.name: one.pids() for one in system.processes()}


def _cpu_s(system: System) -> dict[str, float]:
    times = {name: [psutil.Process(pid).cpu_times() for pid in pids] for name, pids in _families(system).items()}
    return {name: sum(one.user + one.system for one in found) for name, found in times.items()}


def _since(system: System, before_s: dict[str, float]) -> dict[str, float]:
    return {name: round(now_s - before_s.get(name, 0.0), 1) for name, now_s in _cpu_s(system).items()}


async def _watch(system: System, store: redis.asyncio.Redis, seen: Seen) -> None:
    pids = _families(system)
    while True:
        for name, family in pids.items():
            mb = sum(psutil.Process(pid).memory_info().rss for pid in family if psutil.pid_exists(pid)) / 1e6
            seen.most_mb[name] = max(seen.most_mb.get(name, 0.0), mb)
        seen.redis_mb = max(seen.redis_mb, int((await store.info("memory"))["used_memory"]) / 1e6)
        await asyncio.sleep(1)


def main() -> int:
    """Import and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--slates", type=float, default=5, help="home shelves a second meanwhile, none remembered")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with ExitStack() as stack:
        is_running = holder(asked.data / "run") is not None
        system = System(asked.data) if is_running else stack.enter_context(started(asked.data))
        answer, known_s, seen = asyncio.run(measure(system, asked.items, asked.slates, asked.seed))
    wrong = len(range(1, asked.items, WRONG_EVERY))
    took_s = float(answer.pop("seconds", np.nan))  # type: ignore[arg-type]
    answer["rejected"] = len(answer.get("rejected", []))  # type: ignore[arg-type]
    print(f"{asked.items} lines in {took_s:.0f} s, {asked.items / took_s:.0f} a second: {answer}")
    print(f"the last item had its key {known_s:.1f} s after the answer")
    for name, latencies in seen.latencies_s.items():
        p50, p99 = np.percentile(np.array(latencies or [np.nan]) * 1000, [50, 99])
        print(f"{len(latencies)} shelves {name}: {p50:.0f} ms (p50), {p99:.0f} ms (p99)")
    print(f"unanswered {seen.unanswered}; most memory, MB: { ({n: round(mb) for n, mb in seen.most_mb.items()}) }")
    print(f"CPU until the last key, s: {seen.cpu_s}")
    print(f"Redis' own count: {seen.redis_mb:.0f} MB")
    holds = answer.get("rejected_count") == wrong and not seen.unanswered and not np.isnan(known_s)
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
