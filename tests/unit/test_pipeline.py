"""The request, top to bottom, on twins and in virtual time (see tests/support/worlds.py for the shop)."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Level, Loss, Placement
from tests.support.builders import a_query, keys_of
from tests.support.virtual_clock import monotonic, run
from tests.support.worlds import (
    BEST,
    CACHE,
    CB,
    CF,
    FOREVER,
    POPULAR_ORDER,
    RERANKER,
    USER,
    World,
    a_world,
    from_popular,
    statuses,
)

pytestmark = pytest.mark.virtual_time


class TestWhenAllIsWell:
    async def test_the_slate_is_full_in_the_rerankers_order_and_nothing_is_missing(self):
        world = await a_world()

        slate = await world.ask(a_query())

        assert keys_of(slate) == BEST
        assert slate.level is Level.FULL
        assert slate.degraded == slate.losses == ()
        assert statuses(slate) == {CF: "ok", CB: "ok"}
        assert dict(slate.model_versions) == {CF: "twin", CB: "twin", RERANKER: "twin"}
        assert slate.watermark == 1
        assert not slate.from_cache

    async def test_sources_are_asked_at_once_and_the_time_of_each_stage_is_told(self):
        world = await a_world()
        started = monotonic()

        slate = await world.ask(a_query())

        stages = dict(slate.stages_ms)
        assert stages == pytest.approx({"look_up": 1, "user": 1, "retrieve": 12, "rerank": 5})
        assert monotonic() - started == pytest.approx(0.019 + 0.001), "and 1 ms to remember it"

    async def test_what_a_source_found_is_counted_and_what_the_slate_kept(self):
        slate = await (await a_world()).ask(a_query())

        counts = {source.name: (source.candidates, source.kept) for source in slate.sources}
        assert counts == {CF: (19, 0), CB: (20, 10)} or counts == {CF: (20, 0), CB: (20, 10)}

    async def test_items_say_who_found_them(self):
        world = await a_world()
        world[RERANKER].twin.score_of = lambda key: -abs(key - 15)

        slate = await world.ask(a_query(count=1))

        assert keys_of(slate) == [15]
        assert set(slate.items[0].sources) == {CF, CB}

    async def test_a_slate_longer_than_all_candidates_is_filled_with_popular_items(self):
        slate = await (await a_world()).ask(a_query(count=35))

        keys = keys_of(slate)
        assert len(keys) == len(set(keys)) == 35
        assert keys[:30] == list(range(29, -1, -1))
        assert from_popular(slate) == POPULAR_ORDER[:5]
        assert slate.level is Level.FULL

    async def test_only_the_best_fused_are_reranked_and_the_rest_keep_their_order_behind(self):
        world = await a_world(TUTTI_RERANKER__CANDIDATES="3")
        fused = await a_world(TUTTI_PLACEMENTS__HOME__RERANK="false")

        slate, plain = await world.ask(a_query()), await fused.ask(a_query())

        assert keys_of(slate)[:3] == sorted(keys_of(plain)[:3], reverse=True)
        assert keys_of(slate)[3:] == keys_of(plain)[3:]

    async def test_a_placement_that_is_not_reranked_keeps_the_fused_order(self):
        world = await a_world()

        slate = await world.ask(a_query(placement=Placement.ITEM, context_keys=(5,)))

        assert world.calls(RERANKER) == 0
        assert slate.level is Level.FULL
        assert RERANKER not in dict(slate.model_versions)

    async def test_a_weight_decides_the_fused_order(self):
        environment = {"TUTTI_PLACEMENTS__HOME__RERANK": "false"}
        world = World(**environment)
        world.settings = changed_sources(world.settings, {CF: 0.0, CB: 1.0})
        world.open()
        await world.event("u:u1", 2)

        assert keys_of(await world.ask(a_query(count=3))) == [29, 28, 27]

    async def test_batch_output_has_the_lists_behind_the_slate(self):
        world = await a_world()

        slate, lists = await world.pipeline.traced(a_query(), budget_s=10.0)

        found = {one.stage: one.keys.tolist() for one in lists}
        assert found.keys() == {f"source:{CF}", f"source:{CB}", "fused"}
        assert found[f"source:{CB}"] == list(range(29, 9, -1))
        assert sorted(found["fused"]) == list(range(30))
        assert keys_of(slate) == BEST
        assert world.calls(CACHE) == 0


def changed_sources(settings, weights):
    return settings.model_copy(
        update={
            "sources": tuple(s.model_copy(update={"weight": weights[s.name]}) for s in settings.sources),
        }
    )


class TestNobodyInParticular:
    async def test_a_query_without_a_shopper_is_popular_and_nothing_is_missing(self):
        world = await a_world()

        slate = await world.ask(a_query(user_id=None))

        assert keys_of(slate) == POPULAR_ORDER[:10]
        assert slate.level is Level.POPULAR
        assert slate.losses == ()
        assert world.calls(USER) == world.calls(CACHE) == 0

    async def test_a_shopper_without_history_gets_popular_items(self):
        slate = await (await a_world()).ask(a_query(user_id="new"))

        assert keys_of(slate) == POPULAR_ORDER[:10]
        assert slate.level is Level.POPULAR

    async def test_an_anonymous_page_of_an_item_has_a_context_to_go_by(self):
        slate = await (await a_world()).ask(
            a_query(user_id=None, placement=Placement.ITEM, context_keys=(15,), count=30)
        )

        assert slate.level is Level.FULL
        assert 15 not in keys_of(slate)

    async def test_a_visitor_has_a_history_of_her_own(self):
        world = await a_world()
        await world.event("v:x", 4)

        slate = await world.ask(a_query(user_id=None, visitor_id="x"))

        assert keys_of(slate) == BEST
        assert slate.watermark == 1


class TestLosses:
    @pytest.mark.parametrize(
        ("lost", "rest"), [(CF, list(range(29, 9, -1))), (CB, list(range(19, -1, -1)))], ids=[CF, CB]
    )
    @pytest.mark.parametrize(
        ("loss", "status"),
        [(Loss.UNAVAILABLE, "error"), (Loss.DEADLINE, "timeout"), (Loss.SHED, "shed"), (Loss.INVALID_REPLY, "error")],
    )
    async def test_a_lost_source_leaves_the_slate_to_the_others(self, lost, rest, loss, status):
        world = await a_world()
        world.lose(lost, loss=loss)

        slate = await world.ask(a_query())

        other = CB if lost == CF else CF
        assert keys_of(slate) == rest[:10]
        assert slate.level is Level.PARTIAL
        assert slate.losses == ((lost, loss),)
        assert slate.degraded == (lost,)
        assert statuses(slate) == {lost: status, other: "ok"}
        assert world.count(world.metrics.losses, dependency=lost, loss=loss.value) == 1

    async def test_with_all_sources_lost_the_slate_is_popular_and_full(self):
        world = await a_world()
        world.lose(CF, CB)

        slate = await world.ask(a_query())

        assert keys_of(slate) == POPULAR_ORDER[:10]
        assert slate.level is Level.POPULAR
        assert slate.degraded == (CF, CB)
        assert world.calls(RERANKER) == 0, "nothing to rank"

    async def test_a_lost_user_is_treated_as_a_new_one(self):
        world = await a_world()
        world.lose(USER)

        slate = await world.ask(a_query())

        assert keys_of(slate) == POPULAR_ORDER[:10]
        assert slate.degraded == ("user",)
        assert slate.watermark == 0

    async def test_a_lost_user_on_an_items_page_still_has_the_context(self):
        world = await a_world()
        world.lose(USER)

        slate = await world.ask(a_query(placement=Placement.ITEM, context_keys=(15,)))

        assert slate.level is Level.PARTIAL
        assert from_popular(slate) == []

    @pytest.mark.parametrize("loss", [Loss.UNAVAILABLE, Loss.SKEW])
    async def test_without_the_reranker_the_fused_order_stands(self, loss):
        healthy = await a_world(TUTTI_PLACEMENTS__HOME__RERANK="false")
        world = await a_world()
        world.lose(RERANKER, loss=loss)

        slate, fused = await world.ask(a_query()), await healthy.ask(a_query())

        assert slate.items == fused.items
        assert slate.level is Level.PARTIAL
        assert slate.losses == (("rerank", loss),)

    async def test_a_lost_cache_costs_time_and_not_quality(self):
        world = await a_world()
        world.lose(CACHE)

        slate = await world.ask(a_query())

        assert keys_of(slate) == BEST
        assert slate.level is Level.FULL
        assert slate.losses == (("cache", Loss.UNAVAILABLE),)

    async def test_with_everything_lost_the_slate_is_popular_and_full(self):
        world = await a_world()
        world.lose(CF, CB, RERANKER, USER, CACHE)

        slate = await world.ask(a_query())

        assert keys_of(slate) == POPULAR_ORDER[:10]
        assert set(slate.degraded) == {"cache", "user", CF, CB}

    @pytest.mark.expects_unclassified
    @pytest.mark.parametrize("name", [CF, CB, RERANKER, USER, CACHE])
    async def test_a_surprise_in_any_dependency_still_gives_a_full_slate(self, name):
        world = await a_world()
        world[name].surprise = ZeroDivisionError("bug")

        slate = await world.ask(a_query())

        assert len(slate.items) == 10
        assert [loss for _, loss in slate.losses] == [Loss.UNCLASSIFIED]

    @given(lost=st.sets(st.sampled_from([CF, CB, RERANKER, USER, CACHE])), hung=st.booleans(), count=st.integers(1, 40))
    def test_whatever_is_lost_the_slate_is_full_and_in_time(self, lost, hung, count):
        async def story():
            world = await a_world()
            for name in lost:
                if hung:
                    world[name].latency_s = FOREVER
                else:
                    world.lose(name)
            started = monotonic()
            slate = await world.pipeline.recommend(a_query(count=count))
            assert monotonic() - started <= 0.092 + 1e-9
            keys = keys_of(slate)
            assert len(keys) == len(set(keys)) == count
            # A re-ranker with nothing to rank is not asked, so it cannot be missed.
            missed = {"rerank" if n == RERANKER else "cache" if n == CACHE else n for n in lost}
            assert set(slate.degraded) <= missed
            assert missed - {"rerank"} <= set(slate.degraded)

        run(story())


class TestTime:
    @pytest.mark.parametrize(
        ("hung", "cap_s", "healthy_s"),
        [(CF, 0.040, 0.012), (CB, 0.040, 0.012), (RERANKER, 0.050, 0.005), (USER, 0.012, 0.001)],
    )
    async def test_a_hung_dependency_costs_its_cap_and_not_more(self, hung, cap_s, healthy_s):
        world = await a_world()
        world[hung].latency_s = FOREVER
        started = monotonic()

        slate = await world.pipeline.recommend(a_query())

        took_s = monotonic() - started
        assert took_s <= 0.019 - healthy_s + cap_s + 1e-9
        assert took_s >= 0.019 - 0.012
        assert dict(slate.losses) == {"rerank" if hung == RERANKER else hung: Loss.DEADLINE}
        assert world[hung].cancelled == 1, "and it is told that nobody waits any more"

    async def test_a_hung_source_costs_exactly_the_retrieval_cap(self):
        world = await a_world()
        world[CF].latency_s = FOREVER
        started = monotonic()

        slate = await world.ask(a_query())

        assert monotonic() - started == pytest.approx(0.001 + 0.001 + 0.040 + 0.005)
        assert keys_of(slate) == BEST

    async def test_with_every_remote_thing_hung_the_answer_comes_within_the_budget(self):
        world = await a_world()
        for name in (CF, CB, RERANKER, USER, CACHE):
            world[name].latency_s = FOREVER
        started = monotonic()

        slate = await world.pipeline.recommend(a_query())

        assert monotonic() - started <= 0.092
        assert keys_of(slate) == POPULAR_ORDER[:10]

    async def test_a_slow_source_that_makes_it_is_kept(self):
        world = await a_world()
        world[CB].latency_s = 0.039

        slate = await world.ask(a_query())

        assert slate.losses == ()
        assert dict(slate.stages_ms)["retrieve"] == pytest.approx(39)

    async def test_a_source_with_a_share_leaves_earlier(self):
        world = await a_world()
        world.settings = world.settings.model_copy(
            update={"sources": tuple(s.model_copy(update={"share": 0.5}) for s in world.settings.sources)}
        )
        world.open()
        world[CF].latency_s = FOREVER

        slate = await world.ask(a_query())

        assert dict(slate.stages_ms)["retrieve"] == pytest.approx(20)
        assert slate.losses == ((CF, Loss.DEADLINE),)

    @pytest.mark.parametrize("budget_s", [0.09, 0.07, 0.05, 0.03, 0.01, 0.001])
    async def test_a_lowered_budget_is_kept_and_the_slate_is_full(self, budget_s):
        world = await a_world()
        for name in (CF, CB, RERANKER, USER, CACHE):
            world[name].latency_s = FOREVER
        started = monotonic()

        slate = await world.pipeline.recommend(a_query(), budget_s)

        assert monotonic() - started <= budget_s
        assert len(slate.items) == 10

    async def test_a_budget_cannot_be_raised(self):
        world = await a_world()
        for name in (CF, CB, RERANKER, USER, CACHE):
            world[name].latency_s = FOREVER
        started = monotonic()

        await world.pipeline.recommend(a_query(), 10.0)

        assert monotonic() - started <= 0.092

    async def test_a_caller_that_hangs_up_stops_work_that_is_its_alone_and_is_no_loss(self):
        world = await a_world(TUTTI_SLATE_CACHE__ENABLED="false")
        task = asyncio.create_task(world.pipeline.recommend(a_query()))
        await asyncio.sleep(0.005)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert world[CF].cancelled == world[CB].cancelled == 1
        assert world.store.slates == {}

    async def test_a_bug_between_the_stages_is_loud(self):
        world = await a_world()
        world.settings = changed_sources(world.settings, {CF: 1.0, CB: 1.0}).model_copy(update={"sources": ()})
        world.open()

        with pytest.raises(ExceptionGroup):
            await world.ask(a_query())
