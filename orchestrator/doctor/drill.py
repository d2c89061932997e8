"""
One drill: load, a while of health, a fault, healing, a while of health again, and the verdict on what clients saw.

The load runs in a process of its own and is told when to end, since some healing (a restart) takes as long as it takes.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from orchestrator.doctor import history
from orchestrator.doctor.calls import calls_made
from orchestrator.doctor.checker import Phases, Verdict, figures_of, judge, percentile
from orchestrator.doctor.faults import Fault
from orchestrator.doctor.history import Seen
from orchestrator.doctor.injection import Injector
from orchestrator.doctor.load import Segment, Spec
from orchestrator.doctor.mix import Shop
from orchestrator.doctor.system import READY_WITHIN_S, System

SETTLE_S = 0.3
"""From starting the load's process until its first request; measured 0.25 s on 2 cores, the interpreter's own start."""

LONGEST_TAIL_S = 30.0
"""Derived: a load that was told to end waits for at most one answer, which it gives up after seconds."""

TURNS_WITHIN_S = 120.0
"""Derived: six model processes in turn, each a few seconds, some of them behind the supervisor's back-off."""

KNEE_SHARE = 0.25
LEAST_RATE, MOST_RATE = 8.0, 120.0
"""Load of a drill: a quarter of the knee (resilience specification §5), within what a phase of seconds can be judged
by (8 a second for 5 s are 40 answers) and what the specification uses on two cores (120)."""

IMPATIENT_S, IMPATIENT_RETRIES = 0.1, 3
"""Row 35."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each phase of a drill."""

    before_s: float
    fault_s: float
    after_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a drill came to."""

    fault: Fault
    phases: Phases
    verdict: Verdict
    seen: Sequence[Seen] = field(repr=False)


class Load:
    """
    Load from a process of its own; `finish` ends it and returns what it saw.

    Used as a context manager, so that an interrupted drill leaves no load behind.
    """

    def __init__(self, spec: Spec) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tutti-load-")
        self._out = Path(self._folder.name) / "seen.jsonl"
        asked = Path(self._folder.name) / "spec.json"
        asked.write_bytes(spec.document())
        command = [sys.executable, "-m", "orchestrator.doctor.load", str(asked), str(self._out), "--with-parent"]
        # A pipe that is never written to: when we are killed it ends, and the load with it. A session of its own, since
        # that is what Linux shares the cores by; so a Ctrl-C reaches only us, and we end it.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._folder.cleanup()

    def finish(self, *, now: bool = True) -> list[Seen]:
        """
        Everything it saw.

        now: end the schedule; otherwise wait until it is through.

        Raises:
            RuntimeError: the load itself failed.
        """
        if now:
            self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(LONGEST_TAIL_S if now else None)
        if code != 0:
            raise RuntimeError(f"the load ended with exit code {code}")
        return history.read(self._out)


def spec_for(system: System, shop: Shop, rate: float, seconds: float, seed: int) -> Spec:
    """*rate* requests a second for *seconds* on *system*."""
    segments = (Segment(rate, seconds),)
    return Spec(system.host, system.port, segments, shop.users, shop.items, seed, time.time_ns())


def drill(
    system: System,
    shop: Shop,
    fault: Fault,
    timing: Timing,
    rate: float,
    seed: int = 1,
    say: Callable[[str], None] = print,
) -> Outcome:
    """
    Make *fault* under load and judge what clients saw. Always heals, also on Ctrl-C.

    Raises:
        CannotInject: it could not be made or undone.
        NotRunning: a process did not come back, or the system ended.
    """
    fault_s = fault.seconds(timing.fault_s, rate)
    longest = timing.before_s + fault_s + timing.after_s + READY_WITHIN_S + TURNS_WITHIN_S
    spec = spec_for(system, shop, rate, longest, seed)
    if fault.impatient:
        spec = replace(spec, impatient_s=IMPATIENT_S, retries=IMPATIENT_RETRIES)
    with Load(spec) as load, Injector(system, seed) as injector:
        time.sleep(SETTLE_S)
        sent = [calls_made(system)]
        begins_at = time.monotonic()
        time.sleep(timing.before_s)
        sent.append(calls_made(system))
        say("fault")
        inject_from = time.monotonic()
        injector.inject(fault.steps)
        injected_at = time.monotonic()
        time.sleep(fault_s)
        injector.wait_turns(TURNS_WITHIN_S)
        if fault.lasts_s is None:
            sent.append(calls_made(system))
        heal_from = time.monotonic()
        say("heal")
        injector.heal()
        healed_at = time.monotonic()
        if fault.lasts_s is not None:
            # It was over by itself: what came until then was the fault. Asked only now, since an orchestrator that
            # stands still does not answer, and waiting for it would make the fault longer.
            heal_from = healed_at
            sent.append(calls_made(system))
        time.sleep(timing.after_s)
        ends_at = time.monotonic()
        seen = load.finish()
    phases = Phases(begins_at, inject_from, injected_at, heal_from, healed_at, ends_at)
    seen = list(history.between(seen, begins_at, ends_at))
    verdict = judge(seen, phases, fault.expect, system.names.sources, sent, len(system.orchestrators()))
    return Outcome(fault, phases, verdict, seen)


@dataclass(frozen=True, slots=True)
class Knee:
    """Requests a second that are answered in time; *tried*: rate → share of answers that were good."""

    rate: float
    tried: Mapping[float, float]

    @property
    def load(self) -> float:
        """The rate for drills: a quarter, bounded."""
        return max(LEAST_RATE, min(MOST_RATE, self.rate * KNEE_SHARE))


GOOD_SHARE = 0.99
"""The knee is the highest rate of the ladder at which 99 % of the answers are 200, undegraded by us, in time."""

LADDER = 1.5
FIRST_RATE = 20.0
MOST_STEPS = 12
"""20 requests a second and half as many again each step: 12 steps reach 1,700."""


def measure_knee(system: System, shop: Shop, step_s: float, seed: int = 1) -> Knee:
    """
    Climb the ladder of rates until answers are no longer good; a rough figure, to choose a load by.

    Open loop, since that is what is wanted to know: a closed one slows down with the server.
    """
    tried: dict[float, float] = {}
    rate, knee = FIRST_RATE, 0.0
    for _ in range(MOST_STEPS):
        with Load(spec_for(system, shop, rate, step_s, seed)) as load:
            seen = load.finish(now=False)
        tried[round(rate, 1)] = share = good_share(seen)
        if share < GOOD_SHARE:
            break
        knee, rate = rate, rate * LADDER
    return Knee(knee or FIRST_RATE / 2, tried)


def good_share(seen: Sequence[Seen], within_s: float = 0.1) -> float:
    """
    Share of requests answered 200 with a whole slate in time: goodput over offered load.

    Without the time in which the client itself was late: it shares the cores with what it loads, and at 680 requests a
    second on two of them it is late more often than the answers are.
    """
    whole = [one for one in seen if one.status == 200 and one.n_items == one.asked]
    return sum(one.latency_s - one.client_s <= within_s for one in whole) / max(1, len(seen))


@contextmanager
def healing_signals() -> Iterator[None]:
    """SIGTERM and SIGINT (also where a shell has it ignored) end a drill through every `finally`, which heals."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def overall(outcomes: Sequence[Outcome]) -> tuple[int, float, float]:
    """Answers, availability and p99.9 in ms over all faults' own phases: the project's objectives."""
    seen = [
        one
        for outcome in outcomes
        for one in history.between(outcome.seen, outcome.phases.inject_from, outcome.phases.healed_at)
        if not one.is_shed and outcome.fault.expect.p99_s <= 0.1
    ]
    figures = figures_of(seen)
    available = sum(one.status == 200 and one.n_items > 0 for one in seen) / max(1, len(seen))
    return figures.n, available, percentile(sorted(one.latency_s * 1000 for one in seen), 0.999)


def chosen(faults: Sequence[Fault], only: Sequence[str], rng: random.Random | None = None) -> list[Fault]:
    """
    Those named, in the catalogue's order; all when nothing is named.

    Raises:
        ValueError: a name that is not in the catalogue; the message lists what is.
    """
    known = {fault.name for fault in faults}
    if unknown := [name for name in only if name not in known]:
        raise ValueError(f"no fault {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    picked = [fault for fault in faults if not only or fault.name in only]
    if rng is not None:
        rng.shuffle(picked)
    return picked
