"""Remembered slates: fresh, stale, forgotten, and never older than the shopper's newest event."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from structlog.testing import capture_logs

from orchestrator import remembered
from orchestrator.core.deadline import Deadline
from orchestrator.core.model import Level, Loss, SlateItem
from orchestrator.core.report import Report
from orchestrator.core.rules import NONE_IN_FORCE
from orchestrator.ports import DependencyError
from tests.support.builders import PURCHASE, a_query, keys_of
from tests.support.virtual_clock import advance, monotonic, wall
from tests.support.worlds import (
    BEST,
    CACHE,
    CB,
    CF,
    FOREVER,
    POPULAR_ORDER,
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

    # case 66: degraded_not_cached_as_fresh
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

        async def put(subject, field, entry, lease=None):
            raise ConnectionError("gone")

        world[CACHE].put = put

        slate = await world.ask(a_query())

        assert slate.losses == ()
        assert world.count(world.metrics.side_effect_failures, effect="cache_fill") == 1


class TestAskingAtOnce:
    async def test_the_same_question_asked_at_once_is_computed_once(self):
        world = await a_world()

        slates = await asyncio.gather(*(world.pipeline.recommend(a_query()) for _ in range(50)))

        assert all(slate == slates[0] for slate in slates)
        assert slates[0].level is Level.FULL
        assert [name for name, _ in slates[0].stages_ms] == ["look_up", "user", "retrieve", "rerank"]
        assert world.calls(CF) == world.calls(RERANKER) == world.calls(USER) == 1
        await world.pipeline.drain()
        assert world.count(world.metrics.flights, role="led") == 1
        assert world.count(world.metrics.flights, role="joined") == 49

    async def test_different_questions_and_shoppers_are_not_mixed(self):
        world = await a_world()
        await world.event("u:u2", 3)
        queries = [a_query(), a_query(count=3), a_query(user_id="u2"), a_query(user_id=None, visitor_id="u1")]

        slates = await asyncio.gather(*(world.pipeline.recommend(query) for query in queries))

        assert world.calls(CF) == 4
        assert [len(slate.items) for slate in slates] == [10, 3, 10, 10]
        await world.pipeline.drain()

    # case 55, 56: sf_leader_cancelled, sf_waiter_cancelled
    @pytest.mark.parametrize("who", [0, 1])
    async def test_one_who_hangs_up_spoils_it_for_nobody(self, who):
        world = await a_world()
        asked = [asyncio.create_task(world.pipeline.recommend(a_query())) for _ in range(3)]
        await asyncio.sleep(0.005)

        asked.pop(who).cancel()

        assert [keys_of(slate) for slate in await asyncio.gather(*asked)] == [BEST, BEST]
        assert world.calls(CF) == 1
        assert world[CF].cancelled == 0
        await world.pipeline.drain()

    async def test_when_all_hang_up_the_slate_is_still_remembered(self):
        world = await a_world()
        asked = asyncio.create_task(world.pipeline.recommend(a_query()))
        await asyncio.sleep(0.005)
        asked.cancel()
        await world.pipeline.drain()

        assert (await world.ask(a_query())).from_cache

    # case 57: sf_leader_short_deadline
    async def test_one_in_a_hurry_does_not_shorten_the_time_of_those_who_come_after(self):
        world = await a_world()
        world[CF].latency_s = world[CB].latency_s = 0.030
        hurried = asyncio.create_task(world.pipeline.recommend(a_query(), 0.040))
        await asyncio.sleep(0.002)

        patient = await world.pipeline.recommend(a_query())

        assert keys_of(patient) == BEST
        assert (await hurried).level is Level.POPULAR
        await world.pipeline.drain()

    async def test_one_in_a_hurry_computes_what_fits_rather_than_leaving_a_longer_computation(self):
        world = await a_world()
        world[CF].latency_s = FOREVER
        patient = asyncio.create_task(world.pipeline.recommend(a_query()))
        await asyncio.sleep(0.002)
        started = monotonic()

        hurried = await world.pipeline.recommend(a_query(), 0.050)

        assert monotonic() - started <= 0.050
        assert hurried.level is Level.PARTIAL
        await patient
        await world.pipeline.drain()

    async def test_one_who_waited_in_a_queue_does_not_lean_on_work_that_may_end_after_their_deadline(self):
        world = await a_world()
        cache, deadline = world.pipeline._remembered, Deadline(monotonic() + 0.0845)

        recalled = await cache.look_up(a_query(), deadline, Report())
        slate = await cache.make_once(
            recalled, deadline, Report(), partial(world.pipeline._compute, a_query(), NONE_IN_FORCE)
        )

        assert keys_of(slate) == BEST
        assert recalled.key is not None
        assert world.count(world.metrics.flights, role="alone") == 1
        await world.pipeline.drain()

    async def test_those_of_one_lowered_budget_share_among_themselves(self):
        world = await a_world()

        slates = await asyncio.gather(*(world.pipeline.recommend(a_query(), 0.080) for _ in range(5)))

        assert {slate.level for slate in slates} == {Level.FULL}
        assert world.calls(CF) == 1
        await world.pipeline.drain()

    # The promise of 202: the very next slate knows the event, even if the one before it is still being made.
    async def test_who_asks_after_an_event_does_not_get_the_answer_that_was_begun_before_it(self):
        world = await a_world()
        before = asyncio.create_task(world.pipeline.recommend(a_query(exclude_seen=True)))
        await asyncio.sleep(0.005)
        await world.event("u:u1", 29, PURCHASE)

        after = await world.pipeline.recommend(a_query(exclude_seen=True))

        assert (await before).watermark == 1
        assert after.watermark == 2
        assert 29 not in keys_of(after)
        await world.pipeline.drain()

    async def test_a_bug_is_loud_for_all_who_asked_and_for_nobody_later(self):
        world = await a_world()
        whole = world.catalogue.facts
        world.catalogue.facts = None
        failed = await asyncio.gather(*(world.pipeline.recommend(a_query()) for _ in range(3)), return_exceptions=True)
        world.catalogue.facts = whole

        assert [type(error) for error in failed] == [TypeError] * 3
        assert keys_of(await world.ask(a_query())) == BEST

    @pytest.mark.parametrize("only_keys", [(), (7, 31, 7, 2)])
    async def test_who_waits_leaves_at_their_own_deadline_with_popular_items(self, only_keys):
        world = await a_world()
        query = a_query(only_keys=only_keys, count=10)

        async def never_ends(*_):
            await asyncio.Event().wait()

        world.pipeline._compute = never_ends
        started = monotonic()

        slates = await asyncio.gather(*(world.pipeline.recommend(query) for _ in range(3)))

        assert monotonic() - started == pytest.approx(0.092)
        assert {slate.losses for slate in slates} == {((CF, Loss.DEADLINE), (CB, Loss.DEADLINE), (USER, Loss.DEADLINE))}
        assert all(keys_of(slate) == ([7, 31, 2] if only_keys else POPULAR_ORDER[:10]) for slate in slates)
        await world.pipeline.drain()
        assert world.store.slates == {}

    async def test_when_the_cache_is_off_nothing_is_shared(self):
        world = await a_world(TUTTI_SLATE_CACHE__ENABLED="false")

        await asyncio.gather(*(world.pipeline.recommend(a_query()) for _ in range(3)))

        assert world.calls(CF) == 3
        assert world.calls(CACHE) == 0


class TestStale:
    # case 61: swr_one_refresh
    async def test_a_thousand_who_are_served_a_stale_slate_by_two_processes_cause_one_computation(self):
        world = await a_world()
        first = await world.ask(a_query())
        other = world.another_process(seed=8)
        await asyncio.sleep(60)
        started = monotonic()

        stale = await asyncio.gather(*((world.pipeline, other)[n % 2].recommend(a_query()) for n in range(1000)))

        assert monotonic() - started < 0.005
        assert {slate.level for slate in stale} == {Level.STALE}
        assert all(slate.items == first.items for slate in stale)
        await world.pipeline.drain()
        await other.drain()
        assert world.calls(CF) == 2
        assert world.count(world.metrics.refreshes, outcome="stored") == 1
        assert world.count(world.metrics.refreshes, outcome="elsewhere") == 1
        assert (await other.recommend(a_query())).level is Level.FULL

    # case 61: swr_one_refresh; the other process stored its slate between our look-up and our lease
    async def test_who_gets_the_lease_just_after_another_refreshed_does_not_refresh_again(self):
        world = await a_world()
        await world.ask(a_query())
        other = world.another_process(seed=8)
        await asyncio.sleep(60)
        lease = world[CACHE].twin.lease
        asked = asyncio.create_task(other.recommend(a_query()))
        await asyncio.sleep(0.001)

        async def late_lease(subject, field):
            await asyncio.sleep(1)
            return await lease(subject, field)

        world[CACHE].lease = late_lease
        await asked
        del world[CACHE].lease
        await world.ask(a_query())
        await other.drain()

        assert world.calls(CF) == 2
        assert world.count(world.metrics.refreshes, outcome="elsewhere") == 1

    # case 62: swr_refresh_fails
    async def test_a_refresh_that_fails_is_logged_once_and_paused_and_the_stale_slate_is_served(self):
        world = await a_world()
        first = await world.ask(a_query())
        await asyncio.sleep(60)
        world.lose(CF, CB)

        with capture_logs() as lines:
            answers = [await world.ask(a_query()) for _ in range(100)]
            await asyncio.sleep(20)
            answers += [await world.ask(a_query()) for _ in range(100)]

        assert {slate.level for slate in answers} == {Level.STALE}
        assert all(slate.items == first.items for slate in answers)
        assert world.calls(CF) == 1 + 2, "one refresh at once and one after the pause"
        assert len([line for line in lines if line["event"] == "refresh_failed"]) == 1
        assert world.count(world.metrics.refreshes, outcome="degraded") == 2
        assert world.count(world.metrics.refreshes, outcome="paused") == 198

    async def test_a_refresh_that_works_again_ends_the_pauses(self):
        world = await a_world()
        await world.ask(a_query())
        await asyncio.sleep(60)
        world.lose(CF, CB)
        await world.ask(a_query())
        world[CF].heal()
        world[CB].heal()
        await asyncio.sleep(1)

        assert (await world.ask(a_query())).level is Level.STALE
        assert (await world.ask(a_query())).level is Level.FULL

    async def test_a_refresh_that_cannot_get_a_lease_for_want_of_redis_is_a_counted_failure(self):
        world = await a_world()
        await world.ask(a_query())
        await asyncio.sleep(60)

        async def lease(subject, field):
            raise DependencyError(Loss.UNAVAILABLE, "gone")

        world[CACHE].lease = lease

        assert (await world.ask(a_query())).level is Level.STALE
        assert world.count(world.metrics.refreshes, outcome="failed") == 1
        assert world.calls(CF) == 1

    # case 63: lease_holder_dies
    async def test_when_the_process_that_refreshes_dies_another_refreshes_within_two_seconds(self):
        world = await a_world()
        await world.ask(a_query())
        await asyncio.sleep(60)
        [field] = world.store.slates["u:u1"]
        assert await world[CACHE].twin.lease("u:u1", field) is not None, "and then it died"

        levels = [(await world.ask(a_query())).level for _ in range(3)]
        await asyncio.sleep(2)
        levels += [(await world.ask(a_query())).level for _ in range(2)]

        assert levels == [Level.STALE] * 4 + [Level.FULL]
        assert world.calls(CF) == 2

    # case 64: stale_set_blocked
    async def test_what_a_process_made_after_it_lost_its_lease_is_not_stored(self):
        world = await a_world()
        first = await world.ask(a_query())
        await asyncio.sleep(60)
        compute = world.pipeline._compute

        async def frozen_meanwhile(*arguments):
            slate = await compute(*arguments)
            world.store.leases.clear()
            return slate

        world.pipeline._compute = frozen_meanwhile
        await world.ask(a_query())

        [entry] = world.store.slates["u:u1"].values()
        assert entry.slate.created_at == first.created_at
        assert world.count(world.metrics.refreshes, outcome="overtaken") == 1

    async def test_a_slate_that_is_asked_for_often_is_made_anew_before_it_is_stale(self):
        world = await a_world()
        await world.ask(a_query())
        [entry] = world.store.slates["u:u1"].values()
        await asyncio.sleep(entry.fresh_until - wall() - 0.2)

        levels = set()
        for _ in range(100):
            await asyncio.sleep(0.004)
            levels |= {slate.level for slate in await asyncio.gather(*(asked(world) for _ in range(20)))}
        await world.pipeline.drain()

        assert levels == {Level.FULL}
        assert world.calls(CF) == 2

    # Stale if error: a returning shopper has an old slate, the sources are lost.
    async def test_an_old_slate_is_served_when_a_new_one_would_have_lost_the_shopper(self):
        world = await a_world()
        first = await world.ask(a_query())
        await advance(3 * 3600)
        world.lose(CF, CB)
        world.sold_out.add(29)

        slate = await world.ask(a_query())

        assert slate.items == first.items
        assert slate.level is Level.STALE
        assert slate.losses == ((CF, Loss.UNAVAILABLE), (CB, Loss.UNAVAILABLE))
        assert slate.degraded == (CF, CB)
        assert statuses(slate) == {CF: "error", CB: "error"}
        assert slate.created_at == first.created_at
        assert slate.from_cache

    async def test_an_old_slate_is_not_preferred_to_a_new_one_that_still_knows_the_shopper(self):
        world = await a_world()
        await world.ask(a_query())
        await advance(3 * 3600)
        world.lose(CF)

        slate = await world.ask(a_query())

        assert slate.level is Level.PARTIAL
        assert not slate.from_cache

    async def test_a_returning_shopper_gets_a_slate_made_now(self):
        world = await a_world()
        first = await world.ask(a_query())
        await advance(3 * 3600)

        slate = await world.ask(a_query())

        assert slate.level is Level.FULL
        assert slate.created_at > first.created_at


class TestUnknownShoppers:
    # case 65: negative_cached
    async def test_that_nothing_is_known_is_remembered_for_seconds_then_asked_again(self):
        world = await a_world(history=())
        first = await world.ask(a_query())

        again = await world.ask(a_query())
        assert again.from_cache
        assert again.level is first.level is Level.POPULAR
        assert again.items == first.items
        assert world.calls(CF) == 1

        await asyncio.sleep(10)
        assert not (await world.ask(a_query())).from_cache
        assert world.calls(CF) == 2

    # case 65: negative_cached, becomes positive
    async def test_the_first_event_forgets_it_at_once(self):
        world = await a_world(history=())
        await world.ask(a_query())

        await world.event("u:u1", 2, PURCHASE)
        slate = await world.ask(a_query())

        assert keys_of(slate) == BEST
        assert slate.level is Level.FULL

    # case 65: negative_cached, never for an error
    @pytest.mark.parametrize("lost", [(CF, CB), (USER,), (CF,)])
    async def test_a_popular_slate_that_came_of_losses_is_not_remembered(self, lost):
        world = await a_world(history=())
        world.lose(*lost)

        await world.ask(a_query())

        assert world.store.slates == {}


class TestColdCache:
    # case 67: redis_flush_cold
    async def test_an_emptied_cache_computes_each_question_once_and_on_time(self):
        world = await a_world()
        # As many questions as a dependency's limit lets compute at once when it starts; who comes beyond is shed.
        queries = [a_query(user_id=str(n)) for n in range(20)]
        for n, query in enumerate(queries):
            await world.event(f"u:{n}", 2)
            await world.ask(query)
        before = world.calls(CF)
        world.store.slates.clear()
        started = monotonic()

        slates = await asyncio.gather(*(world.pipeline.recommend(query) for query in queries * 40))

        assert monotonic() - started < 0.1
        assert {slate.level for slate in slates} == {Level.FULL}
        assert world.calls(CF) - before == 20
        await world.pipeline.drain()
        assert len(world.store.slates) == 20

    # case 67: redis_flush_cold; the other way to have nothing fresh: a night
    async def test_when_everything_is_stale_few_are_refreshed_at_once_and_all_are_answered_from_memory(self):
        world = await a_world()
        queries = [a_query(user_id=str(n)) for n in range(100)]
        for n, query in enumerate(queries):
            await world.event(f"u:{n}", 2)
            await world.ask(query)
        await asyncio.sleep(60)
        at_once = Busiest(world[CF])
        started = monotonic()

        slates = await asyncio.gather(*(world.pipeline.recommend(query) for query in queries * 8))

        assert monotonic() - started < 0.005
        assert {slate.level for slate in slates} == {Level.STALE}
        await world.pipeline.drain()
        assert at_once.most == remembered.MAX_REFRESHES
        assert world.count(world.metrics.refreshes, outcome="stored") == remembered.MAX_REFRESHES
        assert world.count(world.metrics.refreshes, outcome="dropped") > 0


def asked(world):
    return world.pipeline.recommend(a_query())


class Busiest:
    """Listens how many calls of *distant* are on their way at most."""

    def __init__(self, distant):
        self.most = self.now = 0
        travel = distant._travel

        async def counted():
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await travel()
            finally:
                self.now -= 1

        distant._travel = counted


class TestBehindTheAnswer:
    async def test_when_too_much_waits_more_is_dropped_and_counted(self):
        world = await a_world()
        for user in range(60):
            await world.event(f"u:{user}", 2)
        world[CACHE].twin.store.slates.clear()

        async def put(subject, field, entry, lease=None):
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


async def test_a_slate_with_an_item_this_process_has_not_heard_of_is_made_anew():
    # Once: another process, ahead in the stream of changes, stored it; here the look into the catalogue was an error.
    world, query = await a_world(), a_query()
    await world.ask(query)
    ((subject, fields),) = world.store.slates.items()
    for field, entry in fields.items():
        items = (SlateItem(5_000, 1.0, (CF,)), *entry.slate.items[1:])
        fields[field] = replace(entry, slate=replace(entry.slate, items=items))

    slate = await world.ask(query)

    assert (subject, slate.from_cache, slate.level) == ("u:u1", False, Level.FULL)
    assert keys_of(slate) == BEST[: query.count]
