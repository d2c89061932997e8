"""The guard's policies where they meet an await: breaker, limiter, retry and hedge around real calls, on a clock that
jumps."""

import asyncio
import contextlib
import gc
import random

import pytest

from orchestrator.core.breaker import State
from orchestrator.core.deadline import Deadline
from orchestrator.core.dependency import Dependency, Policy
from orchestrator.core.limiter import LimiterPolicy
from orchestrator.core.model import Kept, Loss, Lost
from orchestrator.guard import Guard
from orchestrator.ports import DependencyError
from orchestrator.settings import Stage
from orchestrator.telemetry import new_metrics
from tests.support.virtual_clock import monotonic

pytestmark = pytest.mark.virtual_time

STAGE = Stage(cap_ms=40, reserve_after_ms=0, grace_ms=4)
HANG = 1000.0


class Replica:
    """One address of a dependency: takes a while, or fails; remembers its calls."""

    def __init__(self, takes_s=0.005, fails_with: Loss | None = None):
        self.takes_s, self.fails_with = takes_s, fails_with
        self.calls, self.cancelled, self.in_flight = 0, 0, 0

    async def __call__(self):
        self.calls += 1
        self.in_flight += 1
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        if self.fails_with is not None:
            raise DependencyError(self.fails_with, "as told")
        return "answer"


class Calls:
    """A dependency of one or more replicas behind a guard."""

    def __init__(self, *replicas: Replica, name="cf", limiter=None, guard=None):
        self.replicas = replicas
        self.metrics = new_metrics()
        self.guard = guard or Guard(monotonic, self.metrics, rng=random.Random(3))
        self.name = name
        policy = Policy(0.04, len(replicas), limiter=limiter or LimiterPolicy())
        self.known = Dependency(name, policy, random.Random(5))
        self.guard.dependencies[name] = self.known
        self.asked: list[int] = []

    async def one(self, remaining_s=1.0):
        def make(timeout_s, replica):
            self.asked.append(replica)
            return self.replicas[replica]()

        return await self.guard.call(self.name, STAGE, Deadline(monotonic() + remaining_s), make)

    async def many(self, count, every_s=0.01):
        """*count* calls, one every *every_s*, as an open loop: nobody waits for the one before."""
        tasks = []
        for _ in range(count):
            tasks.append(asyncio.create_task(self.one()))
            await asyncio.sleep(every_s)
        return await asyncio.gather(*tasks)

    def nothing_is_held(self):
        return self.known.limiter.in_flight == 0 and self.known.breaker.n_in_flight == 0


class TestBreaker:
    async def test_a_hung_dependency_is_not_asked_any_more(self):
        calls = Calls(Replica(HANG))

        outcomes = await calls.many(100, every_s=0.005)

        assert calls.known.breaker.state_at(monotonic()) is not State.CLOSED
        assert {outcome.loss for outcome in outcomes[:10]} == {Loss.DEADLINE}
        assert {outcome.loss for outcome in outcomes[40:]} == {Loss.BREAKER_OPEN}
        assert all(outcome.took_s == 0 for outcome in outcomes[40:])
        assert calls.nothing_is_held()

    async def test_it_is_asked_again_when_it_has_healed(self):
        calls = Calls(Replica(HANG))
        await calls.many(60, every_s=0.005)
        calls.replicas[0].takes_s = 0.005

        await asyncio.sleep(2)
        await calls.many(20)
        outcomes = await calls.many(20)

        assert all(isinstance(outcome, Kept) for outcome in outcomes)
        assert calls.known.breaker.state_at(monotonic()) is State.CLOSED

    # case 21: own_short_budget_not_failure
    async def test_a_budget_of_our_own_that_is_too_short_is_not_its_fault(self):
        calls = Calls(Replica(0.02))

        for _ in range(1000):
            await calls.one(remaining_s=0.010)

        assert calls.known.breaker.state_at(monotonic()) is State.CLOSED

    # case 20: client_error_not_failure
    async def test_our_own_mistakes_never_open_it(self):
        calls = Calls(Replica(0.001, fails_with=Loss.REFUSED))

        outcomes = await calls.many(200)

        assert {outcome.loss for outcome in outcomes} == {Loss.REFUSED}
        assert calls.known.breaker.state_at(monotonic()) is State.CLOSED

    # case 27: breaker_per_method
    async def test_one_sick_method_does_not_stop_the_others(self):
        sick = Calls(Replica(HANG), name="user")
        well = Calls(Replica(), name="slate_cache", guard=sick.guard)
        await sick.many(60, every_s=0.005)

        outcomes = await well.many(20)

        assert all(isinstance(outcome, Kept) for outcome in outcomes)

    # case 18, 19: cancel_is_not_success, cancel_is_not_failure
    async def test_callers_that_hang_up_say_nothing_about_it(self):
        calls = Calls(Replica(0.02))

        for _ in range(100):
            task = asyncio.create_task(calls.one())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert calls.known.breaker.state_at(monotonic()) is State.CLOSED
        assert calls.replicas[0].cancelled == 100
        assert calls.nothing_is_held()

    # case 7: loop_stall_not_blamed
    @pytest.mark.parametrize(("stalled_s", "state"), [(0.1, State.CLOSED), (0.0, State.OPEN)])
    async def test_a_stalled_loop_is_not_blamed_on_a_healthy_dependency(self, stalled_s, state):
        guard = Guard(monotonic, new_metrics(), stalled_s=lambda since, now: stalled_s)
        calls = Calls(Replica(0.005), guard=guard, limiter=LimiterPolicy(initial=40))

        async def answer_that_lay_there(timeout_s, replica):
            # In time for gRPC, which says OK; our loop stood still for 100 ms before it read it.
            asyncio.get_running_loop().call_later(0.104, answers.pop().set_result, "answer")
            return await waiting[len(answers)]

        loop = asyncio.get_running_loop()
        waiting = [loop.create_future() for _ in range(30)]
        answers = list(waiting)
        stage = Stage(cap_ms=120, reserve_after_ms=0, grace_ms=4)
        await asyncio.gather(
            *(guard.call("cf", stage, Deadline(monotonic() + 1), answer_that_lay_there) for _ in range(30))
        )

        assert calls.known.breaker.state_at(monotonic()) is state


class TestLimiter:
    # case 40: bulkhead_isolation
    async def test_a_hung_dependency_takes_only_its_own_permits(self):
        hung = Calls(Replica(HANG), name="cf", limiter=LimiterPolicy(initial=4, max_inflight=4))
        well = Calls(Replica(), name="cb", guard=hung.guard)

        outcomes = await asyncio.gather(*(hung.one() for _ in range(20)), *(well.one() for _ in range(4)))

        assert [outcome.loss for outcome in outcomes[:20]].count(Loss.SHED) == 16
        assert all(isinstance(outcome, Kept) for outcome in outcomes[20:])
        assert hung.nothing_is_held()

    # case 38: permit_leak_on_cancel
    async def test_a_caller_that_hangs_up_gives_its_place_back(self):
        calls = Calls(Replica(HANG), limiter=LimiterPolicy(initial=4, max_inflight=4))
        tasks = [asyncio.create_task(calls.one()) for _ in range(4)]
        await asyncio.sleep(0.001)
        assert calls.known.limiter.in_flight == 4

        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert calls.nothing_is_held()


class TestRetry:
    async def test_where_nobody_was_there_it_is_tried_once_more(self):
        calls = Calls(Replica())

        async def gone_once(timeout_s, replica):
            calls.asked.append(replica)
            if len(calls.asked) == 1:
                raise DependencyError(Loss.UNAVAILABLE, "connection reset")
            return "answer"

        outcome = await calls.guard.call("cf", STAGE, Deadline(monotonic() + 1), gone_once)

        assert outcome.value == "answer"
        assert len(calls.asked) == 2
        assert 0 <= outcome.took_s <= 0.005
        assert calls.nothing_is_held()

    async def test_at_most_once(self):
        calls = Calls(Replica(0.0, fails_with=Loss.UNAVAILABLE))

        outcome = await calls.one()

        assert outcome.loss is Loss.UNAVAILABLE
        assert calls.replicas[0].calls == 2

    async def test_the_other_replica_is_tried(self):
        calls = Calls(Replica(0.0, fails_with=Loss.UNAVAILABLE), Replica(0.0, fails_with=Loss.UNAVAILABLE))

        await calls.one()

        assert sorted(calls.asked) == [0, 1]

    # case 45: retry_not_on_deadline
    @pytest.mark.parametrize("loss", [Loss.DEADLINE, Loss.ERROR, Loss.OVERLOADED, Loss.REFUSED, Loss.INVALID_REPLY])
    async def test_nothing_else_is_tried_again(self, loss):
        calls = Calls(Replica(0.0, fails_with=loss))

        assert (await calls.one()).loss is loss
        assert calls.replicas[0].calls == 1

    # case 44: retry_no_time
    async def test_a_failure_that_came_late_is_not_tried_again(self):
        calls = Calls(Replica(0.015, fails_with=Loss.UNAVAILABLE))

        await calls.one()

        assert calls.replicas[0].calls == 1

    # case 5: deadline_shared_across_attempts
    # case 48: stop_delay_overshoot
    async def test_both_attempts_share_one_end(self):
        calls = Calls(Replica(), Replica())
        asked: list[float] = []

        async def gone_then_hung(timeout_s, replica):
            asked.append(timeout_s)
            if len(asked) == 1:
                await asyncio.sleep(0.004)
                raise DependencyError(Loss.UNAVAILABLE, "reset")
            await asyncio.sleep(HANG)

        started = monotonic()
        outcome = await calls.guard.call("cf", STAGE, Deadline(monotonic() + 1), gone_then_hung)

        assert outcome.loss is Loss.DEADLINE
        assert len(asked) == 2
        assert asked[1] < asked[0] - 0.004 + 1e-9
        assert monotonic() - started == pytest.approx(0.04)

    # Found by the simulation: the wait before it used up what was left, and it was made with less than no time.
    async def test_it_is_not_made_when_the_wait_before_it_used_up_what_was_left(self):
        class Longest(random.Random):
            def uniform(self, a, b):
                return b

        calls = Calls(
            Replica(0.001, fails_with=Loss.UNAVAILABLE), guard=Guard(monotonic, new_metrics(), rng=Longest(3))
        )

        outcome = await calls.one(remaining_s=0.0105)

        assert outcome.loss is Loss.UNAVAILABLE
        assert calls.replicas[0].calls == 1
        assert calls.nothing_is_held()

    # case 46: retry_predicate_never_catches_cancel
    async def test_a_caller_that_hangs_up_is_not_tried_again(self):
        calls = Calls(Replica(HANG))
        task = asyncio.create_task(calls.one())
        await asyncio.sleep(0.001)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls.replicas[0].calls == 1

    # case 47: shared_AsyncRetrying
    async def test_every_call_has_its_own_attempts(self):
        calls = Calls(Replica(0.0, fails_with=Loss.UNAVAILABLE), limiter=LimiterPolicy(initial=50))
        counts: dict[int, int] = {}

        async def one(number):
            async def gone(timeout_s, replica):
                counts[number] = counts.get(number, 0) + 1
                raise DependencyError(Loss.UNAVAILABLE, "reset")

            await calls.guard.call("cf", STAGE, Deadline(monotonic() + 1), gone)

        # A full bucket, so that all three may retry.
        for _ in range(30):
            calls.known.retry_budget.deposit(monotonic())
        await asyncio.gather(*(one(number) for number in range(3)))

        assert counts == {0: 2, 1: 2, 2: 2}

    # case 42: retry_storm_cap
    async def test_when_everything_fails_retries_stay_inside_their_budget(self):
        calls = Calls(Replica(0.0, fails_with=Loss.UNAVAILABLE))

        await calls.many(500, every_s=0.01)

        first_attempts = 500
        assert calls.replicas[0].calls <= 1.1 * first_attempts + 5 + 1

    async def test_on_the_lean_rung_nothing_is_tried_again(self):
        calls = Calls(Replica(0.0, fails_with=Loss.UNAVAILABLE))
        calls.guard.is_lean = True

        await calls.one()

        assert calls.replicas[0].calls == 1


async def a_hedged_pair(first=0.005, second=0.005):
    """Two replicas with a warm histogram: a call usually takes 5 ms, so a hedge leaves soon after."""
    calls = Calls(Replica(0.005), Replica(0.005))
    await calls.many(200)
    calls.asked.clear()
    for replica, takes_s in zip(calls.replicas, (first, second), strict=True):
        replica.takes_s, replica.calls, replica.cancelled = takes_s, 0, 0
    return calls


class TestHedge:
    # case 49: hedge_loser_cancelled_and_released; case 53: hedge_other_replica
    async def test_a_late_call_is_answered_by_the_other_replica_and_the_loser_is_cancelled(self):
        calls = await a_hedged_pair(first=HANG)
        while calls.known.replicas.pick(monotonic()) != 1:
            pass  # the next one asked is replica 0, the hung one

        outcome = await calls.one()

        assert isinstance(outcome, Kept)
        assert outcome.took_s < 0.02
        assert calls.asked == [0, 1]
        assert calls.replicas[0].cancelled == 1
        assert calls.replicas[0].in_flight == 0
        assert calls.nothing_is_held()

    # case 50: hedge_wins_first_fails
    async def test_a_fast_failure_of_the_hedge_does_not_fail_the_pair(self):
        calls = await a_hedged_pair(first=0.012)
        calls.replicas[1].takes_s, calls.replicas[1].fails_with = 0.001, Loss.ERROR
        while calls.known.replicas.pick(monotonic()) != 1:
            pass

        outcome = await calls.one()

        assert isinstance(outcome, Kept)
        assert calls.asked == [0, 1]
        assert calls.nothing_is_held()

    # case 54: hedge_cold
    async def test_none_is_sent_before_the_usual_time_is_known(self):
        calls = Calls(Replica(HANG), Replica(HANG))

        await calls.one()

        assert len(calls.asked) == 1

    # case 52: hedge_storm
    async def test_when_all_replicas_are_slow_hedges_stay_inside_their_budget(self):
        calls = await a_hedged_pair(first=0.02, second=0.02)

        await calls.many(400)

        # The 200 calls before have left their share of tokens, which live for 10 s.
        hedges = len(calls.asked) - 400
        assert 0 < hedges <= 0.05 * (400 + 200)

    async def test_on_the_lean_rung_none_is_sent(self):
        calls = await a_hedged_pair(first=HANG)
        calls.guard.is_lean = True
        while calls.known.replicas.pick(monotonic()) != 1:
            pass

        outcome = await calls.one()

        assert isinstance(outcome, Lost)
        assert calls.asked == [0]

    async def test_a_caller_that_hangs_up_ends_both(self):
        calls = await a_hedged_pair(first=HANG, second=HANG)
        task = asyncio.create_task(calls.one())
        await asyncio.sleep(0.03)
        assert len(calls.asked) == 2

        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert sum(replica.cancelled for replica in calls.replicas) == 2
        assert calls.nothing_is_held()

    # Found by the simulation, whose loop runs what is ready in any order: a task that is cancelled before its first
    # turn never comes to the line that lets its attempt go, and its slot was held for good.
    async def test_an_attempt_that_is_cancelled_before_its_first_turn_gives_its_place_back(self):
        calls = await a_hedged_pair()
        task = asyncio.create_task(calls.one())
        await asyncio.sleep(0)
        (attempt,) = asyncio.all_tasks() - {task, asyncio.current_task()}

        attempt.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert calls.asked == [], "it had not begun"
        assert calls.nothing_is_held()

    # Found by the simulation: what a call failed with that nobody waited for any more was reported by asyncio.
    @pytest.mark.parametrize("hangs_up", [True, False])
    async def test_a_call_that_will_not_be_cancelled_may_fail_when_it_likes(self, hangs_up):
        calls = await a_hedged_pair()
        reported = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))

        async def deaf(timeout_s, replica):
            for _ in range(3):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)
            raise DependencyError(Loss.UNAVAILABLE, "at last")

        task = asyncio.create_task(calls.guard.call("cf", STAGE, Deadline(monotonic() + 1), deaf))
        if hangs_up:
            await asyncio.sleep(0.001)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(10)
        gc.collect()

        assert reported == []
        assert calls.nothing_is_held()


class TestReplicas:
    async def test_one_hung_replica_of_two_is_soon_left_alone(self):
        calls = await a_hedged_pair(first=HANG)

        outcomes = await calls.many(300)

        late = outcomes[150:]
        assert sum(isinstance(outcome, Lost) for outcome in late) <= 2
        assert calls.known.breaker.state_at(monotonic()) is State.CLOSED
        assert calls.known.replicas.ejected(monotonic()) == frozenset({0})


class TestNoTaskIsLeft:
    # invariant I4
    async def test_after_all_of_it_only_the_test_itself_runs(self):
        calls = await a_hedged_pair(first=HANG, second=0.01)

        await calls.many(100)
        await asyncio.sleep(0.1)

        assert len(asyncio.all_tasks()) == 1
