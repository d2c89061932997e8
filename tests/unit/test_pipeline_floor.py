"""What the edge may say of a request: how long it waited, and how far down the ladder it starts. On twins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Level, Rung
from tests.support.builders import a_query, keys_of
from tests.support.virtual_clock import monotonic, run
from tests.support.worlds import BEST, CACHE, CB, CF, FOREVER, POPULAR_ORDER, RERANKER, USER, a_world

pytestmark = pytest.mark.virtual_time

EVERYBODY = (CF, CB, RERANKER, USER, CACHE)


def asked(world):
    return {name: world.calls(name) for name in EVERYBODY if world.calls(name)}


async def test_popular_is_answered_at_once_and_nobody_is_called():
    world = await a_world()
    before, started = asked(world), monotonic()

    slate = await world.pipeline.recommend(a_query(), floor=Rung.POPULAR)

    assert keys_of(slate) == POPULAR_ORDER[:10]
    assert slate.level is Level.POPULAR
    assert set(slate.degraded) == {CF, CB, "user"}
    assert {source.status for source in slate.sources} == {"shed"}
    assert (asked(world), monotonic()) == (before, started)


async def test_popular_keeps_what_the_caller_excluded_out():
    world = await a_world()

    slate = await world.pipeline.recommend(a_query(exclude_keys=(39, 38)), floor=Rung.POPULAR)

    assert keys_of(slate) == POPULAR_ORDER[2:12]


async def test_a_callers_list_comes_back_as_it_came():
    world = await a_world()

    slate = await world.pipeline.recommend(a_query(only_keys=(3, 30, 7), count=3), floor=Rung.POPULAR)

    assert keys_of(slate) == [3, 30, 7]


async def test_at_stale_the_cache_is_asked_and_nobody_else():
    world = await a_world()
    await world.ask(a_query())
    before = asked(world)

    remembered = await world.pipeline.recommend(a_query(), floor=Rung.STALE)
    unknown = await world.pipeline.recommend(a_query(count=3), floor=Rung.STALE)

    assert keys_of(remembered) == BEST
    assert (keys_of(unknown), unknown.level) == (POPULAR_ORDER[:3], Level.POPULAR)
    assert {name: calls - before[name] for name, calls in asked(world).items() if calls != before[name]} == {CACHE: 2}


async def test_an_explained_slate_is_shed_like_any_other():
    world = await a_world()
    before = asked(world)

    slate, _ = await world.pipeline.traced(a_query(explain=True), 0.09, floor=Rung.POPULAR)

    assert keys_of(slate) == POPULAR_ORDER[:10]
    assert asked(world) == before


# case 11: queue_time_counted
async def test_what_a_request_waited_is_off_its_budget():
    world = await a_world()
    for name in EVERYBODY:
        world[name].latency_s = FOREVER
    started = monotonic()

    slate = await world.pipeline.recommend(a_query(), queued_s=0.060)

    assert monotonic() - started <= 0.040
    assert len(slate.items) == 10


@given(st.floats(-1, 0.002), st.floats(0, 0.1))
# case 1: deadline_already_expired
def test_without_time_nobody_is_called_and_popular_is_the_answer(budget_s, queued_s):
    async def scene():
        world = await a_world()
        before, started = asked(world), monotonic()

        slate = await world.pipeline.recommend(a_query(), budget_s, queued_s=queued_s)

        assert keys_of(slate) == POPULAR_ORDER[:10]
        assert (asked(world), monotonic()) == (before, started)

    run(scene())
