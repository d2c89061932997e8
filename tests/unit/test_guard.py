"""The guard: one call under its policies, Kept or Lost, on a clock that jumps."""

import asyncio

import pytest

from orchestrator.core.deadline import Deadline
from orchestrator.core.model import Kept, Loss, Lost
from orchestrator.guard import Guard
from orchestrator.ports import DependencyError
from orchestrator.settings import Stage
from orchestrator.telemetry import new_metrics
from tests.support.virtual_clock import monotonic

pytestmark = pytest.mark.virtual_time

GRACE_S = 0.004
STAGE = Stage(cap_ms=40, reserve_after_ms=10, grace_ms=4)


class Calls:
    """A dependency that takes a while and remembers what it was asked."""

    def __init__(self, takes_s=0.01, answers="answer", fails_with=None):
        self.takes_s, self.answers, self.fails_with = takes_s, answers, fails_with
        self.timeouts, self.cancelled = [], 0

    async def __call__(self, timeout_s, replica=0):
        self.timeouts.append(timeout_s)
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fails_with is not None:
            raise self.fails_with
        return self.answers


@pytest.fixture
def metrics():
    return new_metrics()


@pytest.fixture
def guard(metrics):
    return Guard(monotonic, metrics)


def in_s(seconds: float) -> Deadline:
    return Deadline(monotonic() + seconds)


def losses(metrics):
    return {
        (sample.labels["dependency"], sample.labels["loss"]): sample.value
        for metric in metrics.losses.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


async def test_an_answer_in_time_is_kept_with_the_time_it_took(guard, metrics):
    call = Calls(takes_s=0.01)

    outcome = await guard.call("cf", STAGE, in_s(1), call)

    assert outcome == Kept("answer", pytest.approx(0.01))
    assert call.timeouts == [pytest.approx(0.04 - GRACE_S)]
    assert losses(metrics) == {}


async def test_a_call_that_hangs_costs_its_cap_and_is_cancelled(guard, metrics):
    call = Calls(takes_s=1000)

    outcome = await guard.call("cf", STAGE, in_s(1), call)

    assert outcome == Lost(Loss.DEADLINE, pytest.approx(0.04))
    assert call.cancelled == 1
    assert losses(metrics) == {("cf", "deadline"): 1}


async def test_a_call_that_hangs_leaves_later_stages_their_reserve(guard):
    deadline = in_s(0.03)

    outcome = await guard.call("cf", STAGE, deadline, Calls(takes_s=1000))

    assert outcome.took_s == pytest.approx(0.02)
    assert deadline.remaining(monotonic()) == pytest.approx(0.01)


async def test_a_share_of_the_cap_is_all_a_call_may_take(guard):
    call = Calls(takes_s=1000)

    outcome = await guard.call("cf", STAGE, in_s(1), call, share=0.5)

    assert outcome == Lost(Loss.DEADLINE, pytest.approx(0.02))
    assert call.timeouts == [pytest.approx(0.02 - GRACE_S)]


async def test_without_budget_the_call_is_not_made(guard, metrics):
    call = Calls()

    outcome = await guard.call("cf", STAGE, in_s(0.011), call)

    assert outcome == Lost(Loss.NO_BUDGET, 0.0)
    assert call.timeouts == []
    assert losses(metrics) == {("cf", "no_budget"): 1}


async def test_a_deadline_that_has_passed_makes_no_call(guard):
    call = Calls()

    assert await guard.call("cf", STAGE, Deadline(monotonic() - 1), call) == Lost(Loss.NO_BUDGET, 0.0)
    assert call.timeouts == []


@pytest.mark.parametrize("loss", [loss for loss in Loss if loss is not Loss.UNCLASSIFIED])
async def test_a_named_failure_keeps_its_name(guard, metrics, loss):
    # Too late to be tried again: tests/unit/test_guard_policies.py has the retries.
    outcome = await guard.call("cf", STAGE, in_s(1), Calls(takes_s=0.02, fails_with=DependencyError(loss, "as told")))

    assert outcome == Lost(loss, pytest.approx(0.02))
    assert losses(metrics) == {("cf", loss.value): 1}


async def test_a_dependencys_own_timeout_is_a_missed_deadline(guard):
    outcome = await guard.call("cf", STAGE, in_s(1), Calls(fails_with=TimeoutError()))

    assert outcome == Lost(Loss.DEADLINE, pytest.approx(0.01))


@pytest.mark.expects_unclassified
async def test_a_surprise_is_lost_without_a_name_and_counted(guard, metrics):
    outcome = await guard.call("cf", STAGE, in_s(1), Calls(fails_with=ZeroDivisionError("bug")))

    assert outcome == Lost(Loss.UNCLASSIFIED, pytest.approx(0.01))
    assert losses(metrics) == {("cf", "unclassified"): 1}


@pytest.mark.expects_unclassified
async def test_a_call_that_cannot_even_be_made_is_lost_too(guard):
    def refuses(timeout_s, replica):
        raise ValueError("no such channel")

    assert await guard.call("cf", STAGE, in_s(1), refuses) == Lost(Loss.UNCLASSIFIED, 0.0)


async def test_a_caller_that_hangs_up_is_no_loss(guard, metrics):
    call = Calls(takes_s=1000)
    task = asyncio.create_task(guard.call("cf", STAGE, in_s(1), call))
    await asyncio.sleep(0.005)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled == 1
    assert losses(metrics) == {}


async def test_guarded_calls_run_beside_each_other(guard):
    started = monotonic()

    outcomes = await asyncio.gather(
        guard.call("slow", STAGE, in_s(1), Calls(takes_s=1000)), guard.call("fast", STAGE, in_s(1), Calls())
    )

    assert [type(outcome) for outcome in outcomes] == [Lost, Kept]
    assert monotonic() - started == pytest.approx(0.04)


async def test_an_answer_that_lies_there_when_the_late_loop_fires_the_timer_is_kept(guard, metrics):
    # Once: under load cache hits were thrown away and their slates computed, which made the load worse.
    loop = asyncio.get_running_loop()

    async def answered_in_the_turn_of_the_timer(timeout_s, replica):
        answer = loop.create_future()
        # The timer of the guard is due first; what would read the answer comes behind it in the same turn.
        loop.call_later(timeout_s + GRACE_S, loop.call_soon, answer.set_result, "answer")
        return await answer

    outcome = await guard.call("cf", STAGE, in_s(1), answered_in_the_turn_of_the_timer)

    assert outcome == Kept("answer", pytest.approx(0.04))
    assert losses(metrics) == {}


# A bare future, as the connection to Redis hands out: awaited itself, without a task around it.


def a_future(after_s, answer="answer"):
    """A future that *answer* is set on *after_s* from now, if it still waits."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle():
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    loop.call_later(after_s, settle)
    return future


async def test_a_future_that_is_set_in_time_is_kept(guard):
    outcome = await guard.call("slates", STAGE, in_s(1), lambda timeout_s, replica: a_future(0.010))

    assert outcome == Kept("answer", pytest.approx(0.010))


async def test_a_future_that_is_never_set_costs_its_cap(guard, metrics):
    began = monotonic()

    outcome = await guard.call("slates", STAGE, in_s(1), lambda timeout_s, replica: a_future(10.0))

    assert outcome == Lost(Loss.DEADLINE, pytest.approx(0.040))
    assert monotonic() - began == pytest.approx(0.040)
    assert losses(metrics) == {("slates", "deadline"): 1}


async def test_a_future_that_fails_has_the_name_of_its_failure(guard):
    failure = DependencyError(Loss.REFUSED, "no")

    outcome = await guard.call("slates", STAGE, in_s(1), lambda timeout_s, replica: a_future(0.001, failure))

    assert outcome == Lost(Loss.REFUSED, pytest.approx(0.001))


async def test_a_future_whose_waiter_hung_up_is_cancelled_and_no_loss(guard, metrics):
    futures = []

    def call(timeout_s, replica):
        futures.append(a_future(0.020))
        return futures[0]

    task = asyncio.create_task(guard.call("slates", STAGE, in_s(1), call))
    await asyncio.sleep(0.010)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert futures[0].cancelled()
    assert losses(metrics) == {}


async def test_a_future_that_is_set_in_the_turn_of_the_timer_is_kept(guard):
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    # The timer of a late loop fires first; what lies in the socket is read a turn later.
    loop.call_later(0.036 + 0.004, lambda: loop.call_soon(loop.call_soon, future.set_result, "answer"))

    outcome = await guard.call("slates", STAGE, in_s(1), lambda timeout_s, replica: future)

    assert isinstance(outcome, Kept)
