"""
Guard, dependencies and pipeline, the real ones, with a look-out on top: they do what they do, and it is written down.

Whose call it is travels in context variables, since one making of a slate may serve several requests.
"""

import asyncio
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.adapters.event_loop import INTERVAL_S, LoopWatch
from orchestrator.core.dependency import Attempt, Dependency, Kind, Policy
from orchestrator.core.model import Kept, Loss, Lost
from orchestrator.guard import Guard
from orchestrator.pipeline import Pipeline
from orchestrator.ports import DependencyError
from orchestrator.telemetry import new_metrics
from tests.simulation import invariants
from tests.simulation.invariants import MARK, Call, Load, Making, Record
from tests.simulation.plan import REPLICAS

if TYPE_CHECKING:
    from tests.simulation.world import World

metrics = new_metrics()
of_request: ContextVar[Record | None] = ContextVar("of_request", default=None)
of_making: ContextVar[Making | None] = ContextVar("of_making", default=None)
of_call: ContextVar[Call | None] = ContextVar("of_call", default=None)


class Heart(LoopWatch):
    """The look-out for stalls, without its thread: nobody reads a stack here, and time passes by itself."""

    def start(self) -> None:
        self._beaten_at = self._now()
        self._next = asyncio.get_running_loop().call_later(INTERVAL_S, self._beat)


class WatchedDependency(Dependency):
    """Writes down which attempts it allowed."""

    def __init__(self, world: "World", name: str, policy: Policy) -> None:
        super().__init__(name, policy, world.rng("guard", name), self._changed)
        self._world = world
        self.load = Load()
        self._alive: list[Attempt] = []

    def alive(self) -> list[Attempt]:
        self._alive = [attempt for attempt in self._alive if not attempt._is_over]
        return self._alive

    def begin(self, now: float, timeout_s: float, kind: Kind = Kind.FIRST, besides: int | None = None):
        allowed = super().begin(now, timeout_s, kind, besides)
        if isinstance(allowed, Attempt):
            call = of_call.get()
            call.attempts.append(allowed)
            self._alive.append(allowed)
            self._world.broken(invariants.of_attempt(self, self.alive(), allowed, call, now))
        return allowed

    def _changed(self, before, after) -> None:
        self._world.note("breaker", self.name, before.value, after.value)
        self._world.outcome.seen[f"breaker {before.value} → {after.value}"] += 1


class WatchedGuard(Guard):
    """Writes down what every call came to, and what its attempts really answered."""

    # Bound here, so that the suite's rule against nameless losses (tests/conftest.py) does not listen: some are
    # planned, and that there are no others is an invariant.
    _lost = Guard._lost

    def __init__(self, world: "World", dependencies, **about) -> None:
        super().__init__(world.loop.time, metrics, dependencies, world.rng("guard"), **about)
        self._world = world

    async def call(self, dependency, stage, deadline, make_call, share=1.0):
        world, known, now = self._world, self.dependencies[dependency], self._world.loop.time
        call = Call(dependency, stage, deadline, share, now())
        whose = of_making.get() or of_request.get()
        if whose is not None:
            whose.calls[dependency] = call

        async def answered(timeout_s: float, replica: int):
            try:
                value = await make_call(timeout_s, replica)
            except DependencyError as error:
                call.raised.append((now(), error.loss))
                raise
            except RuntimeError:
                call.raised.append((now(), Loss.UNCLASSIFIED))
                raise
            call.answers.append((now(), value))
            return value

        def made(timeout_s: float, replica: int):
            attempt = next(
                one
                for one in call.attempts
                if one not in call.made and (one.timeout_s, one.replica) == (timeout_s, replica)
            )
            call.made.append(attempt)
            world.note("call", dependency, attempt.kind.value, replica, round(timeout_s * 1e6))
            world.outcome.seen[f"attempt {attempt.kind.value}"] += 1
            if attempt.kind is Kind.FIRST:
                known.load.firsts.append(now())
            else:
                known.load.extras.append((now(), attempt.kind))
                world.broken(invariants.of_load(dependency, known.load))
            return answered(timeout_s, replica)

        token = of_call.set(call)
        try:
            call.outcome = await super().call(dependency, stage, deadline, made, share)
            return call.outcome
        finally:
            of_call.reset(token)
            call.ended_at = now()
            match call.outcome:
                case Lost(loss=loss):
                    said = loss.value
                case Kept():
                    said = "kept"
                case _:
                    said = "hung up"
            world.note("outcome", dependency, said)
            world.outcome.seen[f"outcome {said}"] += 1
            others_are_out = any(one.ejected_at is not None for one in known.replicas._replicas)
            may_ask_again = REPLICAS[dependency] == 1 or others_are_out
            world.broken(invariants.of_call(call, may_ask_again, world.stalled_until(call.began_at)))
            world.broken(invariants.of_probes(known, known.alive(), now()))


class WatchedPipeline(Pipeline):
    """
    Writes down what each slate was made of, and marks the slate with it: it may be shared by several requests.

    The mark is a stage that took as many milliseconds as the making has a number; it travels with whatever is said of
    that slate, and is gone when it is remembered.
    """

    def __init__(self, world: "World", *about) -> None:
        super().__init__(*about)
        self._world = world

    async def _compute(self, *asked):
        making = Making(self._world.loop.time())
        self._world.makings.append(making)
        mark = (MARK, float(len(self._world.makings) - 1))
        token = of_making.set(making)
        try:
            slate = await super()._compute(*asked)
        finally:
            of_making.reset(token)
        return replace(slate, stages_ms=(*slate.stages_ms, mark))
