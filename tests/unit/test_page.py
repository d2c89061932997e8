"""Several slates in one answer, on twins and in virtual time (see tests/support/worlds.py for the shop)."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from orchestrator.adapters.memory import MemorySlateLog
from orchestrator.core.model import Diversity, ItemFilter, Level, Loss, Placement, Rung
from orchestrator.core.page import REMOVED_AS
from orchestrator.guard import Guard
from protos.slate_log import MADE, SERVED, made_row, served_row
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
    a_world,
)

pytestmark = pytest.mark.virtual_time

EVERYBODY = (CF, CB, RERANKER, USER, CACHE)


def home(count=4, **about):
    return a_query(recommendation_id=f"home-{count}", count=count, **about)


def item(count=4, **about):
    return a_query(recommendation_id=f"item-{count}", placement=Placement.ITEM, context_keys=(5,), count=count, **about)


def cart(count=4, **about):
    return a_query(recommendation_id=f"cart-{count}", placement=Placement.CART, cart_keys=(6, 7), count=count, **about)


async def ask(world, *queries, **how):
    """The slates of a page, with all work behind the answer done."""
    shelves = await world.pipeline.page(queries, **how)
    await world.pipeline.drain()
    assert [shelf.query for shelf in shelves] == list(queries)
    return [shelf.slate for shelf in shelves]


def shown(slates):
    return [key for slate in slates for key in keys_of(slate)]


def calls(world):
    return {name: world.calls(name) for name in EVERYBODY}


class TestNoItemTwice:
    async def test_the_shelf_further_up_chooses_first_and_the_next_goes_on_where_it_ended(self):
        slates = await ask(await a_world(), home(4), home(3), home(2))

        assert [keys_of(slate) for slate in slates] == [BEST[:4], BEST[4:7], BEST[7:9]]

    async def test_a_page_is_as_if_each_shelf_had_been_asked_for_with_what_is_above_it_excluded(self):
        queries = [home(5), home(4, filter=ItemFilter(brands=("Alba", "Brix", "Dune"))), home(6, exclude_keys=(20,))]
        page = await ask(await a_world(), *queries)
        above = []

        for query, slate in zip(queries, page, strict=True):
            alone = await (await a_world()).ask(
                a_query(count=query.count, filter=query.filter, exclude_keys=(*query.exclude_keys, *above))
            )
            assert slate.items == alone.items
            above += keys_of(slate)

    async def test_who_runs_out_of_candidates_is_filled_with_popular_items_nobody_shows_yet(self):
        slates = await ask(await a_world(), home(20), home(15))

        assert len(set(shown(slates))) == 35
        assert keys_of(slates[1])[-5:] == POPULAR_ORDER[:5]

    async def test_what_others_show_is_counted_among_what_was_removed(self):
        first, second = await ask(await a_world(), home(4), home(3))

        assert REMOVED_AS not in dict(first.removed)
        assert dict(second.removed)[REMOVED_AS] == 4

    async def test_an_item_pinned_on_two_shelves_stands_on_the_first(self):
        world = await a_world()
        world.rule('[[rules]]\nname = "pin"\naction = "pin"\nposition = 1\nitems = { ids = ["i33"] }\n')

        first, second = await ask(world, home(3), home(3))

        assert keys_of(first)[0] == 33
        assert first.pinned == (1,)
        assert second.pinned == ()
        assert len(set(shown([first, second]))) == 6

    async def test_a_varied_shelf_is_spread_over_what_is_left_to_it(self):
        slates = await ask(await a_world(), home(4), home(6, diversity=Diversity.HIGH))

        assert len(set(shown(slates))) == 10

    async def test_chance_shows_nothing_twice_and_hides_nothing(self):
        world = await a_world(TUTTI_EXPLORATION__SHARE="1", TUTTI_EXPLORATION__POOL="15")

        for _ in range(30):
            slates = await ask(world, home(5), item(5), cart(5))
            assert len(set(shown(slates))) == 15
            assert all(item.propensity < 1 for slate in slates for item in slate.items)

    @settings(max_examples=60, deadline=None)
    @given(
        counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
        lost=st.sets(st.sampled_from(EVERYBODY)),
        hung=st.sets(st.sampled_from(EVERYBODY), max_size=2),
        floor=st.sampled_from([Rung.FULL, Rung.STALE, Rung.POPULAR]),
        asked_before=st.booleans(),
    )
    def test_whatever_breaks_every_slate_is_full_and_in_time_and_no_item_is_twice(
        self, counts, lost, hung, floor, asked_before
    ):
        async def play():
            world = await a_world()
            queries = [make(count) for make, count in zip((home, item, cart, home), counts, strict=False)]
            if asked_before:
                await ask(world, *queries)
            world.lose(*lost)
            for name in hung:
                world[name].latency_s = FOREVER
            started = monotonic()
            shelves = await world.pipeline.page(queries, floor=floor)
            assert monotonic() - started <= 0.1
            slates = [shelf.slate for shelf in shelves]
            assert [len(slate.items) for slate in slates] == counts
            assert len(set(shown(slates))) == sum(counts)

        run(play())


class TestWhatItCosts:
    async def test_the_shopper_is_read_once_and_all_shelves_are_made_in_the_time_of_one(self):
        world = await a_world()
        before, started = calls(world), monotonic()

        shelves = await world.pipeline.page([home(), item(), cart()])

        assert monotonic() - started == pytest.approx(0.001 + 0.001 + 0.012 + 0.005)
        await world.pipeline.drain()
        spent = {name: world.calls(name) - before[name] for name in EVERYBODY}
        assert spent == {USER: 1, CF: 3, CB: 3, RERANKER: 1, CACHE: 6}, "three look-ups, three fills"
        assert {shelf.slate.level for shelf in shelves} == {Level.FULL}

    async def test_every_slate_reflects_the_same_events(self):
        world = await a_world(history=(2, 3, 4))

        assert {slate.watermark for slate in await ask(world, home(), item(), cart())} == {3}

    async def test_a_hung_source_costs_all_shelves_together_no_more_than_one(self):
        world = await a_world()
        world[CF].latency_s = FOREVER
        started = monotonic()

        slates = await ask(world, home(), item(), cart())

        assert monotonic() - started <= 0.1
        assert {slate.level for slate in slates} == {Level.PARTIAL}
        assert all(dict(slate.losses) == {CF: Loss.DEADLINE} for slate in slates)

    async def test_a_lost_shopper_is_lost_on_every_shelf(self):
        world = await a_world()
        world.lose(USER)

        slates = await ask(world, home(), item())

        assert all("user" in slate.degraded for slate in slates)

    async def test_one_line_in_the_log_and_every_slate_in_the_metrics(self):
        world = await a_world()

        with capture_logs() as lines:
            await ask(world, home(4), item(3))

        (line,) = (line for line in lines if line["event"] in ("slate", "page"))
        assert line["placements"] == ["home", "item"]
        assert line["recommendation_ids"] == ["home-4", "item-3"]
        assert (line["items"], line["quality"], line["cached"]) == ([4, 3], ["full", "full"], [False, False])
        assert line["stages_ms"]["retrieve"] == pytest.approx(12)
        assert world.count(world.metrics.slates, placement="home", level="full") == 1
        assert world.count(world.metrics.slates, placement="item", level="full") == 1

    async def test_each_slate_is_logged_under_its_own_id_with_what_it_was_made_of(self):
        world = await a_world()
        world.slate_log = MemorySlateLog()
        world.open()

        slates = await ask(world, home(4), home(3))

        served = [served_row(raw) for kind, raw in world.slate_log.messages if kind == SERVED]
        made = [made_row(raw) for kind, raw in world.slate_log.messages if kind == MADE]
        assert [row["recommendation_id"] for row in served] == ["home-4", "home-3"]
        assert [row["keys"].tolist() for row in served] == [keys_of(slate) for slate in slates]
        assert [row["made_as"] for row in made] == ["home-4", "home-3"]


class TestWhatIsRemembered:
    async def test_the_same_page_again_is_answered_from_memory_after_one_look_up(self):
        world = await a_world()
        first = await ask(world, home(), item(), cart())
        before, started = calls(world), monotonic()

        again = await ask(world, home(), item(), cart())

        assert monotonic() - started == pytest.approx(0.001)
        assert [slate.items for slate in again] == [slate.items for slate in first]
        assert all(slate.from_cache for slate in again)
        assert calls(world) == {**before, CACHE: before[CACHE] + 3}

    async def test_the_first_shelf_is_the_slate_that_is_remembered_of_the_same_question_alone(self):
        world = await a_world()
        alone = await world.ask(home(4))

        first, second = await ask(world, home(4), item(4))
        again = await world.ask(home(4))

        assert first.from_cache
        assert first.items == alone.items == again.items
        assert not second.from_cache

    async def test_a_slate_made_beneath_others_is_never_served_alone(self):
        world = await a_world()
        await ask(world, home(4), home(3))

        alone = await world.ask(home(3))

        assert not alone.from_cache
        assert keys_of(alone) == BEST[:3]

    async def test_a_remembered_slate_that_would_repeat_an_item_is_made_anew_and_those_below_it(self):
        world = await a_world()
        await ask(world, home(4), home(3), home(2))
        # The first shelf is made anew by another question, with other items on it than the others know of.
        world[RERANKER].twin.score_of = lambda key: -abs(key - 25)
        (subject,) = world.store.slates
        for field, entry in list(world.store.slates[subject].items()):
            if keys_of(entry.slate) == BEST[:4]:
                del world.store.slates[subject][field]
        await world.ask(home(4))

        slates = await ask(world, home(4), home(3), home(2))

        assert [slate.from_cache for slate in slates] == [True, False, False]
        assert len(set(shown(slates))) == 9

    async def test_a_shelf_that_is_not_remembered_has_everything_below_it_made_anew(self):
        world = await a_world()
        await ask(world, home(4), cart(4))

        slates = await ask(world, home(4), item(3), cart(4))

        assert [slate.from_cache for slate in slates] == [True, False, False]

    async def test_the_next_event_is_reflected_by_every_shelf(self):
        world = await a_world()
        await ask(world, home(), item())
        await world.event("u:u1", 9)

        slates = await ask(world, home(), item())

        assert {(slate.from_cache, slate.watermark) for slate in slates} == {(False, 2)}

    async def test_stale_slates_are_served_at_once_and_made_anew_behind_the_answer_still_apart(self):
        world = await a_world()
        first = await ask(world, home(4), home(3))
        await asyncio.sleep(60)
        started = monotonic()

        shelves = await world.pipeline.page([home(4), home(3)])

        assert monotonic() - started == pytest.approx(0.001)
        assert [shelf.slate.items for shelf in shelves] == [slate.items for slate in first]
        assert {shelf.slate.level for shelf in shelves} == {Level.STALE}
        await world.pipeline.drain()
        refreshed = await ask(world, home(4), home(3))
        assert all(slate.from_cache and slate.level is Level.FULL for slate in refreshed)
        assert len(set(shown(refreshed))) == 7

    async def test_what_lost_the_shopper_is_answered_with_the_last_slates_and_nothing_twice(self):
        world = await a_world()
        before = await ask(world, home(4), home(3))
        await asyncio.sleep(40_000)
        world.lose(CF, CB)

        slates = await ask(world, home(4), home(3))

        assert {slate.level for slate in slates} == {Level.STALE}
        assert [slate.items for slate in slates] == [slate.items for slate in before]

    async def test_an_explained_page_bypasses_the_cache_and_brings_the_lists_behind_each_slate(self):
        world = await a_world()
        queries = [home(4, explain=True), item(3, explain=True)]
        before = world.calls(CACHE)

        shelves = await world.pipeline.page(queries)

        assert world.calls(CACHE) == before
        assert all({one.stage for one in shelf.lists} >= {f"source:{CF}", "fused"} for shelf in shelves)

    async def test_nobody_in_particular_gets_popular_items_each_once(self):
        slates = await ask(await a_world(), home(3, user_id=None), home(3, user_id=None))

        assert shown(slates) == POPULAR_ORDER[:6]


class TestFartherDownTheLadder:
    async def test_at_popular_nobody_is_called(self):
        world = await a_world()
        before = calls(world)

        slates = await ask(world, home(4), item(3), floor=Rung.POPULAR)

        assert calls(world) == before
        assert {slate.level for slate in slates} == {Level.POPULAR}
        assert shown(slates) == POPULAR_ORDER[:7]

    async def test_at_stale_what_is_remembered_stands_and_the_rest_is_popular_beside_it(self):
        world = await a_world()
        await world.ask(home(4))
        before = calls(world)

        first, second = await ask(world, home(4), item(3), floor=Rung.STALE)

        assert (first.from_cache, keys_of(first)) == (True, BEST[:4])
        assert (second.level, keys_of(second)) == (Level.POPULAR, POPULAR_ORDER[:3])
        assert {name for name, n in calls(world).items() if n != before[name]} == {CACHE}

    async def test_no_time_at_all_is_popular_items_each_once(self):
        slates = await ask(await a_world(), home(4), item(3), budget_s=0.0)

        assert shown(slates) == POPULAR_ORDER[:7]


class TestBackstop:
    @pytest.mark.parametrize("n_shelves", [1, 2])
    async def test_a_page_of_which_a_stage_never_ends_is_answered_all_the_same(self, monkeypatch, n_shelves):
        world, call = await a_world(), Guard.call

        async def never_ends(self, dependency, *about):
            if dependency == USER:
                await asyncio.Event().wait()
            return await call(self, dependency, *about)

        monkeypatch.setattr(Guard, "call", never_ends)
        started = monotonic()

        slates = await ask(world, *[home(2 + n) for n in range(n_shelves)])

        assert [slate.level for slate in slates] == [Level.POPULAR] * n_shelves
        assert len(set(shown(slates))) == sum(2 + n for n in range(n_shelves))
        assert 0.09 < monotonic() - started < 0.2
        assert world.metrics.backstops._value.get() == 1
