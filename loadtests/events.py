"""
How many events a second are taken, and how far ingestion is behind: batches leave when they are due, whether or not
earlier ones were answered, and latency counts from that moment.

    python -m loadtests.events --data DIR [--rate 2000] [--batch 50] [--seconds 20]

Attaches to the system that runs in DIR, or starts one orchestrator of its own on it. The load and the whole system
share this machine. All events are of made-up visitors, who end by themselves (`retention.visitor_days`). Exit code 1
when a batch was not accepted, or fewer events than offered.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import redis.asyncio

from orchestrator.doctor.http_client import Client, NoAnswer, post
from orchestrator.doctor.system import System, started
from orchestrator.supervisor.state import holder

STREAM, GROUP = "tutti:events", "ingestion"

TYPES = ("view", "view", "view", "impression", "impression", "click", "add_to_cart", "purchase")

EVENTS_A_VISITOR = 5
"""Judged: a short visit. More in one visitor's hand lengthens lists, which costs nothing here."""

GIVE_UP_S = 5.0
DRAIN_WITHIN_S = 60.0
"""Judged: ingestion writes every 5 s; a minute after the last event nothing should be left."""

ENOUGH_SHARE = 0.99


@dataclass
class Seen:
    """What became of the batches; how far ingestion was behind, a sample a second."""

    latencies_s: list[float] = field(default_factory=list)
    accepted: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    lags: list[int] = field(default_factory=list)


async def send(system: System, rate: float, batch: int, seconds: float, seed: int) -> tuple[Seen, float]:
    """Offer *rate* events a second in batches for *seconds*; returns what was seen, and the seconds until the last."""
    client, seen = Client(system.host, system.port), Seen()
    host = f"{system.host}:{system.port}"
    bodies = list(_bodies(system.shop().items, int(rate * seconds / batch), batch, seed))
    await client.warm(8)
    store = redis.asyncio.Redis.from_url(f"redis://{system.of('redis')[0].address}")
    watching = asyncio.create_task(_watch(store, seen))

    async def one(body: bytes, due_at: float) -> None:
        try:
            reply = await client.ask(post(host, "/v1/events", body), GIVE_UP_S)
        except NoAnswer as error:
            seen.ended[error.why] += 1
            return
        seen.latencies_s.append(reply.at - due_at)
        seen.ended[str(reply.status)] += 1
        if reply.status == 202:
            seen.accepted += int(orjson.loads(reply.body)["accepted"])

    began_at, sending = time.monotonic(), []
    for n, body in enumerate(bodies):
        due_at = began_at + n * batch / rate
        await asyncio.sleep(max(due_at - time.monotonic(), 0))
        sending.append(asyncio.create_task(one(body, due_at)))
    await asyncio.gather(*sending)
    took_s = time.monotonic() - began_at
    client.close()
    drained_s = await _drained(store)
    watching.cancel()
    await store.aclose()
    print(f"ingestion: most behind {max(seen.lags, default=0)}, nothing left {drained_s:.1f} s after the last answer")
    return seen, took_s


def _bodies(items: tuple[str, ...], n_batches: int, batch: int, seed: int) -> Iterator[bytes]:
    rng, run = random.Random(seed), uuid.uuid4().hex[:8]  # noqa: S311 – replayable, not secret
    for number in range(n_batches):
        events = [
            {
                "event_id": f"{run}-{number}-{n}",
                "event_type": rng.choice(TYPES),
                "item_id": rng.choice(items),
                "visitor_id": f"load-{run}-{(number * batch + n) // EVENTS_A_VISITOR}",
            }
            for n in range(batch)
        ]
        yield orjson.dumps({"events": events})


async def _behind(store: redis.asyncio.Redis) -> int:
    """Entries not delivered yet and entries in hand; servers before Redis 7 do not count the first."""
    groups: Any = await store.xinfo_groups(STREAM)
    one = next(group for group in groups if group["name"] in (GROUP, GROUP.encode()))
    return int(one.get("lag") or 0) + int(one["pending"])


async def _watch(store: redis.asyncio.Redis, seen: Seen) -> None:
    while True:
        seen.lags.append(await _behind(store))
        await asyncio.sleep(1)


async def _drained(store: redis.asyncio.Redis) -> float:
    began_at = time.monotonic()
    while await _behind(store) and time.monotonic() - began_at < DRAIN_WITHIN_S:  # noqa: ASYNC110 – another process
        await asyncio.sleep(0.2)
    return time.monotonic() - began_at


def main() -> int:
    """Offer the load and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=2000, help="events a second")
    parser.add_argument("--batch", type=int, default=50, help="events a call")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with ExitStack() as stack:
        is_running = holder(asked.data / "run") is not None
        system = System(asked.data) if is_running else stack.enter_context(started(asked.data))
        seen, took_s = asyncio.run(send(system, asked.rate, asked.batch, asked.seconds, asked.seed))
    wanted = int(asked.rate * asked.seconds / asked.batch) * asked.batch
    p50, p99 = np.percentile(np.array(seen.latencies_s or [np.nan]) * 1000, [50, 99])
    print(
        f"{seen.accepted} of {wanted} events in batches of {asked.batch}: {seen.accepted / took_s:.0f} a second for "
        f"{took_s:.1f} s; a batch {p50:.1f} ms (p50), {p99:.1f} ms (p99); answers {dict(seen.ended)}"
    )
    return 0 if set(seen.ended) == {"202"} and seen.accepted >= ENOUGH_SHARE * wanted else 1


if __name__ == "__main__":
    raise SystemExit(main())
