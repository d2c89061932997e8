"""Single flight: one piece of work for all who ask at once, which none of them can end or spoil."""

import asyncio
import contextvars
import gc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator.adapters.single_flight import Grounded, SingleFlight
from tests.support import virtual_clock
from tests.support.virtual_clock import monotonic

virtual_time = pytest.mark.virtual_time

BUDGET_S = 10.0
PATIENT_S = 100.0


class Work:
    """Takes a second, then gives its number, or fails; counts how often it was begun and cancelled."""

    def __init__(self, seconds=1.0, error=None):
        self.seconds, self.error = seconds, error
        self.begun = self.cancelled = 0

    async def __call__(self):
        self.begun += 1
        n = self.begun
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return n


async def ask(flights, work, timeout_s=PATIENT_S, key="k"):
    flight, _ = flights.of(key, work)
    return await flight.wait(timeout_s)


@pytest.fixture
def flights():
    return SingleFlight(max_flights=3, budget_s=BUDGET_S)


@virtual_time
async def test_those_who_ask_at_once_share_one_piece_of_work(flights):
    work = Work()

    got = await asyncio.gather(*(ask(flights, work) for _ in range(1000)))

    assert got == [1] * 1000
    assert work.begun == 1
    assert monotonic() == 1.0


@virtual_time
async def test_other_keys_fly_on_their_own(flights):
    work = Work()

    assert await asyncio.gather(ask(flights, work, key="a"), ask(flights, work, key="b")) == [1, 2]


# case 55, 56: sf_leader_cancelled, sf_waiter_cancelled
@virtual_time
@pytest.mark.parametrize("who", [0, 1, 2])
async def test_whoever_is_cancelled_the_others_get_the_value_of_one_load(flights, who):
    work = Work()
    waiters = [asyncio.create_task(ask(flights, work)) for _ in range(3)]
    await asyncio.sleep(0.5)

    waiters[who].cancel()
    got = await asyncio.gather(*waiters, return_exceptions=True)

    assert isinstance(got.pop(who), asyncio.CancelledError)
    assert got == [1, 1]
    assert (work.begun, work.cancelled) == (1, 0)


@virtual_time
async def test_when_all_have_left_the_work_ends_on_its_own(flights):
    work = Work()
    waiter = asyncio.create_task(ask(flights, work))
    await asyncio.sleep(0.5)

    waiter.cancel()
    await flights.drain()

    assert (work.begun, work.cancelled, len(flights)) == (1, 0, 0)
    assert monotonic() == 1.0


# case 57: sf_leader_short_deadline
@virtual_time
async def test_the_first_ones_short_time_is_its_own(flights):
    work = Work()
    hurried = asyncio.create_task(ask(flights, work, timeout_s=0.1))
    await asyncio.sleep(0)
    patient = asyncio.create_task(ask(flights, work))

    with pytest.raises(TimeoutError):
        await hurried
    assert monotonic() == pytest.approx(0.1)
    assert await patient == 1


# case 57: sf_leader_short_deadline; a task inherits the variables of whoever makes it
@virtual_time
async def test_the_work_sees_nothing_of_the_context_of_whoever_started_it(flights):
    deadline = contextvars.ContextVar("deadline", default=None)
    deadline.set(0.001)

    async def seen():
        return deadline.get()

    assert await ask(flights, seen) is None
    assert deadline.get() == 0.001


@virtual_time
async def test_work_beyond_the_flights_own_budget_is_ended_for_all(flights):
    work = Work(seconds=1000)

    got = await asyncio.gather(*(ask(flights, work) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in got] == [TimeoutError] * 3
    assert monotonic() == BUDGET_S
    assert (work.cancelled, len(flights)) == (1, 0)


# case 58: sf_join_after_cancel
@virtual_time
async def test_one_who_joins_after_the_first_was_cancelled_gets_the_value(flights):
    work = Work()
    first = asyncio.create_task(ask(flights, work))
    await asyncio.sleep(0.5)
    first.cancel()
    await asyncio.wait([first])

    assert await ask(flights, work) == 1
    assert monotonic() == 1.0


# case 59: sf_exception_shared_not_cached
@virtual_time
async def test_a_failure_goes_to_all_who_wait_and_to_nobody_later(flights):
    work = Work(error=LookupError("once"))

    got = await asyncio.gather(*(ask(flights, work) for _ in range(3)), return_exceptions=True)
    work.error = None

    assert [str(error) for error in got] == ["once"] * 3
    assert await ask(flights, work) == 2


def in_the_very_turn_of_its_end(then, error=None):
    """Work after whose end, and before the callbacks of that end, *then* runs."""

    async def work():
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_soon(then)
        if error is not None:
            raise error

    return work


# case 59: sf_exception_shared_not_cached; until its callbacks have run the entry of a flight is still there
@virtual_time
async def test_one_who_comes_in_the_very_turn_of_a_failure_starts_anew(flights):
    work, joined = Work(), []
    failing = in_the_very_turn_of_its_end(lambda: joined.append(flights.of("k", work)), LookupError("once"))

    with pytest.raises(LookupError):
        await ask(flights, failing)

    [(flight, started)] = joined
    assert started
    assert await flight.wait(PATIENT_S) == 1


# case 60: sf_key_removed_once
@virtual_time
async def test_the_end_of_an_old_flight_does_not_remove_the_new_one_of_its_key(flights):
    work = Work()
    await ask(flights, in_the_very_turn_of_its_end(lambda: flights.of("k", work)))
    await asyncio.sleep(0.5)

    _, started = flights.of("k", work)

    assert not started
    assert work.begun == 1
    await flights.drain()


@virtual_time
async def test_when_too_many_fly_the_next_is_told_to_do_it_alone(flights):
    work = Work()
    for key in "abc":
        flights.of(key, work)

    assert flights.of("d", work) is None
    assert flights.of("a", work) is not None
    await flights.drain()
    assert flights.of("d", work) is not None
    await flights.drain()


@virtual_time
async def test_a_flight_cancelled_from_outside_does_not_look_like_a_cancelled_waiter(flights):
    flight, _ = flights.of("k", Work())
    waiter = asyncio.create_task(flight.wait(PATIENT_S))
    await asyncio.sleep(0)

    flight._task.cancel()

    with pytest.raises(Grounded):
        await waiter


@virtual_time
async def test_a_failure_that_nobody_saw_is_loud(flights):
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))
    flights.of("k", Work(error=LookupError("unseen")))

    await flights.drain()
    await asyncio.sleep(0)

    assert heard == ["Task exception was never retrieved"]


# Found by the simulation: after a stall of the loop, waiters and budget are over in one turn, and all have left.
@virtual_time
async def test_a_budget_that_is_over_when_all_have_left_is_nobodys_error(flights):
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))
    flights.of("k", Work(seconds=1000))

    await flights.drain()
    await asyncio.sleep(0)
    gc.collect()

    assert heard == []


def test_it_says_how_many_fly(flights):
    assert repr(flights) == "<SingleFlight 0 of 3 flights, 10 s each>"


class Model(RuleBasedStateMachine):
    """
    Random joins, leavings, failures and time against a reference that computes on paper who gets what.

    Works take whole even hundredths of a second, time passes in odd ones and patience ends on thousandths, so no two
    things ever happen at the same moment and the paper has one answer.
    """

    MAX_FLIGHTS = 3
    BUDGET_S = 0.505

    def __init__(self):
        super().__init__()
        self.loop = virtual_clock.new_loop()
        self.flights = SingleFlight(self.MAX_FLIGHTS, self.BUDGET_S)
        self.up = {}
        self.n_begun = self.n_expected = 0
        self.waiters = []

    def now(self):
        return self.loop.time()

    def flying(self):
        return [flight for flight in self.up.values() if flight["ends"] > self.now()]

    @rule(
        key=st.sampled_from("abcde"),
        hundredths=st.integers(1, 40).map(lambda n: 2 * n),
        fails=st.booleans(),
        patience=st.integers(1, 60).map(lambda n: n / 50 + 0.001),
    )
    def somebody_asks(self, key, hundredths, fails, patience):
        number = self.n_expected + 1

        async def work():
            self.n_begun += 1
            await asyncio.sleep(hundredths / 100)
            if fails:
                raise LookupError(number)
            return number

        async def join():
            joined = self.flights.of(key, work)
            if joined is None:
                return None
            return asyncio.create_task(joined[0].wait(patience)), joined[1]

        flying = self.up.get(key)
        is_up = flying is not None and flying["ends"] > self.now()
        has_room = len(self.flying()) < self.MAX_FLIGHTS
        got = self.loop.run_until_complete(join())

        if not is_up and not has_room:
            assert got is None
            return
        task, started = got
        assert started is not is_up
        if started:
            self.n_expected = number
            took = hundredths / 100
            outcome = ("late", None) if took > self.BUDGET_S else ("error" if fails else "value", number)
            self.up[key] = {"ends": self.now() + min(took, self.BUDGET_S), "outcome": outcome}
        flight = self.up[key]
        leaves = self.now() + patience
        outcome = flight["outcome"] if flight["ends"] < leaves else ("late", None)
        self.waiters.append({"task": task, "at": min(flight["ends"], leaves), "outcome": outcome})

    @rule(which=st.integers(0, 100))
    def somebody_is_cancelled(self, which):
        waiting = [waiter for waiter in self.waiters if not waiter["task"].done()]
        if waiting:
            waiter = waiting[which % len(waiting)]
            waiter["task"].cancel()
            waiter["at"], waiter["outcome"] = self.now(), ("cancelled", None)
            self.loop.run_until_complete(asyncio.wait([waiter["task"]]))

    @rule(hundredths=st.integers(0, 30).map(lambda n: 2 * n + 1))
    def time_passes(self, hundredths):
        self.loop.run_until_complete(asyncio.sleep(hundredths / 100 + 0.0003))

    @invariant()
    def everybody_has_what_the_paper_says(self):
        for waiter in self.waiters:
            assert waiter["task"].done() == (waiter["at"] < self.now() or waiter["outcome"][0] == "cancelled")
        for waiter in [waiter for waiter in self.waiters if waiter["task"].done()]:
            assert outcome_of(waiter["task"]) == waiter["outcome"]
            self.waiters.remove(waiter)

    @invariant()
    def nothing_flies_twice_and_nothing_is_left(self):
        assert len(self.flights) == len(self.flying())
        assert self.n_begun <= self.n_expected

    def teardown(self):
        self.loop.set_exception_handler(lambda *_: None)
        self.loop.run_until_complete(asyncio.sleep(2))
        for waiter in self.waiters:
            assert outcome_of(waiter["task"]) == waiter["outcome"]
        assert (len(self.flights), self.n_begun) == (0, self.n_expected)
        self.loop.close()


def outcome_of(task):
    if task.cancelled():
        return "cancelled", None
    error = task.exception()
    if error is None:
        return "value", task.result()
    return ("late", None) if isinstance(error, TimeoutError) else ("error", error.args[0])


# cases 55 to 60, in any order
TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40)
