"""
The pipeline as `bootstrap` builds it, on far twins, carrying out a plan; every attempt, call and answer is watched.

Guard and dependencies are the real ones with a look-out on top: they do what they do, and it is written down.
"""

import asyncio
import gc
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import structlog

from orchestrator import settings as settings_module
from orchestrator.adapters.event_loop import INTERVAL_S, LoopWatch
from orchestrator.adapters.memory import (
    MemoryEvents,
    MemoryReranker,
    MemorySlates,
    MemorySource,
    MemoryStore,
    MemoryUserReader,
)
from orchestrator.core.dependency import Attempt, Dependency, Kind, Policy
from orchestrator.core.limiter import LimiterPolicy
from orchestrator.core.model import ItemFilter, Kept, Loss, Lost, Placement, Query
from orchestrator.degradation import Degradation
from orchestrator.guard import Guard
from orchestrator.pipeline import Collaborators, Pipeline
from orchestrator.ports import DependencyError
from orchestrator.settings import Settings
from orchestrator.telemetry import new_metrics
from tests.simulation import invariants
from tests.simulation.invariants import Call, Load, Record
from tests.simulation.loop import ShuffledLoop
from tests.simulation.network import FarEvents, FarReader, FarReranker, FarSlates, FarSource, Wire
from tests.simulation.plan import REPLICAS, Asked, Plan, Told
from tests.support.builders import PURCHASE, an_event
from tests.support.worlds import CACHE, CB, CF, EVENTS, RERANKER, USER, a_catalogue

REST_S = 3.0
"""After this nothing may be under way any more: the longest call of a twin ends after little more than a second."""

HEALED_AFTER_S = 45.0
"""Derived: longer than the longest plan and the longest wait of a breaker, 30 s, together."""

HEALED_WITHIN = 8
"""Requests after which nothing may be lost any more. Derived: three probes close a breaker; twice that and two."""

HEALED_ROUNDS = 2
"""A breaker whose probes told nothing opens again with the first request after a silence; the next silence ends it."""

SPURNED = 700
"""Requests nobody accepted: enough for adaptive throttling (5/s for 2 minutes) to reject most."""

metrics = new_metrics()
_of_request: ContextVar[Record | None] = ContextVar("of_request", default=None)
_of_call: ContextVar[Call | None] = ContextVar("of_call", default=None)


@dataclass(slots=True)
class Outcome:
    """What came of one run. *seen*: how often which kind of thing happened, so that a tame exploration shows."""

    violations: list[str] = field(default_factory=list)
    trace: list[tuple] = field(default_factory=list)
    seen: Counter = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        """Of the trace."""
        return hashlib.blake2b(repr(self.trace).encode(), digest_size=8).hexdigest()


def run(plan: Plan, *, jumps: bool = True) -> Outcome:
    """Carry out *plan*, on a loop of its own; without *jumps* nobody sets the wall clock."""
    loop = ShuffledLoop(random.Random(f"turns {plan.seed}"), plan.jumps if jumps else ())
    try:
        with _silence(), _no_collections():
            world = World(plan, loop)
            loop.set_exception_handler(world.unhandled)
            loop.run_until_complete(world.run())
            # An exception that nobody retrieved is told when its task is collected; all that is new is young.
            gc.collect(0)
    finally:
        loop.close()
    return world.outcome


@contextmanager
def _no_collections() -> Iterator[None]:
    """A tenth of the time otherwise."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _silence() -> Iterator[None]:
    """No log lines: those of thousands of sick shops cost more than the shops, and the trace says the same."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@cache
def _settings(with_cache: bool) -> Settings:
    return settings_module.load(
        environment={
            "TUTTI_SLATE_CACHE__ENABLED": str(with_cache).lower(),
            # Short, so that a few seconds see fresh, stale and refreshed slates.
            "TUTTI_SLATE_CACHE__FRESH_S": "0.7",
            "TUTTI_LADDER__EXERCISE_SHARE": "0.02",
        }
    )


@cache
def _catalogue(sold_out: frozenset[int]):
    return a_catalogue(sold_out)


class Shelf:
    """The catalogue of the moment."""

    def __init__(self) -> None:
        self.now = _catalogue(frozenset())

    def __getattr__(self, name):
        return getattr(self.now, name)


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
            call = _of_call.get()
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
        record = _of_request.get()
        if record is not None and record.is_open:
            record.calls[dependency] = call

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

        token = _of_call.set(call)
        try:
            call.outcome = await super().call(dependency, stage, deadline, made, share)
            return call.outcome
        finally:
            _of_call.reset(token)
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
            world.broken(invariants.of_call(call, REPLICAS[dependency], world.stalled_until(call.began_at)))
            world.broken(invariants.of_probes(known, known.alive(), now()))


class WatchedPipeline(Pipeline):
    """What is done behind an answer is nobody's request."""

    def _later(self, name, effect, work) -> None:
        async def behind() -> None:
            _of_request.set(None)
            await work()

        super()._later(name, effect, behind)


class World:
    """One plan's shop."""

    def __init__(self, plan: Plan, loop: ShuffledLoop) -> None:
        self.plan, self.loop, self.outcome = plan, loop, Outcome()
        self.settings = settings = _settings(plan.with_cache)
        self._stalls: list[tuple[float, float]] = []
        self._stock: list[tuple[float, frozenset[int]]] = [(0.0, frozenset())]
        self._due: Counter = Counter()
        self._seen: dict[str, frozenset[int]] = {}
        self._asking: set[asyncio.Task] = set()
        self._backstops = metrics.backstops._value.get()
        self.store = store = MemoryStore()
        self.shelf = Shelf()
        self.heart = Heart(metrics, loop.time)
        self.wires = {name: Wire(name, plan, self.rng("wire", name)) for name in REPLICAS}
        caps_ms = {
            CF: settings.stages.retrieve.cap_ms,
            CB: settings.stages.retrieve.cap_ms,
            RERANKER: settings.stages.rerank.cap_ms,
            USER: settings.stages.user.cap_ms,
            CACHE: settings.stages.cache.cap_ms,
        }
        limiter = LimiterPolicy(max_inflight=settings.guard.max_in_flight)
        self.known = {
            name: WatchedDependency(self, name, Policy(cap_ms / 1000, REPLICAS[name], limiter=limiter))
            for name, cap_ms in caps_ms.items()
        }
        self.guard = WatchedGuard(self, self.known.values(), stalled_s=self.heart.stalled_s)
        parts = Collaborators(
            sources=(
                FarSource(MemorySource(name=CF, keys=range(20)), self.wires[CF]),
                FarSource(MemorySource(name=CB, keys=range(29, 9, -1)), self.wires[CB]),
            ),
            reranker=FarReranker(MemoryReranker(), self.wires[RERANKER]),
            features=FarReader(MemoryUserReader(store=store, n_numeric=2, n_categorical=1), self.wires[USER]),
            slates=FarSlates(MemorySlates(store=store), self.wires[CACHE]),
            catalogue=self.shelf,
            guard=self.guard,
            metrics=metrics,
            monotonic=loop.time,
            wall=loop.wall,
            rng=self.rng("pipeline"),
        )
        self.events = FarEvents(MemoryEvents(store=store), self.wires[EVENTS])
        self.pipeline = WatchedPipeline(settings, parts, "settings-1")
        self.degradation = Degradation(
            settings, self.pipeline, self.guard, metrics, loop.time, lambda: self.heart.lag.smoothed_s
        )
        self._remember_a_past()

    def rng(self, *of: str) -> random.Random:
        """Chance of its own for each part, so that one more draw here changes nothing there."""
        return random.Random(f"{self.plan.seed} {' '.join(of)}")

    def note(self, *what: object) -> None:
        """A line of the trace. Never with the wall clock in it."""
        self.outcome.trace.append((round(self.loop.time() * 1e6), *what))

    def broken(self, violations) -> None:
        """Take in what an invariant has to say."""
        for violation in violations:
            self.outcome.violations.append(f"{self.loop.time():.6f} s {violation}")

    def unhandled(self, _loop, context: dict) -> None:
        """What asyncio tells nobody in particular."""
        self.broken([f"I4 {context['message']}: {context.get('exception')!r}"])

    def stalled_until(self, since: float) -> float:
        """End of the last stall after *since*; 0 when there was none."""
        return max((until for _, until in self._stalls if until > since), default=0.0)

    async def run(self) -> None:
        """Everything in the plan, then rest, then what must hold at rest."""
        plan, call_at = self.plan, self.loop.call_at
        observing = asyncio.create_task(self.degradation.keep_observing())
        if plan.stalls:
            # Beside a stall the heart has nothing to tell, and beats cost more than requests.
            call_at(max(0.0, plan.stalls[0][0] - 0.1), self.heart.start)
            call_at(plan.stalls[-1][0] + 1.0, self.heart.stop)
        for at, keys in plan.stock:
            call_at(at, self._restock, keys)
        for at, for_s in plan.stalls:
            call_at(at, self._stall, for_s)
        for told in plan.told:
            call_at(told.at_s, self._start, self._tell, told)
        for asked in plan.asked:
            call_at(asked.at_s, self._start, self._ask, asked)
        await asyncio.sleep(plan.asked[-1].at_s + 0.5)
        await self._rest()
        if plan.heals and plan.spurned_by is None:
            await self._heal()
            await self._rest()
        observing.cancel()
        await asyncio.wait({observing})
        left = [task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        self.broken(f"I4 {name} is still running" for name in left)
        n_backstops = metrics.backstops._value.get() - self._backstops
        self.outcome.seen["backstop"] += int(n_backstops)
        if n_backstops and not plan.stalls:
            self.broken([f"I1 the last timer ended {n_backstops:.0f} requests"])

    def _remember_a_past(self) -> None:
        """Shoppers with a history, and calls before the first request: what a process knows that runs for a while."""
        events = MemoryEvents(store=self.store)
        for number, user in enumerate(("u1", "u2", "u3")):
            key = 2 + 9 * number
            events._take(an_event(f"past {user}", subject=f"u:{user}", key=key, type_code=PURCHASE, at_us=number))
            self._due[f"u:{user}"], self._seen[f"u:{user}"] = 1, frozenset({key})
        for name, known in self.known.items():
            known.load.before = self.plan.warm
            for _ in range(self.plan.warm):
                known.latencies.record(0.0, self.wires[name].usual_s())
                known.retry_budget.deposit(0.0)
                known.hedge_budget.sent(0.0)
        if self.plan.spurned_by is not None:
            for _ in range(SPURNED):
                self.known[self.plan.spurned_by].throttle.sent(0.0)

    def _start(self, do, what) -> None:
        task = asyncio.create_task(do(what))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        if isinstance(what, Asked) and what.hangs_up_after_s is not None:
            self.loop.call_later(what.hangs_up_after_s, task.cancel)

    async def _ask(self, asked: Asked) -> Record:
        query = asked.query
        record = Record(asked, self.loop.time(), self._due[query.subject], self._seen.get(query.subject, frozenset()))
        _of_request.set(record)
        try:
            record.slate = await self.pipeline.recommend(
                query, asked.budget_s, queued_s=asked.queued_s, floor=asked.floor
            )
        except asyncio.CancelledError:
            self.outcome.seen["hung up"] += 1
        finally:
            record.is_open = False
            record.ended_at = self.loop.time()
        record.sold_out, record.scarce = self._stock_since(record.began_at)
        record.allowed = self._allowed(query)
        slate = record.slate
        if slate is None:
            self.note("hung up", query.recommendation_id)
        else:
            self.note(
                "slate",
                query.recommendation_id,
                tuple(item.key for item in slate.items),
                slate.level.value,
                int(slate.rung),
                tuple((stage, loss.value) for stage, loss in slate.losses),
                slate.from_cache,
                slate.watermark,
            )
            self.outcome.seen[f"slate {slate.level.value}{', cached' if slate.from_cache else ''}"] += 1
            self.outcome.seen[f"rung {slate.rung.name.lower()}"] += 1
        self.broken(invariants.of_request(record, self.settings, self.stalled_until(record.began_at)))
        user = record.calls.get(USER)
        if slate is not None and (slate.from_cache or (user is not None and isinstance(user.outcome, Kept))):
            self._due[query.subject] = max(self._due[query.subject], slate.watermark)
        return record

    async def _tell(self, told: Told) -> None:
        at_us = int(self.loop.wall() * 1e6)
        event = an_event(told.event_id, subject=told.subject, key=told.key, type_code=told.type_code, at_us=at_us)
        for copy in range(told.copies):
            (is_new,) = await self.events.append([event])
            self.note("event", told.event_id, copy, is_new)
            # What a 202 says; from here on every slate must have seen it.
            self._due[told.subject] = max(self._due[told.subject], self.store.watermarks[told.subject])
            self._seen[told.subject] = self._seen.get(told.subject, frozenset()) | {told.key}

    async def _heal(self) -> None:
        """Long after the last fault it is asked again, one request after the other."""
        for _ in range(HEALED_ROUNDS):
            await asyncio.sleep(HEALED_AFTER_S)
            for number in range(HEALED_WITHIN + 1):
                query = Query(f"healed {number}", Placement.HOME, 10, user_id="u1", explain=True)
                record = await self._ask(Asked(self.loop.time(), query))
                await asyncio.sleep(0.2)
            if not record.slate.losses:
                return
        self.broken([f"H all is well again, and {dict(record.slate.losses)} are lost"])

    async def _rest(self) -> None:
        while self._asking:
            await asyncio.wait(self._asking)
        try:
            async with asyncio.timeout(REST_S):
                await self.pipeline.drain()
        except TimeoutError:
            self.broken([f"I4 work behind the answers did not end within {REST_S:.0f} s"])
        await asyncio.sleep(REST_S)
        for known in self.known.values():
            self.broken(invariants.at_rest(known, known.alive(), self.loop.time()))
            self.note("rest", known.name, known.breaker.state_at(self.loop.time()).value, known.limiter.limit)
        self.note("rung", int(self.pipeline.rung))

    def _restock(self, sold_out: frozenset[int]) -> None:
        self.shelf.now = _catalogue(sold_out)
        self._stock.append((self.loop.time(), sold_out))

    def _stall(self, for_s: float) -> None:
        began_at = self.loop.time()
        self.loop.stall(for_s)
        self._stalls.append((began_at, self.loop.time()))
        self.outcome.seen["stall"] += 1

    def _stock_since(self, began_at: float) -> tuple[frozenset[int], frozenset[int]]:
        """Keys that were sold out all the time since *began_at*, and those that were at some moment of it."""
        before = [keys for at, keys in self._stock if at <= began_at][-1]
        since = [before, *(keys for at, keys in self._stock if at > began_at)]
        return frozenset.intersection(*since), frozenset.union(*since)

    def _allowed(self, query: Query) -> np.ndarray | None:
        """What the query's filter and its page's category allow, stock aside."""
        whole = _catalogue(frozenset())
        masks = [whole.allowed(query.filter)] if not query.filter.is_empty else []
        if query.placement is Placement.CATEGORY:
            masks.append(whole.allowed(ItemFilter(categories=(query.category,))))
        return np.logical_and.reduce(masks) if masks else None
