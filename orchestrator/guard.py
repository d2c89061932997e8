"""
The only place where policy and an await meet: one guarded call to one dependency, Kept or Lost.

What may be tried is decided in `core.dependency`; here it is awaited, raced and told how it ended:

    first attempt ──late──▶ hedge on another replica, first answer wins, the loser is cancelled
          └──nobody there──▶ at most one retry, inside the same end

Losses are values; what has no name becomes UNCLASSIFIED, with its trace, and its objective is zero.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from prometheus_client import Counter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from orchestrator.core.breaker import State
from orchestrator.core.deadline import Deadline
from orchestrator.core.dependency import Attempt, Dependency, Kind, Policy
from orchestrator.core.limiter import LimiterPolicy
from orchestrator.core.model import Kept, Loss, Lost
from orchestrator.core.outcomes import Judgement
from orchestrator.core.retry import retry_wait_s
from orchestrator.ports import DependencyError
from orchestrator.settings import Stage
from orchestrator.telemetry import Metrics, log

T = TypeVar("T")
MakeCall = Callable[[float, int], Awaitable[T]]
"""(timeout in seconds, replica) → what the dependency answers."""

MAX_IN_FLIGHT = LimiterPolicy().max_inflight

UNLIMITED = LimiterPolicy(max_inflight=1_000_000, min_limit=1_000_000, initial=1_000_000)
"""A limit nobody meets."""

LATE_TURNS = 3
"""Turns of the loop after the timer. Derived: uvloop fires timers before it reads sockets, so an answer is read in the
first turn after, wakes its reader in the second and ends the call in the third."""


class _LostAttempt(Exception):
    """An attempt without an answer, on its way from the race to whoever decides about a retry."""

    def __init__(self, loss: Loss, replica: int) -> None:
        self.loss = loss
        self.replica = replica


class _NobodyThere(_LostAttempt):
    """The one kind of lost attempt that may be tried again."""


class Guard:
    """
    Calls dependencies under their policies.

    Args:
        now: the monotonic clock, in seconds.
        dependencies: what is known of them; one that is not among them gets the default policy at its first call.
        protects: False leaves each call its slice of the deadline and nothing else: nobody is refused, tried again or
            hedged. For a batch that bounds itself.
        max_in_flight: most attempts in flight to one dependency.
        stalled_s: (since, now) → seconds the event loop stood still in between, which nobody else is blamed for.
    """

    def __init__(
        self,
        now: Callable[[], float],
        metrics: Metrics,
        dependencies: Iterable[Dependency] = (),
        rng: random.Random | None = None,
        *,
        protects: bool = True,
        max_in_flight: int = MAX_IN_FLIGHT,
        stalled_s: Callable[[float, float], float] = lambda since, now: 0.0,
    ) -> None:
        self._now = now
        self._protects = protects
        self._max_in_flight = max_in_flight
        self._stalled_s = stalled_s
        self._metrics = metrics
        self._rng = rng or random.Random()  # noqa: S311  # jitter, not a secret
        self._attempts: dict[tuple[str, Kind, str], Counter] = {}
        self.dependencies = {dependency.name: dependency for dependency in dependencies}
        self.is_lean = not protects
        """No hedges and no retries: the ladder's first rung. Set by whoever observes the ladder."""

    def dependency(
        self,
        name: str,
        cap_s: float,
        replicas: int = 1,
        is_up: Callable[[int], bool] | None = None,
        limiter: LimiterPolicy | None = None,
    ) -> Dependency:
        """
        What is remembered of *name*; made at its first mention.

        Args:
            is_up: see `core.replicas`.
            limiter: None takes the one for calls that may take *cap_s*.
        """
        known = self.dependencies.get(name)
        if known is None:
            if not self._protects:
                limiter = UNLIMITED
            limiter = limiter or LimiterPolicy.of_cap(cap_s, self._max_in_flight)
            policy = Policy(cap_s, replicas, self._protects, is_up, limiter=limiter)
            known = self.dependencies[name] = Dependency(name, policy, self._rng, self._telling(name))
            if not self._protects:
                known.breaker.metrics_only(self._now())
        return known

    async def call(
        self, dependency: str, stage: Stage, deadline: Deadline, make_call: MakeCall[T], share: float = 1.0
    ) -> Kept[T] | Lost:
        """
        Await `make_call(timeout_s, replica)` within *stage*'s slice of *deadline*.

        Args:
            dependency: metric label, and whose breaker, limiter and budgets decide.
            share: of the stage's cap, in (0, 1].

        Returns:
            Kept with the value, or Lost with the reason; both with the seconds it took.

        Raises:
            asyncio.CancelledError: the caller hung up. Nothing else.
        """
        started = self._now()
        grace_s, cap_s = stage.grace_ms / 1000, stage.cap_ms / 1000 * share
        timeout_s = deadline.timeout(started, cap_s, stage.reserve_after_ms / 1000, grace_s)
        if timeout_s is None:
            return self._lost(dependency, Loss.NO_BUDGET, started)
        known = self.dependency(dependency, cap_s)
        first = known.begin(started, timeout_s)
        if isinstance(first, Loss):
            return self._lost(dependency, first, started)
        ends_at = started + timeout_s
        # With one replica there is nobody to race.
        attempted = self._attempted(known, first, make_call, grace_s) if known.policy.replicas < 2 else None
        try:
            value = await (attempted or self._raced(known, first, make_call, ends_at, grace_s))
        except _NobodyThere as failed:
            return await self._retried(known, failed, make_call, started, ends_at, grace_s)
        except _LostAttempt as failed:
            return self._lost(dependency, failed.loss, started)
        return Kept(value, self._now() - started)

    async def _raced(
        self, known: Dependency, first: Attempt, make_call: MakeCall[T], ends_at: float, grace_s: float
    ) -> T:
        """
        The first answer of *first* and, if it is late, of one more attempt on another replica.

        Raises:
            _LostAttempt: neither answered in time.
        """
        delay_s = None if self.is_lean else known.hedge_after(first.began_at, first.timeout_s)
        if delay_s is None:
            return await self._attempted(known, first, make_call, grace_s)
        racing = {asyncio.create_task(self._attempted(known, first, make_call, grace_s)): first}
        try:
            await asyncio.wait(racing, timeout=delay_s)
            now = self._now()
            second = (
                None if all(task.done() for task in racing) else known.begin_hedge(now, ends_at - now, first.replica)
            )
            if second is not None:
                racing[asyncio.create_task(self._attempted(known, second, make_call, grace_s))] = second
            answer = await _first_answer(racing)
            now = self._now()
            for attempt in racing.values():
                attempt.let_go(now, superseded=True)
            return answer
        finally:
            try:
                await _ended(racing)
            finally:
                # A task that is cancelled before its first turn never comes to the line that lets its attempt go.
                now = self._now()
                for attempt in racing.values():
                    attempt.let_go(now)

    async def _attempted(self, known: Dependency, attempt: Attempt, make_call: MakeCall[T], grace_s: float) -> T:
        """
        One attempt, ended whatever happens.

        Raises:
            _LostAttempt: with the loss; asyncio.CancelledError: the caller hung up, or the other one was faster.
        """
        # The dependency times itself (gRPC's own deadline); this timer is for the one that does not.
        try:
            value = await _within(attempt.timeout_s + grace_s, make_call(attempt.timeout_s, attempt.replica))
        except DependencyError as error:
            loss = error.loss
        except TimeoutError:
            loss = Loss.DEADLINE
        except asyncio.CancelledError:
            attempt.let_go(self._now())
            self._count(known, attempt, "let_go")
            raise
        except Exception:
            log.exception("unclassified_loss", dependency=known.name)
            loss = Loss.UNCLASSIFIED
        else:
            self._end(attempt, None)
            self._count(known, attempt, "ok")
            return value
        judgement = self._end(attempt, loss)
        self._count(known, attempt, loss.value)
        raise (_NobodyThere if judgement.may_retry else _LostAttempt)(loss, attempt.replica)

    async def _retried(
        self,
        known: Dependency,
        failed: _NobodyThere,
        make_call: MakeCall[T],
        started: float,
        ends_at: float,
        grace_s: float,
    ) -> Kept[T] | Lost:
        """One more attempt where the first found nobody, if there is time and budget; else the loss it was."""
        now = self._now()
        if self.is_lean or not known.may_retry(now, failed.loss, now - started, ends_at - now):
            return self._lost(known.name, failed.loss, started)

        # Made only after the first attempt failed, so that a healthy call pays nothing for it: the first turn of
        # tenacity hears of that failure, its second makes the attempt.
        async def again() -> T:
            if retrying.statistics["attempt_number"] == 1:
                raise failed
            now = self._now()
            besides = failed.replica if known.policy.replicas > 1 else None
            attempt = known.begin(now, ends_at - now, Kind.RETRY, besides)
            if attempt is Loss.SHED and besides is not None:
                # The others are ejected: better the one that failed than none.
                attempt = known.begin(now, ends_at - now, Kind.RETRY)
            if isinstance(attempt, Loss):
                raise _LostAttempt(failed.loss, failed.replica)
            return await self._attempted(known, attempt, make_call, grace_s)

        def wait_s(_: RetryCallState) -> float:
            return retry_wait_s(self._rng)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(2), wait=wait_s, retry=retry_if_exception_type(_NobodyThere), reraise=True
        )
        try:
            return Kept(await retrying(again), self._now() - started)
        except _LostAttempt as lost:
            return self._lost(known.name, lost.loss, started)

    def _end(self, attempt: Attempt, loss: Loss | None) -> Judgement:
        now = self._now()
        return attempt.end(now, loss, self._stalled_s(attempt.began_at, now))

    def _lost(self, dependency: str, loss: Loss, started: float) -> Lost:
        self._metrics.losses.labels(dependency, loss.value).inc()
        return Lost(loss, self._now() - started)

    def _count(self, known: Dependency, attempt: Attempt, outcome: str) -> None:
        key = (known.name, attempt.kind, outcome)
        counter = self._attempts.get(key)
        if counter is None:
            # Looking up a child by its labels takes prometheus_client 5 µs; there are a dozen of them.
            counter = self._attempts[key] = self._metrics.attempts.labels(known.name, attempt.kind.value, outcome)
        counter.inc()

    def _telling(self, name: str) -> Callable[[State, State], None]:
        def tell(before: State, after: State) -> None:
            self._metrics.breaker_changes.labels(name, after.value).inc()
            log.warning("breaker", dependency=name, before=before.value, after=after.value)

        return tell


async def _first_answer(racing: Iterable[asyncio.Task[T]]) -> T:
    """The first answer, or the first failure when there is none: the second attempt had less time."""
    waiting, failed = set(racing), None
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                return task.result()
            failed = failed or error
    if failed is None:
        raise AssertionError("a race has at least one attempt")
    raise failed


async def _ended(racing: Iterable[asyncio.Task[T]]) -> None:
    """Cancel what still runs and let it end, so that no attempt outlives its request."""
    tasks = set(racing)
    for task in tasks:
        _leave(task)
    # One turn to be told; a call that will not listen is left behind rather than waited for.
    await asyncio.wait(tasks, timeout=0)


def _leave(task: asyncio.Future[T]) -> None:
    """Nobody waits for *task* any more: cancel it, and take what it may still fail with, or asyncio reports it."""
    if task.done():
        _hear(task)
    else:
        task.cancel()
        task.add_done_callback(_hear)


def _hear(task: asyncio.Future[T]) -> None:
    if not task.cancelled():
        task.exception()


async def _within(timeout_s: float, awaitable: Awaitable[T]) -> T:
    """
    What *awaitable* gives within *timeout_s*; else it is cancelled and has ended before TimeoutError is raised.

    A loop that is late fires the timer in the turn in which it would have read the answer; the answer that lies
    there gets its turn. Under load this is the difference between a slow cache hit and computing a slate for nothing.
    """
    loop = asyncio.get_running_loop()
    if type(awaitable) is asyncio.Future:
        return await _answered(loop, timeout_s, awaitable)
    call = asyncio.ensure_future(awaitable)
    # What asyncio.wait does, for half of its time: four of these are awaited in every request.
    over: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not over.done():
            over.set_result(None)

    call.add_done_callback(wake)
    timer = loop.call_later(timeout_s, wake)
    try:
        await over
        for _ in range(LATE_TURNS):
            if call.done():
                return call.result()
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        # The caller hung up, or the call cancelled itself.
        _leave(call)
        raise
    finally:
        timer.cancel()
    _leave(call)
    # One turn to be told; a call that will not listen is left behind rather than waited for.
    await asyncio.wait({call}, timeout=0)
    raise TimeoutError


async def _answered(loop: asyncio.AbstractEventLoop, timeout_s: float, answer: asyncio.Future[T]) -> T:
    """
    The same of a bare future that nobody else waits for: no task has to be ended, and nothing is left behind.

    So a look-up in the cache costs a timer and no task, no second future and no turn of the loop besides.
    """
    timer = loop.call_later(timeout_s, _give_up, loop, answer, LATE_TURNS)
    try:
        return await answer
    finally:
        timer.cancel()


def _give_up(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], turns: int) -> None:
    if answer.done():
        return
    if turns:
        loop.call_soon(_give_up, loop, answer, turns - 1)
    else:
        answer.set_exception(TimeoutError())
