"""The coalescer over a method in memory: who is joined with whom, who waits, who suffers for whom."""

import asyncio

import pytest

from orchestrator.adapters.coalescer import Alone, Coalescer
from orchestrator.core.coalescing import Lane, LanePolicy
from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from tests.support.virtual_clock import monotonic

pytestmark = pytest.mark.virtual_time

TIMEOUT_S = 5.0
"""Far more than a call takes: most tests here are not about time."""


class Doubles:
    """A method that doubles numbers: one call at a time is let through by `let_go`, unless it is open."""

    def __init__(self, is_open=True):
        self.batches = []
        self.timeouts_s = []
        self.poison = set()
        self.bad_answers = set()
        self.loss = None
        self.gates = []
        self.is_open = is_open

    def encode(self, queries):
        if "unreadable" in queries:
            raise TypeError("a bug")
        return list(queries)

    async def call(self, request, timeout_s):
        self.batches.append(request)
        self.timeouts_s.append(timeout_s)
        if not self.is_open:
            self.gates.append(gate := asyncio.Event())
            await gate.wait()
        if self.loss is not None:
            raise DependencyError(self.loss, "as told")
        if self.poison & set(request):
            raise DependencyError(Loss.ERROR, "INTERNAL: a bug of the model")
        return [2 * query for query in request]

    def decode(self, queries, reply):
        return [
            DependencyError(Loss.INVALID_REPLY, f"{query} is not believed") if query in self.bad_answers else answer
            for query, answer in zip(queries, reply, strict=True)
        ]

    def let_go(self):
        self.gates.pop(0).set()


@pytest.fixture
def method():
    return Doubles(is_open=False)


@pytest.fixture
def coalescer(method):
    return Coalescer(method, Lane(), now=monotonic)


async def turns(n=5):
    for _ in range(n):
        await asyncio.sleep(0)


async def asking(coalescer, *queries, timeout_s=TIMEOUT_S):
    """Tasks that ask one after the other, all of them under way."""
    tasks = []
    for query in queries:
        tasks.append(asyncio.ensure_future(coalescer.ask(query, timeout_s)))
        await turns()
    return tasks


async def the_loss(task):
    with pytest.raises(DependencyError) as failed:
        await task
    return failed.value.loss


async def test_when_nothing_is_in_flight_a_query_leaves_at_once(coalescer, method):
    await asking(coalescer, 1)

    assert method.batches == [[1]]
    method.let_go()


async def test_what_is_asked_in_one_turn_of_the_loop_leaves_together(coalescer, method):
    tasks = [asyncio.ensure_future(coalescer.ask(query, TIMEOUT_S)) for query in (1, 2, 3)]
    await turns()

    assert method.batches == [[1, 2, 3]]
    method.let_go()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_a_query_is_on_its_way_one_turn_after_it_was_asked(coalescer, method):
    task = asyncio.ensure_future(coalescer.ask(1, TIMEOUT_S))
    await turns(1)
    assert method.batches == []

    await turns(1)

    assert method.batches == [[1]]
    method.let_go()
    assert await task == 2


async def test_who_finds_no_room_in_a_batch_leaves_when_it_arrives(method):
    coalescer = Coalescer(method, Lane(LanePolicy(most=2)), now=monotonic)
    tasks = [asyncio.ensure_future(coalescer.ask(query, TIMEOUT_S)) for query in (1, 2, 3)]
    await turns()

    assert method.batches == [[1, 2]]
    method.let_go()
    await turns()
    assert method.batches == [[1, 2], [3]]
    method.let_go()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_when_all_who_asked_left_before_the_turn_was_over_no_call_is_made(coalescer, method):
    task = asyncio.ensure_future(coalescer.ask(1, TIMEOUT_S))
    await turns(1)
    task.cancel()
    await turns()
    (other,) = await asking(coalescer, 2)

    assert method.batches == [[2]]
    method.let_go()
    assert await other == 4


async def test_what_is_asked_while_a_batch_is_in_flight_leaves_together_when_it_arrives(coalescer, method):
    first, *others = await asking(coalescer, 1, 2, 3, 4)

    assert method.batches == [[1]]
    method.let_go()
    await turns()
    assert method.batches == [[1], [2, 3, 4]]
    method.let_go()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]


async def test_a_hung_batch_holds_nobody_back_for_longer_than_it_usually_takes(coalescer, method):
    (hung,) = await asking(coalescer, 1, timeout_s=0.1)
    began_at = asyncio.get_running_loop().time()
    (waiter,) = await asking(coalescer, 2)
    method.is_open = True

    assert await waiter == 4
    assert asyncio.get_running_loop().time() - began_at <= 0.012
    assert await the_loss(hung) is Loss.DEADLINE


async def test_a_batch_is_sent_with_the_latest_deadline_in_it_and_each_waiter_leaves_at_its_own(coalescer, method):
    (first,) = await asking(coalescer, 1)
    (hasty,) = await asking(coalescer, 2, timeout_s=0.02)
    (patient,) = await asking(coalescer, 3, timeout_s=0.04)
    method.let_go()
    await turns()
    began_at = asyncio.get_running_loop().time()

    assert method.batches[1] == [2, 3]
    assert method.timeouts_s[1] == pytest.approx(0.04, abs=0.005)
    assert await the_loss(hasty) is Loss.DEADLINE
    assert asyncio.get_running_loop().time() - began_at == pytest.approx(0.02, abs=0.002)
    method.let_go()
    assert await patient == 6
    assert await first == 2


async def test_whoever_left_while_the_batch_gathered_is_not_carried(coalescer, method):
    (first,) = await asking(coalescer, 1)
    gone, stays = await asking(coalescer, 2, 3)
    gone.cancel()
    await turns()
    method.let_go()
    await turns()

    assert method.batches == [[1], [3]]
    method.let_go()
    assert [await first, await stays] == [2, 6]


async def test_whoever_leaves_a_batch_on_its_way_ends_it_for_nobody_else(coalescer, method):
    (first,) = await asking(coalescer, 1)
    gone, stays = await asking(coalescer, 2, 3)
    method.let_go()
    await turns()
    gone.cancel()
    await turns()
    method.let_go()

    assert await stays == 6
    assert await first == 2


async def test_what_one_query_breaks_the_others_of_its_batch_do_not_suffer(coalescer, method):
    method.poison = {3}
    first, *others = await asking(coalescer, 1, 2, 3, 4)
    method.is_open = True
    method.let_go()

    good, bad, also_good = others
    assert [await first, await good, await also_good] == [2, 4, 8]
    assert await the_loss(bad) is Loss.ERROR
    assert method.batches == [[1], [2, 3, 4], [2], [3], [4]]


async def test_an_answer_that_is_not_believed_is_lost_alone(coalescer, method):
    method.bad_answers = {3}
    first, *others = await asking(coalescer, 1, 2, 3)
    method.is_open = True
    method.let_go()

    good, bad = others
    assert [await first, await good] == [2, 4]
    assert await the_loss(bad) is Loss.INVALID_REPLY
    assert len(method.batches) == 2


@pytest.mark.parametrize("loss", [Loss.UNAVAILABLE, Loss.OVERLOADED, Loss.SKEW, Loss.DEADLINE])
async def test_what_says_the_same_of_all_is_not_asked_again_one_by_one(coalescer, method, loss):
    tasks = await asking(coalescer, 1, 2, 3)
    method.loss, method.is_open = loss, True
    method.let_go()

    assert [await the_loss(task) for task in tasks] == [loss] * 3
    assert method.batches == [[1], [2, 3]]


async def test_no_time_is_no_call(coalescer, method):
    assert await the_loss(coalescer.ask(1, 0.0)) is Loss.NO_BUDGET
    assert method.batches == []


async def test_a_bug_in_the_encoding_is_not_hidden_and_the_lane_stays_open(coalescer, method):
    method.is_open = True

    with pytest.raises(TypeError, match="a bug"):
        await coalescer.ask("unreadable", TIMEOUT_S)
    assert await coalescer.ask(1, TIMEOUT_S) == 2


async def test_it_tells_how_many_queries_a_batch_carries(method):
    told = []
    coalescer = Coalescer(method, Lane(), told.append)
    tasks = await asking(coalescer, 1, 2, 3)
    method.is_open = True
    method.let_go()
    await asyncio.gather(*tasks)

    assert told == [1, 2]


async def test_alone_every_query_is_a_call_of_its_own():
    method = Doubles()

    assert await asyncio.gather(*(Alone(method).ask(query, TIMEOUT_S) for query in (1, 2, 3))) == [2, 4, 6]
    assert method.batches == [[1], [2], [3]]


async def test_alone_an_answer_that_is_not_believed_is_a_loss():
    method = Doubles()
    method.bad_answers = {1}

    assert await the_loss(Alone(method).ask(1, TIMEOUT_S)) is Loss.INVALID_REPLY
