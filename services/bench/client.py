"""
The load, a process of its own: one stretch of requests, closed or open, and what became of each.

    python -m services.bench.client SPEC.json      prints `begin` and `end` around what is counted, then a line of JSON

A unit is one request or, for a page on an edge without pages, several at once; it is answered when its last is. In a
closed loop so many units are always under way, each followed by the next. In an open one units leave when they are due,
by chance at a mean rate, and are timed from then: a late sender is lateness that a shopper would have had. The rule:
what began to be counted is accounted for, as answered or by the name of its failure.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from services.bench.wire import Answer, Connection, request

PATIENCE_S = 5.0
"""Derived: an edge gives every slate up after a tenth of a second, and a patient one (variants.py) after two."""

MOST_CONNECTIONS = 1024
"""Of an open loop. Judged: at 100 ms each they carry 10,000 requests a second, more than two cores answer."""

OK = 200


@dataclass(frozen=True, slots=True)
class Spec:
    """
    One stretch of load.

    units        [[path, body], …] for each unit, sent in this order, from *first* on, again and again
    concurrency  units under way in a closed loop; None: an open one, at *rate* units a second
    warm_s       sent before what is counted
    """

    port: int
    units: Sequence[Sequence[Sequence[str]]]
    first: int
    concurrency: int | None
    rate: float | None
    warm_s: float
    seconds: float
    seed: int

    def save(self, path: Path) -> None:
        """Write *path*."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Spec:
        """What `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class _Unit:
    """One unit under way. *due* is where its time counts from."""

    __slots__ = ("due", "failure", "left", "levels", "remembered")

    def __init__(self, due: float, left: int) -> None:
        self.due, self.left = due, left
        self.failure: str | None = None
        self.levels: list[str] = []
        self.remembered = 0


class Load:
    """
    Sends units and counts what became of them.

    Closed: what ends between begin and end counts. Open: what was due between them.
    """

    def __init__(self, spec: Spec, loop: asyncio.AbstractEventLoop) -> None:
        self._spec, self._loop = spec, loop
        self._messages = [[request(path, body.encode()) for path, body in unit] for unit in spec.units]
        self._next = count(spec.first)
        self._idle: list[Connection] = []
        self._waiting: list[tuple[_Unit, bytes]] = []
        self._opening, self._open = 0, 0
        self._under_way = 0
        self._begin, self._end = float("inf"), float("inf")
        self._is_closed_loop = spec.concurrency is not None
        self._tasks: set[asyncio.Task[None]] = set()
        self.latencies_us: list[int] = []
        self.failures: Counter[str] = Counter()
        self.levels: Counter[str] = Counter()
        self.remembered = 0
        self.cpu_s = 0.0

    async def run(self) -> None:
        """The stretch, from the first connection to the last answer."""
        at_once = (self._spec.concurrency or 1) * max(len(unit) for unit in self._messages)
        await asyncio.gather(*(self._connect() for _ in range(min(at_once, MOST_CONNECTIONS))))
        sending = None
        if self._is_closed_loop:
            for _ in range(self._spec.concurrency or 0):
                self._launch(self._loop.time())
        else:
            sending = asyncio.create_task(self._keep_arriving())
        await asyncio.sleep(self._spec.warm_s)
        cpu = time.process_time()
        self._begin = self._loop.time()
        if not self._is_closed_loop:
            self._end = self._begin + self._spec.seconds
        _say("begin")
        await asyncio.sleep(self._spec.seconds)
        if self._is_closed_loop:
            await self._first_answer()
            self._end = self._loop.time()
        _say("end")
        self.cpu_s = time.process_time() - cpu
        if sending is not None:
            await sending
        await self._last_answers()

    async def _keep_arriving(self) -> None:
        rng, rate = random.Random(self._spec.seed), self._spec.rate or 1.0  # noqa: S311  # arrivals, no secret
        due = self._loop.time()
        while due < self._end:
            if (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            self._launch(due)
            due += rng.expovariate(rate)

    def _launch(self, due: float) -> None:
        messages = self._messages[next(self._next) % len(self._messages)]
        unit = _Unit(due, len(messages))
        self._under_way += 1
        for message in messages:
            while self._idle and not self._idle[-1].is_open:
                self._idle.pop()
                self._open -= 1
            if self._idle:
                self._idle.pop().send(message, unit)
                continue
            self._waiting.append((unit, message))
            if self._open + self._opening < MOST_CONNECTIONS:
                self._opening += 1
                task = self._loop.create_task(self._connect())
                self._tasks.add(task)
                task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._opening -= 1

    async def _connect(self) -> None:
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._answered), "127.0.0.1", self._spec.port
            )
        except OSError:
            if self._waiting:
                unit, _ = self._waiting.pop(0)
                self._part(unit, None)
            return
        self._open += 1
        self._free(connection)

    def _free(self, connection: Connection) -> None:
        if self._waiting:
            unit, message = self._waiting.pop(0)
            connection.send(message, unit)
        else:
            self._idle.append(connection)

    def _answered(self, connection: Connection, answer: Answer | None) -> None:
        unit = connection.tag
        assert isinstance(unit, _Unit)  # noqa: S101  # what `send` was given
        if connection.is_open:
            self._free(connection)
        else:
            self._open -= 1
        self._part(unit, answer)

    def _part(self, unit: _Unit, answer: Answer | None) -> None:
        if answer is None:
            unit.failure = "disconnected"
        elif answer.status != OK:
            unit.failure = str(answer.status)
        elif answer.is_empty:
            unit.failure = "empty"
        else:
            unit.levels.extend(answer.levels)
            unit.remembered += answer.remembered
        unit.left -= 1
        if not unit.left:
            self._finish(unit)

    def _finish(self, unit: _Unit) -> None:
        now = self._loop.time()
        self._under_way -= 1
        counts_at = now if self._is_closed_loop else unit.due
        if self._begin <= counts_at < self._end:
            if unit.failure is not None:
                self.failures[unit.failure] += 1
            else:
                self.latencies_us.append(round(1e6 * (now - unit.due)))
                self.levels.update(unit.levels)
                self.remembered += unit.remembered
        if self._is_closed_loop and now < self._end:
            # Not from here: a lost connection would launch, fail and launch again without end.
            self._loop.call_soon(self._launch, now)

    async def _first_answer(self) -> None:
        """A stretch in which nothing ended would be a row without a figure: it lasts until something does."""
        gives_up = self._loop.time() + PATIENCE_S
        while not (self.latencies_us or self.failures) and self._loop.time() < gives_up:  # noqa: ASYNC110  # until
            await asyncio.sleep(0.01)

    async def _last_answers(self) -> None:
        """Wait for what is under way; who was due and is not answered by then is counted so."""
        gives_up = self._loop.time() + PATIENCE_S
        while self._under_way and self._loop.time() < gives_up:  # noqa: ASYNC110  # nothing is counted any more
            await asyncio.sleep(0.01)
        if not self._is_closed_loop and self._under_way:
            self.failures["unanswered"] += self._under_way
        for connection in self._idle:
            connection.close()

    def to_json(self) -> dict[str, object]:
        """What `figures.Round` is made of."""
        return {
            "latencies_us": self.latencies_us,
            "failures": dict(self.failures),
            "levels": dict(self.levels),
            "remembered": self.remembered,
            "seconds": self._end - self._begin,
            "client_cpu_s": self.cpu_s,
        }


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # the driver reads it


async def _run(spec: Spec) -> Load:
    load = Load(spec, asyncio.get_running_loop())
    await load.run()
    return load


def main() -> int:
    """See the module."""
    spec = Spec.load(Path(sys.argv[1]))
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        factory = None
    # Nothing here makes cycles; the collector would only be seen in the tail.
    gc.collect()
    gc.disable()
    with asyncio.Runner(loop_factory=factory) as runner:
        load = runner.run(_run(spec))
    _say(json.dumps(load.to_json()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
