"""
Open-loop load: requests leave when they are due, whether or not earlier ones were answered, and latency counts from
when they were due. A closed loop would wait with the server, and not see it stall (coordinated omission).

    python -m orchestrator.doctor.load SPEC.json OUT.jsonl [--with-parent]

runs in a process of its own; SIGTERM ends the schedule early, and so does, if wanted, the end of standard input.
It goes before the processes it loads where it may (`PRECEDENCE`). Timers fire up to 1 ms late, and that millisecond is
in the latencies.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from orchestrator.doctor import history
from orchestrator.doctor.history import Seen
from orchestrator.doctor.http_client import Client, NoAnswer, Reply, post
from orchestrator.doctor.mix import COUNT, SHARES, Ask, Kind, Mix, Shop, read_answer

GIVE_UP_S = 2.0
"""Judged: twenty times the promise. Nobody looks at a shelf that comes later."""

WARM_CONNECTIONS = 8
"""Judged: enough that each of a few workers behind one port gets some."""

HEARTBEAT_S = 0.005
STALL_S = 0.003
"""The client's own loop is asked every 5 ms; later than 3 ms (timers are up to 1 ms late anyway) is a stall of ours."""

PRECEDENCE = -10
"""Niceness of the load, where the machine lets us: shoppers have machines of their own, ours shares the cores. At ten
times the knee it wants a quarter of a core (160 µs a request), and among 18 busy processes it waited for one for nine
tenths of its time, sent what was due up to 1.2 s late and all at once, and gave up on answers that lay there unread."""

PRIORITY_HEADER = "x-request-priority"


@dataclass(frozen=True, slots=True)
class Segment:
    """*rate* requests a second for *seconds*."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Spec:
    """
    A whole load.

    Args:
        seed: of arrivals, kinds and shoppers; the same again gives the same load but for *salt*.
        salt: of what fresh requests leave out; another one each time, else they would not be fresh.
        schedule: `poisson` (independent shoppers) or `constant`.
        priorities: X-Request-Priority → share; empty sends no such header.
        impatient_s: a client that asks again after so long without an answer, *retries* times; 0: a patient one.
        judged_share: of answers whose bodies are read; the rest is judged by status and latency. Below 1 only where
            this client would be the bottleneck.
        give_up_s: how long an answer is waited for.
    """

    host: str
    port: int
    segments: tuple[Segment, ...]
    users: tuple[str, ...]
    items: tuple[str, ...]
    seed: int = 1
    salt: int = 0
    schedule: str = "poisson"
    kinds: Mapping[str, float] = field(default_factory=lambda: {kind.value: share for kind, share in SHARES.items()})
    priorities: Mapping[str, float] = field(default_factory=dict)
    impatient_s: float = 0.0
    retries: int = 0
    judged_share: float = 1.0
    give_up_s: float = GIVE_UP_S

    def document(self) -> bytes:
        """As `spec_of` reads it."""
        return orjson.dumps(asdict(self))


def spec_of(document: bytes) -> Spec:
    """What `Spec.document` wrote."""
    fields = orjson.loads(document)
    fields["segments"] = tuple(Segment(**one) for one in fields["segments"])
    fields["users"], fields["items"] = tuple(fields["users"]), tuple(fields["items"])
    return Spec(**fields)


def moments(segments: Sequence[Segment], schedule: str, rng: random.Random) -> Iterator[float]:
    """Seconds from the beginning at which requests are due, ascending."""
    begins = 0.0
    for segment in segments:
        ends = begins + segment.seconds
        if schedule == "constant":
            yield from (begins + n / segment.rate for n in range(round(segment.rate * segment.seconds)))
        elif segment.rate > 0:
            at = begins
            while (at := at + rng.expovariate(segment.rate)) < ends:
                yield at
        begins = ends


class Heart:
    """Notes when this process's loop was late, so that our own stalls are not taken for the server's."""

    def __init__(self) -> None:
        self.stalls: list[tuple[float, float]] = []

    async def beat(self) -> None:
        """For ever; cancelled by whoever started it."""
        while True:
            due_at = time.monotonic() + HEARTBEAT_S
            await asyncio.sleep(HEARTBEAT_S)
            now = time.monotonic()
            if now - due_at > STALL_S:
                self.stalls.append((due_at, now))

    def slept(self, start: float, end: float) -> float:
        """Seconds of [start, end] in which the loop was late."""
        total = 0.0
        for began_at, ended_at in reversed(self.stalls):
            if ended_at < start:
                break
            total += max(0.0, min(end, ended_at) - max(start, began_at))
        return total


async def run_load(spec: Spec, stop: asyncio.Event | None = None) -> list[Seen]:
    """
    Send everything, wait for the last answer, return all of them in the order of schedule.

    stop: when set, nothing more is sent.
    """
    stop = stop or asyncio.Event()
    rng = random.Random(spec.seed)  # noqa: S311 – replayable, not secret
    fresh = random.Random(spec.salt)  # noqa: S311
    mix = Mix(Shop(spec.users, spec.items), rng, fresh, {Kind(kind): share for kind, share in spec.kinds.items()})
    client, heart = Client(spec.host, spec.port), Heart()
    await client.warm(WARM_CONNECTIONS)
    beat = asyncio.create_task(heart.beat())
    seen: list[Seen] = []
    tasks: set[asyncio.Task[None]] = set()
    began_at = time.monotonic() + 0.02

    async def one(scheduled_at: float, ask: Ask, priority: str, judged: bool) -> None:
        seen.append(await _ask(client, spec, heart, scheduled_at, ask, priority, judged))

    try:
        for at in moments(spec.segments, spec.schedule, rng):
            ask = mix.next()
            priority = rng.choices(list(spec.priorities), list(spec.priorities.values()))[0] if spec.priorities else ""
            judged = spec.judged_share >= 1 or rng.random() < spec.judged_share
            if (wait_s := began_at + at - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if stop.is_set():
                break
            task = asyncio.create_task(one(began_at + at, ask, priority, judged))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(list(tasks))
    finally:
        for task in (beat, *tasks):
            task.cancel()
        client.close()
    return sorted(seen, key=lambda one: one.scheduled_at)


async def _ask(
    client: Client, spec: Spec, heart: Heart, scheduled_at: float, ask: Ask, priority: str, judged: bool
) -> Seen:
    host = f"{spec.host}:{spec.port}"
    headers = f"{PRIORITY_HEADER}: {priority}\r\n" if priority else ""
    request = post(host, "/v1/recommendations", ask.body, headers)
    sent_at = time.monotonic()
    fields: dict[str, Any] = {"priority": priority or "critical", "asked": COUNT}
    try:
        reply = await _patiently(client, spec, request)
    except NoAnswer as error:
        done_at = time.monotonic()
        fields |= {"status": 0, "error": error.why}
    else:
        done_at = reply.at
        fields |= {"status": reply.status, "retry_after": (reply.header("retry-after") or "").isdigit()}
        fields["process"] = process_of(reply)
        if reply.status == 200:
            fields |= read_answer(ask, reply.body) if judged else _glance(reply.body)
    client_s = heart.slept(scheduled_at, done_at) + max(0.0, sent_at - scheduled_at - STALL_S)
    return Seen(
        scheduled_at, sent_at, done_at, ask.kind.value, client_s=min(client_s, done_at - scheduled_at), **fields
    )


async def _patiently(client: Client, spec: Spec, request: bytes) -> Reply:
    for attempt in range(spec.retries + 1):
        is_last = attempt == spec.retries
        try:
            reply = await client.ask(request, spec.give_up_s if is_last or not spec.impatient_s else spec.impatient_s)
        except NoAnswer:
            if is_last:
                raise
            continue
        if reply.status == 200 or is_last:
            return reply
    raise AssertionError("the last attempt returns or raises")


def process_of(reply: Reply) -> str:
    """The number of the process that answered, "" where the answer does not say."""
    _, found, rest = (reply.header("server-timing") or "").partition('process;desc="')
    return rest.partition('"')[0] if found else ""


def _glance(body: bytes) -> dict[str, Any]:
    """What a body says without being parsed: enough to count it."""
    level = next(
        (level for level in ("full", "partial", "stale", "popular") if b'"level":"%b"' % level.encode() in body), ""
    )
    n_items = body.count(b'"rank":')
    return {"level": level, "n_items": n_items, "broken": () if n_items == COUNT else (f"I7: {n_items} items",)}


def _stop_once(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    loop.remove_reader(sys.stdin.fileno())
    stop.set()


def take_precedence() -> None:
    """
    Go before the others, as far as may be; without the privilege the load takes its turn among them.

    Where Linux groups processes by session (autogroup), a niceness says only who goes first within a group, and each
    group has the weight of one process: the load has a session of its own (`drill.Load`), which gets the same niceness.
    """
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, PRECEDENCE)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(PRECEDENCE), encoding="ascii")


def main() -> int:
    """Read the specification, run it, write the history."""
    spec = spec_of(Path(sys.argv[1]).read_bytes())
    take_precedence()
    try:
        from uvloop import new_event_loop
    except ImportError:  # not on Windows
        from asyncio import new_event_loop

    async def until_told() -> list[Seen]:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        if "--with-parent" in sys.argv[3:]:
            # Nobody writes there: it becomes readable when whoever holds the other end is gone, however that came.
            loop.add_reader(sys.stdin.fileno(), _stop_once, loop, stop)
        return await run_load(spec, stop)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        history.write(Path(sys.argv[2]), runner.run(until_told()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
