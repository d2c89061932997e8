"""What may appear in a slate and what never does; rankings hold exactly the caller's items."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Diversity, ItemFilter, Level, Placement
from tests.support.builders import a_query, keys_of
from tests.support.virtual_clock import run
from tests.support.worlds import (
    BRANDS,
    CACHE,
    CATEGORIES,
    CB,
    CF,
    N_ITEMS,
    POPULAR_ORDER,
    RERANKER,
    USER,
    a_world,
)

pytestmark = pytest.mark.virtual_time


class TestWhatMayAppear:
    async def test_a_category_page_shows_its_category_and_is_full(self):
        world = await a_world()

        slate = await world.ask(a_query(placement=Placement.CATEGORY, category="Toys"))

        keys = keys_of(slate)
        assert len(set(keys)) == 10
        assert all(CATEGORIES[key % 4] == "Toys" for key in keys)

    async def test_a_path_includes_the_shelves_below_it(self):
        slate = await (await a_world()).ask(a_query(filter=ItemFilter(categories=("Home > Kitchen",)), count=20))

        assert sorted(keys_of(slate)) == [key for key in range(N_ITEMS) if key % 4 in (0, 1)]

    async def test_a_category_that_is_only_half_a_word_matches_nothing(self):
        slate = await (await a_world()).ask(a_query(filter=ItemFilter(categories=("Home > Kit",))))

        assert slate.items == ()

    @pytest.mark.parametrize("share", ["0", "0.3", "1"])
    async def test_a_narrow_filter_still_gives_a_full_slate(self, share):
        world = await a_world(TUTTI_FILTERS__WITHIN_SHARE=share)

        slate = await world.ask(a_query(count=8, filter=ItemFilter(brands=("Dune",))))

        assert len(slate.items) == 8
        assert all(BRANDS[key % 5] == "Dune" for key in keys_of(slate))

    async def test_sources_search_inside_a_narrow_filter(self):
        """CB has two items of Toys by Dune, which a quota of 100 would hide in a shop of more items."""
        world = await a_world()
        narrow = ItemFilter(brands=("Dune",), categories=("Toys",))

        slate, lists = await world.pipeline.traced(a_query(filter=narrow), 1.0)

        allowed = {key for key in range(N_ITEMS) if key % 5 == 3 and key % 4 == 3}
        assert all(set(one.keys.tolist()) <= allowed for one in lists)
        assert set(keys_of(slate)) == allowed

    async def test_a_filter_that_allows_nothing_gives_nothing_and_no_loss(self):
        slate = await (await a_world()).ask(a_query(filter=ItemFilter(price_min=1000)))

        assert slate.items == ()
        assert slate.losses == ()

    async def test_price_and_attributes_are_respected_together(self):
        wanted = ItemFilter(price_min=20, price_max=40, attributes=(("colour", ("red",)),))

        slate = await (await a_world()).ask(a_query(filter=wanted, count=20))

        assert sorted(keys_of(slate)) == [key for key in range(15, 36) if key % 2 == 0]

    async def test_what_was_seen_does_not_come_again_when_asked(self):
        world = await a_world(history=(29, 28, 39))

        slate = await world.ask(a_query(exclude_seen=True, count=35))

        assert not {29, 28, 39} & set(keys_of(slate))
        assert len(slate.items) == 35

    async def test_a_basket_is_not_recommended_back(self):
        slate = await (await a_world()).ask(a_query(placement=Placement.CART, cart_keys=(29, 28)))

        assert not {29, 28} & set(keys_of(slate))
        assert len(slate.items) == 10

    async def test_diversity_mixes_what_is_alike(self):
        world = await a_world()
        world[RERANKER].twin.score_of = lambda key: (key % 4 == 0) * 100 + key

        off, high = [
            [key % 4 for key in keys_of(await world.ask(a_query(count=8, diversity=wanted)))]
            for wanted in (Diversity.OFF, Diversity.HIGH)
        ]

        assert off[:7] == [0] * 7
        assert high[0] == 0, "the best stays the first"
        assert Counter(high)[0] < Counter(off)[0]

    async def test_removed_candidates_are_accounted_for(self):
        world = await a_world()
        world.sell_out(28, 27)

        slate = await world.ask(a_query(exclude_keys=(29,)))

        assert dict(slate.removed) == {"sold_out": 2}, "sources were already asked to leave out 29"

    @given(
        about=st.fixed_dictionaries(
            {
                "placement": st.sampled_from(Placement),
                "count": st.integers(1, 45),
                "context_keys": st.lists(st.integers(0, 39), max_size=3).map(tuple),
                "cart_keys": st.lists(st.integers(0, 39), max_size=3).map(tuple),
                "exclude_keys": st.lists(st.integers(0, 39), max_size=10).map(tuple),
                "exclude_seen": st.booleans(),
                "diversity": st.sampled_from(Diversity),
                "category": st.sampled_from([None, "Toys", "Home"]),
                "filter": st.builds(
                    ItemFilter,
                    brands=st.sampled_from([(), ("Alba",), ("Alba", "Dune")]),
                    price_max=st.sampled_from([None, 20.0]),
                    in_stock=st.sampled_from([None, True, False]),
                ),
                "user_id": st.sampled_from([None, "u1", "new"]),
            }
        ),
        sold_out=st.sets(st.integers(0, 39), max_size=15),
        history=st.lists(st.integers(0, 39), max_size=6),
        lost=st.sets(st.sampled_from([CF, CB, RERANKER, USER, CACHE]), max_size=2),
    )
    def test_nothing_forbidden_ever_appears_and_all_that_may_fills_the_slate(self, about, sold_out, history, lost):
        query = a_query(**about)

        async def story():
            world = await a_world(history)
            await world.ask(query)
            world.sell_out(*sold_out)
            world.lose(*lost)
            return [await world.ask(query) for _ in range(2)]

        slates = run(story())

        never = {*query.exclude_keys, *query.focus_keys, *query.cart_keys} | sold_out
        may = {key for key in range(N_ITEMS) if key not in never and fits(query, key)}
        for slate in slates:
            keys = keys_of(slate)
            # With the shopper lost nobody knows what was seen; only then may it come again.
            seen = set(history) if query.exclude_seen and query.user_id == "u1" and USER not in lost else set()
            assert len(set(keys)) == len(keys)
            assert set(keys) <= may - seen
            assert len(keys) == min(query.count, len(may - seen))


def fits(query, key):
    wanted, path = query.filter, CATEGORIES[key % 4]
    below = query.category is None or path == query.category or path.startswith(query.category + " > ")
    return (
        (not wanted.brands or BRANDS[key % 5] in wanted.brands)
        and (wanted.price_max is None or 5 + key <= wanted.price_max)
        and (query.placement is not Placement.CATEGORY or below)
    )


class TestRankings:
    THEIRS = (3, 35, 20, 8, 36)

    async def test_a_ranking_returns_exactly_the_callers_items_in_personal_order(self):
        slate = await (await a_world()).ask(a_query(only_keys=self.THEIRS, count=5))

        assert keys_of(slate) == [36, 35, 20, 8, 3]
        assert slate.level is Level.FULL

    async def test_items_no_source_scored_stand_behind_in_the_callers_order_when_the_reranker_is_lost(self):
        world = await a_world()
        world.lose(RERANKER)

        slate = await world.ask(a_query(only_keys=self.THEIRS, count=5))

        assert keys_of(slate)[-2:] == [35, 36]
        assert sorted(keys_of(slate)) == sorted(self.THEIRS)

    async def test_with_everything_lost_the_callers_order_stands(self):
        world = await a_world()
        world.lose(CF, CB, RERANKER, USER, CACHE)

        slate = await world.ask(a_query(only_keys=self.THEIRS, count=5))

        assert keys_of(slate) == list(self.THEIRS)
        assert slate.level is not Level.FULL

    async def test_sold_out_items_stay_in_a_ranking_even_from_memory(self):
        world = await a_world()
        query = a_query(only_keys=self.THEIRS, count=5)
        await world.ask(query)
        world.sell_out(36, 3)

        slate = await world.ask(query)

        assert slate.from_cache
        assert keys_of(slate) == [36, 35, 20, 8, 3]

    async def test_an_item_named_twice_comes_once(self):
        slate = await (await a_world()).ask(a_query(only_keys=(3, 8, 3), count=3))

        assert keys_of(slate) == [8, 3]

    async def test_a_placement_without_reranking_is_reranked_when_it_is_a_ranking(self):
        world = await a_world()

        await world.ask(a_query(placement=Placement.ITEM, only_keys=self.THEIRS, count=5))

        assert world.calls(RERANKER) == 1

    async def test_a_ranking_of_500_items_is_reranked_whole(self):
        world = await a_world(TUTTI_RERANKER__CANDIDATES="2")

        slate = await world.ask(a_query(only_keys=tuple(range(N_ITEMS)), count=N_ITEMS))

        assert keys_of(slate) == POPULAR_ORDER

    @given(
        keys=st.lists(st.integers(0, 39), unique=True, min_size=1, max_size=40),
        lost=st.sets(st.sampled_from([CF, CB, RERANKER, USER, CACHE])),
        user_id=st.sampled_from([None, "u1", "new"]),
        sold_out=st.sets(st.integers(0, 39), max_size=10),
        context=st.lists(st.integers(0, 39), max_size=2).map(tuple),
    )
    def test_nothing_is_lost_and_nothing_invented(self, keys, lost, user_id, sold_out, context):
        async def story():
            world = await a_world()
            world.sell_out(*sold_out)
            world.lose(*lost)
            query = a_query(only_keys=tuple(keys), count=len(keys), user_id=user_id, context_keys=context)
            return await world.ask(query)

        slate = run(story())

        assert sorted(keys_of(slate)) == sorted(keys)
