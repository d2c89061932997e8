"""The ladder's controller on a running pipeline: what it sees, and what it tells pipeline and guard."""

import asyncio

import pytest

from orchestrator.core.model import Rung
from orchestrator.degradation import Degradation
from tests.support.builders import a_query
from tests.support.virtual_clock import monotonic
from tests.support.worlds import FOREVER, RERANKER, USER, a_world

pytestmark = pytest.mark.virtual_time


class Watched:
    """A world and its controller, with a lag one can set."""

    def __init__(self, world):
        self.world, self.lag_s = world, 0.0
        self.guard = world.pipeline._parts.guard
        self.degradation = Degradation(
            world.settings, world.pipeline, self.guard, world.metrics, monotonic, lambda: self.lag_s
        )

    async def seconds(self, count, requests=0):
        for _ in range(count):
            await asyncio.gather(
                *(self.world.pipeline.recommend(a_query(exclude_keys=(n,))) for n in range(requests)), asyncio.sleep(1)
            )
            self.degradation.observe()
        return self.world.pipeline.rung


@pytest.fixture
async def watched():
    return Watched(await a_world(TUTTI_SLATE_CACHE__ENABLED="false"))


async def test_on_a_good_day_it_stays_on_top(watched):
    assert await watched.seconds(20, requests=5) is Rung.FULL
    assert not watched.guard.is_lean


async def test_a_late_loop_leaves_out_what_is_optional_and_ten_good_seconds_bring_it_back(watched):
    watched.lag_s = 0.02
    assert await watched.seconds(1) is Rung.LEAN
    assert watched.guard.is_lean

    watched.lag_s = 0.0

    assert await watched.seconds(9) is Rung.LEAN
    assert await watched.seconds(1) is Rung.FULL
    assert not watched.guard.is_lean


async def test_a_store_that_is_lost_narrows_what_is_re_ranked(watched):
    watched.world[USER].latency_s = FOREVER

    rung = await watched.seconds(20, requests=10)

    assert rung is Rung.NARROW
    slate = await watched.world.pipeline.recommend(a_query())
    assert slate.rung >= Rung.NARROW


async def test_an_answer_says_what_it_lost_and_not_what_the_controller_fears(watched):
    watched.world[RERANKER].latency_s = FOREVER
    await watched.seconds(30, requests=10)
    assert watched.world.pipeline.rung is Rung.NO_RERANK
    lost = await watched.world.pipeline.recommend(a_query())

    watched.world[RERANKER].heal()
    await watched.seconds(40, requests=3)
    watched.world.pipeline.rung = Rung.NO_RERANK
    healed = await watched.world.pipeline.recommend(a_query())

    assert (lost.rung, lost.degraded) == (Rung.NO_RERANK, ("rerank",))
    assert (healed.rung, healed.degraded) == (Rung.NARROW, ())


async def test_it_shows_where_it_stands(watched):
    watched.lag_s = 0.02
    await watched.seconds(1, requests=2)

    assert watched.world.count(watched.world.metrics.limit, dependency=RERANKER) >= 4
    assert watched.world.metrics.ladder_rung._value.get() == 1


async def test_it_observes_until_it_is_told_to_stop(watched):
    watched.lag_s = 0.02
    task = asyncio.create_task(watched.degradation.keep_observing())

    await asyncio.sleep(2.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert watched.world.pipeline.rung is Rung.LEAN
