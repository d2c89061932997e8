"""
How soon what a shopper did shows, across two orchestrators and one Redis: events go to the first, slates are read from
the second, while both answer other shoppers.

    python -m loadtests.freshness --data DIR [--rate 200] [--uncached 0.02] [--seconds 30] [--every 0.25]

Attaches to the system that runs in DIR when it has two workers, or starts one of its own. Every --every seconds a new
visitor looks at an item. From the 202 on, two readers ask for that visitor's slate again and again, one of each
orchestrator. Time counts from the arrival of the 202 to the arrival of the first slate, of those asked for after it,
whose watermark covers the event and whose items are other ones than before it.

The other shoppers are what a shop has: known ones whose home shelf is remembered, each asked for once before the clock
starts, and a share of --uncached that nobody asked for before (two items left out, drawn at random). How many were
remembered indeed is printed.

Exit code 1 when a slate that was asked for after the 202 did not cover the event, or a reader saw the watermark go
back. The load and the whole system share this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson

from orchestrator.doctor.http_client import Client, NoAnswer, Reply, post
from orchestrator.doctor.mix import Shop
from orchestrator.doctor.system import NotRunning, System, started
from orchestrator.supervisor.state import holder

WARM_AT_ONCE, WARM_WITHIN_S = 4, 10.0
"""Shelves that are asked for together before the clock starts, and how long one may take. Judged: two cores compute."""

GIVE_UP_S = 2.0
"""Judged: a slate that is the same for this long is counted as unchanged, and is not waited for."""

COUNT = 10
"""Items of a slate, as many as a shelf shows."""


PAUSE_S = 0.005
"""Between two questions of one reader, so that forty shoppers who wait are not the load."""


@dataclass(frozen=True, slots=True)
class Read:
    """
    One slate as a reader saw it.

    asked_at, at  monotonic moments: the question left, the answer was there
    watermark     None where the orchestrator had lost the shopper, and says so (`degraded`): the slate claims nothing
    """

    asked_at: float
    at: float
    watermark: int | None
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """
    What one event came to. Seconds from the 202.

    covered_s   first slate that covers the event; None: none did
    changed_s   first that covers it and has other items than before; None: none had
    n_stale     slates asked for after the 202 that do not cover it
    n_back      times that a reader saw the watermark go back
    n_silent    slates that claim nothing
    """

    covered_s: float | None
    changed_s: float | None
    n_stale: int
    n_back: int
    n_silent: int


def judged(accepted_at: float, watermark: int, before: tuple[str, ...], *readers: Sequence[Read]) -> Seen:
    """
    Judge one event.

    Args:
        accepted_at: when the 202 was there; *watermark*: what it said.
        before: items of the shopper's last slate before the event.
        readers: what each saw, in the order in which it asked, one question at a time. Times are of the first.
    """
    spoken = [[one for one in reads if one.watermark is not None] for reads in readers]
    after = [[one for one in reads if one.asked_at >= accepted_at] for reads in spoken]
    covering = [one for one in after[0] if _covers(one, watermark)]
    changed = [one for one in covering if one.items != before]
    return Seen(
        covered_s=covering[0].at - accepted_at if covering else None,
        changed_s=changed[0].at - accepted_at if changed else None,
        n_stale=sum(not _covers(one, watermark) for reads in after for one in reads),
        n_back=sum(_went_back(reads) for reads in spoken),
        n_silent=sum(one.watermark is None for reads in readers for one in reads),
    )


def _covers(read: Read, watermark: int) -> bool:
    return read.watermark is not None and read.watermark >= watermark


def _went_back(reads: Iterable[Read]) -> int:
    return sum((later.watermark or 0) < (earlier.watermark or 0) for earlier, later in pairwise(reads))


def read_of(asked_at: float, reply: Reply) -> Read | None:
    """An answer as a Read; None for one that is no slate."""
    if reply.status != 200:
        return None
    body = orjson.loads(reply.body)
    is_lost = "user" in body["quality"]["degraded"]
    return Read(asked_at, reply.at, None if is_lost else body["watermark"], tuple(one["id"] for one in body["items"]))


def is_remembered(reply: Reply) -> bool:
    """Whether this slate came from the cache, by its own word."""
    if reply.status != 200:
        return False
    return all(one["status"] == "cached" for one in orjson.loads(reply.body)["quality"]["sources"])


def lines(seen: Sequence[Seen], background: Sequence[float], n_remembered: int, ended: Counter[str]) -> list[str]:
    """What is printed; *background*: seconds of the other slates, of which *n_remembered* came from the cache."""
    share = n_remembered / max(len(background), 1)
    return [
        f"{len(seen)} events; {sum(one.n_stale for one in seen)} slates asked for after the 202 did not cover theirs; "
        f"the watermark went back {sum(one.n_back for one in seen)} times; "
        f"{sum(one.n_silent for one in seen)} slates had lost the shopper and claim nothing",
        f"202 → first slate that covers the event:             {_spread([one.covered_s for one in seen])}",
        f"202 → first slate that covers it and is another one: {_spread([one.changed_s for one in seen])}",
        f"meanwhile {len(background)} other slates, {share:.1%} of them remembered: {_spread(list(background))}; "
        f"answers {dict(ended)}",
    ]


def _spread(seconds: Sequence[float | None]) -> str:
    ms = np.array([one * 1000 for one in seconds if one is not None])
    never = len(seconds) - len(ms)
    missing = f", {never} never within {GIVE_UP_S:g} s" if never else ""
    if not len(ms):
        return f"none{missing}"
    p50, p99, most = np.percentile(ms, [50, 99, 100])
    return f"{p50:.1f} ms (p50), {p99:.1f} ms (p99), {most:.1f} ms at most{missing}"


def holds(seen: Sequence[Seen]) -> bool:
    """The promise: every slate asked for after the 202 covers the event, and no watermark goes back."""
    return bool(seen) and not any(one.n_stale or one.n_back or one.covered_s is None for one in seen)


@dataclass(frozen=True, slots=True)
class Load:
    """
    What goes on beside the events.

    rate, seconds  slates a second, and for how long
    uncached       share of them that nobody asked for before, in [0, 1]
    shoppers       whose shelves the others are
    """

    rate: float
    seconds: float
    uncached: float
    shoppers: int


@dataclass
class _Shoppers:
    """The two orchestrators, and what is asked of them."""

    first: Client
    second: Client
    host: str
    background_s: list[float] = field(default_factory=list)
    n_remembered: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    async def one_event(self, visitor: str, item: str) -> Seen | None:
        """A new visitor's first view; None where it was not accepted, or the visitor had no slate before."""
        before = await self._slate(self.second, visitor)
        if before is None:
            return None
        event = {"event_id": visitor, "event_type": "view", "item_id": item, "visitor_id": visitor}
        stop = asyncio.Event()
        reads: tuple[list[Read], list[Read]] = ([before], [])
        # They ask before, during and after: none of what they see may go back.
        readers = [
            asyncio.create_task(self._read_on(client, visitor, into, stop))
            for client, into in zip((self.second, self.first), reads, strict=True)
        ]
        try:
            accepted = await self.first.ask(post(self.host, "/v1/events", orjson.dumps({"events": [event]})), GIVE_UP_S)
            self.ended[str(accepted.status)] += 1
            if accepted.status != 202:
                return None
            # A new visitor's first event; the number itself is a courtesy, left out where Redis is slow to say it.
            watermark = int(orjson.loads(accepted.body)["watermark"] or 1)
            until = accepted.at + GIVE_UP_S
            while time.monotonic() < until:
                if judged(accepted.at, watermark, before.items, *reads).changed_s is not None:
                    break
                await asyncio.sleep(PAUSE_S)
        except NoAnswer as error:
            self.ended[error.why] += 1
            return None
        finally:
            stop.set()
            await asyncio.gather(*readers)
        return judged(accepted.at, watermark, before.items, *reads)

    async def another(self, body: bytes, due_at: float, number: int) -> None:
        """A slate of the background, of each orchestrator in turn."""
        try:
            reply = await (self.first, self.second)[number % 2].ask(
                post(self.host, "/v1/recommendations", body), GIVE_UP_S
            )
        except NoAnswer as error:
            self.ended[error.why] += 1
            return
        self.ended[str(reply.status)] += 1
        self.background_s.append(reply.at - due_at)
        self.n_remembered += is_remembered(reply)

    async def warm(self, bodies: Sequence[bytes]) -> None:
        """Have each of these slates made and remembered; the orchestrators share their cache."""
        await asyncio.gather(self.first.warm(8), self.second.warm(8))
        left = iter(bodies)

        async def one_after_another() -> None:
            for body in left:
                await self.first.ask(post(self.host, "/v1/recommendations", body), WARM_WITHIN_S)

        await asyncio.gather(*(one_after_another() for _ in range(WARM_AT_ONCE)))

    async def _read_on(self, client: Client, visitor: str, into: list[Read], stop: asyncio.Event) -> None:
        while not stop.is_set():
            read = await self._slate(client, visitor)
            if read is not None:
                into.append(read)
            await asyncio.sleep(PAUSE_S)

    async def _slate(self, client: Client, visitor: str) -> Read | None:
        body = orjson.dumps({"placement": "home", "visitor_id": visitor, "count": COUNT})
        asked_at = time.monotonic()
        try:
            return read_of(asked_at, await client.ask(post(self.host, "/v1/recommendations", body), GIVE_UP_S))
        except NoAnswer as error:
            self.ended[error.why] += 1
            return None


async def measure(
    addresses: Sequence[str], shop: Shop, load: Load, every_s: float, seed: int
) -> tuple[list[Seen], _Shoppers]:
    """Both loads, each on its own schedule; an event every *every_s*."""
    rng, run = random.Random(seed), uuid.uuid4().hex[:8]  # noqa: S311 – replayable, not secret
    first, second = (Client(host, int(port)) for host, _, port in (one.rpartition(":") for one in addresses[:2]))
    shoppers = _Shoppers(first, second, addresses[0])
    homes = [{"placement": "home", "user_id": user, "count": COUNT} for user in shop.users[: load.shoppers]]
    await shoppers.warm([orjson.dumps(home) for home in homes])
    tasks: list[asyncio.Task[Seen | None]] = []
    others: list[asyncio.Task[None]] = []
    began_at = time.monotonic()

    async def background() -> None:
        for n in range(int(load.rate * load.seconds)):
            due_at = began_at + n / load.rate
            await asyncio.sleep(max(due_at - time.monotonic(), 0))
            home = rng.choice(homes)
            if rng.random() < load.uncached:
                home = {**home, "exclude_item_ids": rng.sample(shop.items, 2)}
            others.append(asyncio.create_task(shoppers.another(orjson.dumps(home), due_at, n)))

    async def events() -> None:
        for n in range(int(load.seconds / every_s)):
            await asyncio.sleep(max(began_at + n * every_s - time.monotonic(), 0))
            tasks.append(asyncio.create_task(shoppers.one_event(f"fresh-{run}-{n}", rng.choice(shop.items))))

    await asyncio.gather(background(), events())
    found = await asyncio.gather(*tasks)
    await asyncio.gather(*others)
    for client in (first, second):
        client.close()
    return [one for one in found if one is not None], shoppers


def main() -> int:
    """Offer the load and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=200, help="other shoppers' slates a second")
    parser.add_argument("--uncached", type=float, default=0.02, help="share of these that nobody asked for before")
    parser.add_argument("--shoppers", type=int, default=250, help="known shoppers whose slates these are")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--every", type=float, default=0.25, help="seconds between two events")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with ExitStack() as stack:
        is_running = holder(asked.data / "run") is not None
        system = System(asked.data) if is_running else stack.enter_context(started(asked.data, ("--workers", "2")))
        addresses = [one.address for one in system.orchestrators()]
        if len(addresses) < 2:
            raise NotRunning(f"two orchestrators are needed; one runs in {asked.data}. Try: tutti up --workers 2")
        load = Load(asked.rate, asked.seconds, asked.uncached, asked.shoppers)
        seen, shoppers = asyncio.run(measure(addresses, system.shop(), load, asked.every, asked.seed))
    for line in lines(seen, shoppers.background_s, shoppers.n_remembered, shoppers.ended):
        print(line)
    return 0 if holds(seen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
