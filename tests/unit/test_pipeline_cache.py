"""Remembered slates: fresh, stale, forgotten, and never older than the shopper's newest event."""

import asyncio

import pytest

from orchestrator.adapters.redis_slates import decode
from orchestrator.core.model import Level
from tests.support.builders import PURCHASE, a_query, keys_of
from tests.support.virtual_clock import advance, monotonic
from tests.support.worlds import (
    BEST,
    CACHE,
    CB,
    CF,
    FOREVER,
    RERANKER,
    USER,
    a_world,
    from_popular,
    statuses,
)

pytestmark = pytest.mark.virtual_time


class TestCache:
    async def test_the_same_question_is_answered_from_memory(self):
        world = await a_world()
        first = await world.ask(a_query())
        started = monotonic()

        again = await world.ask(a_query(recommendation_id="r2"))

        assert again.items == first.items
        assert again.from_cache
        assert again.level is Level.FULL
        assert statuses(again) == {CF: "cached", CB: "cached"}
        assert again.created_at == first.created_at
        assert monotonic() - started == pytest.approx(0.001)
        assert world.calls(CF) == world.calls(RERANKER) == 1

    async def test_a_stale_slate_is_served_at_once_and_refreshed_once_behind_the_answer(self):
        world = await a_world()
        first = await world.ask(a_query())
        await asyncio.sleep(60)
        started = monotonic()

        stale = await asyncio.gather(*(world.pipeline.recommend(a_query()) for _ in range(20)))

        assert monotonic() - started == pytest.approx(0.001)
        assert {slate.level for slate in stale} == {Level.STALE}
        assert all(slate.from_cache and slate.items == first.items for slate in stale)
        await world.pipeline.drain()
        assert world.calls(CF) == 2, "20 answers, one refresh"
        refreshed = await world.ask(a_query())
        assert refreshed.level is Level.FULL
        assert refreshed.created_at > first.created_at
        assert world.calls(CF) == 2

    async def test_a_refresh_that_loses_something_leaves_the_stale_slate(self):
        world = await a_world()
        first = await world.ask(a_query())
        await asyncio.sleep(60)
        world.lose(CF, CB)

        answers = [await world.ask(a_query()) for _ in range(3)]

        assert [slate.level for slate in answers] == [Level.STALE] * 3
        assert all(slate.items == first.items for slate in answers)

    async def test_a_slate_older_than_stale_is_forgotten(self):
        world = await a_world()
        await world.ask(a_query())
        await advance(86400 + 40)

        assert not (await world.ask(a_query())).from_cache

    async def test_bytes_that_cannot_be_read_are_a_miss(self):
        world = await a_world()

        async def get(subject, field, timeout_s):
            return decode(b"\x80\x04not a slate")

        world[CACHE].get = get

        slate = await world.ask(a_query())

        assert keys_of(slate) == BEST
        assert slate.losses == ()

    @pytest.mark.parametrize("lost", [CF, CB, RERANKER, USER])
    async def test_a_degraded_slate_is_never_remembered(self, lost):
        world = await a_world()
        world.lose(lost)
        await world.ask(a_query())
        world[lost].heal()

        slate = await world.ask(a_query())

        assert not slate.from_cache
        assert slate.level is Level.FULL
        assert slate.losses == ()

    async def test_a_popular_slate_is_never_remembered(self):
        world = await a_world(history=())
        await world.ask(a_query())

        assert world.store.slates == {}

    async def test_a_slate_made_while_the_cache_was_down_does_not_say_so_later(self):
        world = await a_world()
        world[CACHE].latency_s = FOREVER
        asked = asyncio.create_task(world.pipeline.recommend(a_query()))
        await asyncio.sleep(0.015)
        world[CACHE].heal()
        await asked
        await world.pipeline.drain()

        slate = await world.ask(a_query())

        assert slate.losses == slate.degraded == ()

    @pytest.mark.parametrize("about", [{"explain": True}, {"user_id": None}])
    async def test_what_must_not_be_remembered_is_not_even_looked_up(self, about):
        world = await a_world()

        for _ in range(2):
            assert not (await world.ask(a_query(**about))).from_cache
        assert world.calls(CACHE) == 0

    async def test_a_cache_that_is_off_is_never_asked(self):
        world = await a_world(TUTTI_SLATE_CACHE__ENABLED="false")

        for _ in range(2):
            assert not (await world.ask(a_query())).from_cache
        assert world.calls(CACHE) == 0

    async def test_shoppers_never_see_each_others_slates(self):
        world = await a_world()
        await world.event("u:u2", 3)
        await world.event("v:u1", 3)
        await world.ask(a_query())

        for other in ({"user_id": "u2"}, {"user_id": None, "visitor_id": "u1"}):
            assert not (await world.ask(a_query(**other))).from_cache

    async def test_an_event_is_in_the_next_slate(self):
        world = await a_world()
        await world.ask(a_query(exclude_seen=True))

        await world.event("u:u1", 29, PURCHASE)
        slate = await world.ask(a_query(exclude_seen=True))

        assert not slate.from_cache
        assert slate.watermark == 2
        assert keys_of(slate) == [*BEST[1:], 19]

    async def test_a_slate_computed_while_an_event_arrives_is_not_served_after_it(self):
        world = await a_world()
        asked = asyncio.create_task(world.pipeline.recommend(a_query(exclude_seen=True)))
        await asyncio.sleep(0.010)
        await world.event("u:u1", 29, PURCHASE)
        await asked
        await world.pipeline.drain()

        slate = await world.ask(a_query(exclude_seen=True))

        assert not slate.from_cache
        assert slate.watermark == 2
        assert 29 not in keys_of(slate)

    async def test_an_item_that_sold_out_leaves_a_remembered_slate_at_once(self):
        world = await a_world()
        await world.ask(a_query())
        world.sell_out(29, 25, 39)

        slate = await world.ask(a_query())

        assert slate.from_cache
        assert keys_of(slate) == [key for key in BEST if key not in (29, 25)] + [38, 37]
        assert from_popular(slate) == [38, 37]

    # Once: the gap in a remembered slate was filled with popular items the shopper had asked not to see again.
    async def test_a_gap_in_a_remembered_slate_is_not_filled_with_what_the_shopper_has_seen(self):
        world = await a_world(history=(39, 2))
        await world.ask(a_query(exclude_seen=True))
        world.sell_out(29)

        slate = await world.ask(a_query(exclude_seen=True))

        keys = keys_of(slate)
        assert not {39, 2, 29} & set(keys)
        assert len(set(keys)) == len(keys) == 10

    # Found by the simulation: a slate that was short when it was made stayed short when more could be shown again.
    @pytest.mark.parametrize("seen", [False, True])
    async def test_a_short_remembered_slate_is_filled_with_what_may_be_shown_again(self, seen):
        world = await a_world()
        world.sell_out(*range(4, 40))
        short = await world.ask(a_query(exclude_seen=seen))
        world.sold_out.clear()
        world.open()

        slate = await world.ask(a_query(exclude_seen=seen))

        assert len(short.items) < 10
        assert len(slate.items) == 10
        assert slate.from_cache is not seen

    async def test_a_failed_fill_is_counted_and_never_seen(self):
        world = await a_world()

        async def put(subject, field, entry):
            raise ConnectionError("gone")

        world[CACHE].put = put

        slate = await world.ask(a_query())

        assert slate.losses == ()
        assert world.count(world.metrics.side_effect_failures, effect="cache_fill") == 1


class TestBehindTheAnswer:
    async def test_when_too_much_waits_more_is_dropped_and_counted(self):
        world = await a_world()
        for user in range(60):
            await world.event(f"u:{user}", 2)
        world[CACHE].twin.store.slates.clear()

        async def put(subject, field, entry):
            await asyncio.sleep(10)

        world[CACHE].put = put
        slates = [await world.pipeline.recommend(a_query(user_id=str(user))) for user in range(60)]
        await world.pipeline.drain()

        assert all(len(slate.items) == 10 for slate in slates)
        assert world.count(world.metrics.side_effect_failures, effect="cache_fill") == 10

    async def test_draining_waits_for_everything_and_then_there_is_nothing_left(self):
        world = await a_world()
        await world.pipeline.recommend(a_query())

        await world.pipeline.drain()

        assert len(world.store.slates["u:u1"]) == 1
        assert len(asyncio.all_tasks()) == 1, "only this test"
