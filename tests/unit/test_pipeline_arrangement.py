"""Rules, caps, fatigue and exploration through the whole pipeline: what is shown, and what is remembered of it."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from orchestrator.adapters.catalogue import Catalogue
from orchestrator.core.exploration import propensities
from orchestrator.core.model import Diversity, ItemFilter, Level, Placement
from orchestrator.core.selection import PINNED, POPULAR
from tests.support.builders import CLICK, IMPRESSION, VIEW, a_query, keys_of
from tests.support.virtual_clock import advance, run, wall
from tests.support.worlds import BEST, CACHE, CATEGORIES, CB, CF, N_ITEMS, POPULAR_ORDER, RERANKER, USER, a_world

pytestmark = pytest.mark.virtual_time


def written(name, action, **about):
    """One rule as TOML."""
    lines = [f"{key.rstrip('_')} = {_toml(value)}" for key, value in about.items()]
    return "\n".join(["[[rules]]", f'name = "{name}"', f'action = "{action}"', *lines, ""])


def _toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, str) and value[:2] == "20":
        return value
    return orjson.dumps(value).decode()


def ids(*keys):
    return {"ids": [f"i{key:02d}" for key in keys]}


def the_moment(seconds):
    """*seconds* of virtual time as TOML."""
    return datetime.fromtimestamp(wall() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class TestPins:
    async def test_a_pinned_item_stands_in_its_place_and_the_others_make_room(self):
        world = await a_world()
        world.rule(written("hero", "pin", position=3, items=ids(35)))

        slate = await world.ask(a_query())

        assert keys_of(slate) == [29, 28, 35, *range(27, 20, -1)]
        assert slate.items[2].sources == (PINNED,)
        assert slate.level is Level.FULL
        assert slate.pinned == (3,)

    async def test_a_pinned_item_that_was_found_anyway_moves_and_keeps_who_found_it(self):
        world = await a_world()
        world.rule(written("hero", "pin", position=1, items=ids(21)))

        slate = await world.ask(a_query())

        assert keys_of(slate) == [21, *range(29, 21, -1), 20]
        assert slate.items[0].sources == (CB,)

    @pytest.mark.parametrize("lost", [(), (CF, CB, RERANKER, USER, CACHE)])
    async def test_pins_hold_for_a_stranger_and_on_the_last_rung_and_are_not_personal(self, lost):
        world = await a_world()
        world.lose(*lost)
        world.rule(written("hero", "pin", position=2, items=ids(0, 1)))

        slate = await world.ask(a_query(user_id=None))

        assert keys_of(slate) == [39, 0, 1, *range(38, 31, -1)]
        assert slate.level is Level.POPULAR

    @pytest.mark.parametrize(
        "about",
        [
            {"exclude_keys": (35,)},
            {"cart_keys": (35,)},
            {"context_keys": (35,), "placement": Placement.ITEM},
            {"filter": ItemFilter(price_max=30)},
            {"placement": Placement.CATEGORY, "category": "Home"},
        ],
    )
    async def test_what_may_not_be_shown_is_not_shown_for_being_pinned(self, about):
        world = await a_world()
        world.rule(written("hero", "pin", position=1, items=ids(35)))

        slate = await world.ask(a_query(**about))

        assert 35 not in keys_of(slate)
        assert len(slate.items) == 10
        assert slate.pinned == ()

    async def test_a_pin_that_is_sold_out_makes_room_also_in_a_remembered_slate_and_the_others_stay(self):
        world = await a_world()
        world.rule(written("one", "pin", position=1, items=ids(35)) + written("five", "pin", position=5, items=ids(0)))
        first = await world.ask(a_query())
        assert (keys_of(first)[0], keys_of(first)[4]) == (35, 0)
        world.sell_out(35, 28)

        slate = await world.ask(a_query())

        assert slate.from_cache
        keys = keys_of(slate)
        assert keys[4] == 0
        assert keys[:4] == [29, 27, 26, 25]
        assert len(keys) == len(set(keys)) == 10
        assert slate.pinned == (5,)

    async def test_a_ranking_is_left_alone(self):
        world = await a_world()
        world.rule(written("hero", "pin", position=1, items=ids(35)) + written("gone", "hide", items=ids(8)))

        assert keys_of(await world.ask(a_query(only_keys=(3, 8, 20), count=3))) == [20, 8, 3]


class TestMoves:
    async def test_a_boost_of_two_halves_the_place(self):
        world = await a_world()
        world.rule(written("up", "boost", factor=2, items=ids(22)))

        keys = keys_of(await world.ask(a_query()))

        assert keys.index(22) == BEST.index(22) // 2
        assert [key for key in keys if key != 22] == [key for key in BEST if key != 22]

    async def test_a_bury_moves_down_and_out_of_the_slate(self):
        world = await a_world()
        world.rule(written("down", "bury", places=15, items=ids(29)))

        assert keys_of(await world.ask(a_query())) == list(range(28, 18, -1))

    async def test_scores_stay_those_of_the_model(self):
        world = await a_world()
        before = {item.key: item.score for item in (await world.ask(a_query())).items}
        world.rule(written("up", "boost", factor=9, items=ids(22)))

        after = await world.ask(a_query())

        assert {item.key: item.score for item in after.items} == before

    async def test_a_boost_holds_among_popular_items_too(self):
        world = await a_world()
        world.rule(written("up", "boost", factor=4, items={"brands": ["Alba"]}))

        keys = keys_of(await world.ask(a_query(user_id=None)))

        assert [key for key in keys if key % 5 == 0] == [35, 30, 25, 20, 15, 10, 5][: sum(key % 5 == 0 for key in keys)]
        assert sum(key % 5 == 0 for key in keys) > 4

    async def test_a_rule_about_the_shopper_applies_to_those_it_is_about(self):
        world = await a_world()
        features = world[USER].twin.features
        features["u:u1"], features["u:u2"] = ((5.0, 0.0), ("vip",)), ((1.0, 0.0), ("vip",))
        when = {"features": {"f__number": {"min": 3}, "f__word": ["vip", "gold"]}}
        world.rule(written("up", "pin", position=1, items=ids(3), when=when))

        first = [keys_of(await world.ask(a_query(user_id=user)))[0] for user in ("u1", "u2", "u3")]

        assert [key == 3 for key in first] == [True, False, False]


class TestHiding:
    async def test_a_hidden_item_is_not_a_candidate_and_is_accounted_for(self):
        world = await a_world()
        world.rule(written("gone", "hide", items=ids(29, 27)))

        slate = await world.ask(a_query())

        assert not {29, 27} & set(keys_of(slate))
        assert dict(slate.removed) == {"hidden": 2}

    async def test_nothing_hidden_fills_a_gap(self):
        world = await a_world()
        world.rule(written("gone", "hide", items={"brands": ["Echo"]}))

        for query in (a_query(user_id=None), a_query(count=32)):
            slate = await world.ask(query)
            assert all(key % 5 != 4 for key in keys_of(slate))
            assert len(slate.items) == query.count

    async def test_a_gap_in_a_remembered_slate_is_not_filled_with_what_is_hidden(self):
        world = await a_world()
        world.rule(written("gone", "hide", items=ids(39, 38)))
        await world.ask(a_query())
        world.sell_out(29)

        slate = await world.ask(a_query())

        assert slate.from_cache
        assert keys_of(slate) == [*range(28, 19, -1), 37]

    async def test_when_most_is_hidden_sources_search_in_what_is_left(self):
        world = await a_world()
        world.rule(written("most", "hide", items={"categories": list(CATEGORIES[:3])}))

        slate, lists = await world.pipeline.traced(a_query(count=8), 1.0)

        assert all(key % 4 == 3 for one in lists for key in one.keys.tolist())
        assert len(slate.items) == 8


class TestRememberedSlates:
    async def test_a_slate_is_not_served_past_the_end_of_a_rule_that_made_it(self):
        world = await a_world()
        world.rule(written("sale", "pin", position=1, items=ids(3), until=the_moment(10)))
        await world.ask(a_query())
        await asyncio.sleep(9)
        still = await world.ask(a_query())
        await asyncio.sleep(1.1)

        after = await world.ask(a_query())

        assert still.from_cache
        assert keys_of(still)[0] == 3
        assert not after.from_cache
        assert keys_of(after) == BEST

    async def test_a_slate_of_before_a_rule_is_not_served_when_it_begins(self):
        world = await a_world()
        world.rule(written("gone", "hide", items=ids(29), from_=the_moment(10)))
        assert 29 in keys_of(await world.ask(a_query()))
        await asyncio.sleep(10.1)

        assert 29 not in keys_of(await world.ask(a_query()))

    async def test_a_slate_made_by_other_rules_is_not_served_not_even_as_a_fallback(self):
        world = await a_world()
        await world.ask(a_query())
        world.rule(written("gone", "hide", items=ids(29)))
        world.lose(CF, CB, RERANKER)

        slate = await world.ask(a_query())

        assert not slate.from_cache
        assert 29 not in keys_of(slate)

    async def test_a_slate_that_is_being_made_when_a_window_closes_is_made_by_the_rules_it_is_looked_up_under(self):
        world = await a_world()
        world.rule(written("sale", "pin", position=1, items=ids(3), until=the_moment(10)))
        await asyncio.sleep(9.99)

        under_way = await world.ask(a_query())

        assert wall() > world.rulebook.reaches[0].rule.ends_at
        assert keys_of(under_way)[0] == 3
        assert keys_of(await world.ask(a_query())) == BEST

    async def test_rules_of_another_placement_leave_a_remembered_slate_as_it_is(self):
        world = await a_world()
        await world.ask(a_query())
        world.rule(written("gone", "hide", items=ids(29), when={"placements": ["cart"]}))

        assert (await world.ask(a_query())).from_cache

    async def test_rules_that_come_back_find_their_slates_again(self):
        world = await a_world()
        await world.ask(a_query())
        before = world.rulebook
        world.rule(written("gone", "hide", items=ids(29)))
        await world.ask(a_query())
        world.rulebook = before

        slate = await world.ask(a_query())

        assert slate.from_cache
        assert 29 in keys_of(slate)

    async def test_a_gap_is_not_filled_from_memory_when_a_rule_is_about_the_shopper(self):
        world = await a_world()
        world.rule(written("gone", "hide", items=ids(39), when={"shopper": "known"}))
        await world.ask(a_query())
        world.sell_out(29)

        slate = await world.ask(a_query())

        assert not slate.from_cache
        assert 39 not in keys_of(slate)
        assert len(slate.items) == 10


class TestExplaining:
    async def test_an_explained_slate_names_the_rules_that_touched_each_item(self):
        world = await a_world()
        world.rule(
            written("hero", "pin", position=1, items=ids(3))
            + written("echo", "boost", factor=2, items={"brands": ["Echo"]})
            + written("other", "bury", factor=2, items=ids(0))
        )

        slate, _ = await world.pipeline.traced(a_query(explain=True), 1.0)
        plain = await world.ask(a_query())

        touched = dict(slate.touched)
        assert touched[3] == ("hero",)
        assert touched[29] == ("echo",)
        assert 28 not in touched
        assert plain.touched == ()
        assert keys_of(plain) == keys_of(slate)


class TestCaps:
    async def test_no_more_than_the_cap_of_one_category_while_there_are_others(self):
        world = await a_world(TUTTI_PLACEMENTS__HOME__CAPS__CATEGORY="3")
        world[RERANKER].twin.score_of = lambda key: (key % 4 == 0) * 100 + key

        home = Counter(key % 4 for key in keys_of(await world.ask(a_query())))
        shelf = await world.ask(a_query(placement=Placement.CATEGORY, category="Home"))

        assert max(home.values()) == 3
        assert max(Counter(key % 4 for key in keys_of(shelf)).values()) > 3, "each placement has its own caps"

    async def test_a_cap_gives_way_before_a_slate_is_short(self):
        world = await a_world(TUTTI_PLACEMENTS__HOME__CAPS__BRAND="1")

        slate = await world.ask(a_query(filter=ItemFilter(brands=("Dune",)), count=8))

        assert len(slate.items) == 8

    async def test_caps_hold_among_popular_items_too(self):
        world = await a_world(TUTTI_PLACEMENTS__HOME__CAPS__CATEGORY="3")
        world.catalogue._popular = np.asarray(sorted(range(N_ITEMS), key=lambda key: (key % 4, key)), np.int32)

        slate = await world.ask(a_query(user_id=None))

        assert Counter(key % 4 for key in keys_of(slate)) == {0: 3, 1: 3, 2: 3, 3: 1}

    async def test_of_the_variants_of_an_item_one_is_shown_and_none_beside_the_item_itself(self):
        world = await a_world(TUTTI_PLACEMENTS__HOME__CAPS__PARENT="1", TUTTI_PLACEMENTS__ITEM__CAPS__PARENT="1")
        world.catalogue = with_parents(world.catalogue, lambda key: f"p{key // 3}")
        world.pipeline = world.another_process()

        home = keys_of(await world.ask(a_query(count=8)))
        page = keys_of(await world.ask(a_query(placement=Placement.ITEM, context_keys=(10,), count=8)))

        assert len({key // 3 for key in home}) == 8
        assert len({key // 3 for key in page}) == 8
        assert 10 // 3 not in {key // 3 for key in page}


def with_parents(catalogue, parent_of):
    """*catalogue* with variants: the attribute `parent`."""
    columns = dict(catalogue._columns)
    columns["attributes"] = [orjson.dumps({"parent": parent_of(key)}).decode() for key in range(N_ITEMS)]
    return Catalogue([f"i{key:02d}" for key in range(N_ITEMS)], columns, np.asarray(POPULAR_ORDER, np.int32))


class TestFatigue:
    @staticmethod
    async def shown(world, key, times, subject="u:u1"):
        for _ in range(times):
            await world.event(subject, key, IMPRESSION)

    async def test_what_was_shown_often_and_never_touched_sinks(self):
        world = await a_world()
        await self.shown(world, 29, 3)

        assert keys_of(await world.ask(a_query()))[:5] == [28, 27, 26, 29, 25], "worth 1 / 1.3, which is place 4"

    async def test_a_click_brings_it_back(self):
        world = await a_world()
        await self.shown(world, 29, 15)
        await asyncio.sleep(1)
        await world.event("u:u1", 29, CLICK)

        assert keys_of(await world.ask(a_query())) == BEST

    async def test_it_is_forgotten_after_the_window(self):
        world = await a_world(TUTTI_FATIGUE__WINDOW_S="3600")
        await self.shown(world, 29, 15)
        await advance(3700)
        await world.event("u:u1", 1, VIEW)

        assert keys_of(await world.ask(a_query())) == BEST

    async def test_without_patience_nothing_sinks(self):
        world = await a_world(TUTTI_FATIGUE__PATIENCE="0")
        await self.shown(world, 29, 50)

        assert keys_of(await world.ask(a_query())) == BEST

    async def test_popular_items_rotate_for_a_visitor_of_whom_nothing_else_is_known(self):
        world = await a_world()
        world[CF].twin.keys = world[CB].twin.keys = ()
        for key in range(39, 29, -1):
            await self.shown(world, key, 10, "v:new")

        keys = keys_of(await world.ask(a_query(user_id=None, visitor_id="new")))

        assert keys == [29, 39, 28, 27, 38, 26, 25, 37, 24, 23], "half of each ten: 39 is worth what 29 is, and so on"

    async def test_it_costs_no_further_call_and_impressions_push_no_click_out_of_the_history(self):
        world = await a_world(history=(2,))
        for n in range(300):
            await world.event("u:u1", n % N_ITEMS, IMPRESSION)
        before = world.calls(USER)

        slate = await world.ask(a_query(exclude_seen=True, count=30))

        assert world.calls(USER) == before + 1
        assert 2 not in keys_of(slate), "what was bought 300 impressions ago is still known"
        assert len(slate.items) == 30, "what was only shown may come again"

    async def test_an_explained_slate_says_what_is_weary(self):
        world = await a_world()
        await self.shown(world, 29, 5)

        slate, _ = await world.pipeline.traced(a_query(explain=True), 1.0)

        assert slate.touched == ((29, ("fatigue",)),)


class TestExploration:
    async def test_it_is_off_unless_it_is_wanted(self):
        world = await a_world()

        slate = await world.ask(a_query(user_id=None))

        assert {item.propensity for item in slate.items} == {1.0}
        assert slate.pool == ()

    async def test_every_answer_draws_anew_and_the_remembered_slate_stays_what_was_decided(self):
        world = await a_world(TUTTI_EXPLORATION__SHARE="0.5", TUTTI_EXPLORATION__POOL="15")

        answers = [await world.ask(a_query(recommendation_id=f"r{n}")) for n in range(40)]

        assert [slate.from_cache for slate in answers].count(True) > 30
        assert len({tuple(keys_of(slate)) for slate in answers}) > 5
        (entry,) = world.store.slates["u:u1"].values()
        assert keys_of(entry.slate) == BEST
        assert {item.propensity for item in entry.slate.items} == {1.0}
        assert [item.key for item in entry.slate.pool] == [19, 18, 17, 16, 15]

    async def test_the_propensities_of_what_is_shown_are_those_of_the_policy(self):
        world = await a_world(TUTTI_EXPLORATION__SHARE="0.5", TUTTI_EXPLORATION__POOL="15")
        line, table, n = [*BEST, 19, 18, 17, 16, 15], propensities(10, 15, 0.5), 3000
        seen = np.zeros((10, 15))

        for _ in range(n):
            slate = await world.pipeline.recommend(a_query())
            for slot, item in enumerate(slate.items):
                seen[slot, line.index(item.key)] += 1
                assert item.propensity == table[slot, line.index(item.key)]
        await world.pipeline.drain()

        assert (np.abs(seen / n - table) < 5 * np.sqrt(table * (1 - table) / n)).all()

    async def test_pinned_slots_are_not_played_with_and_are_certain(self):
        world = await a_world(TUTTI_EXPLORATION__SHARE="1")
        world.rule(written("hero", "pin", position=2, items=ids(3)))

        for n in range(20):
            slate = await world.ask(a_query(recommendation_id=f"r{n}"))
            assert slate.items[1].key == 3
            assert slate.items[1].propensity == 1.0
            assert all(item.propensity < 1 for at, item in enumerate(slate.items) if at != 1)
            assert len(set(keys_of(slate))) == 10

    async def test_chance_breaks_no_cap(self):
        world = await a_world(TUTTI_EXPLORATION__SHARE="1", TUTTI_PLACEMENTS__HOME__CAPS__CATEGORY="3")

        for n in range(30):
            keys = keys_of(await world.ask(a_query(recommendation_id=f"r{n}")))
            assert max(Counter(key % 4 for key in keys).values()) <= 3

    async def test_what_sold_out_since_is_not_drawn_from_a_remembered_pool(self):
        world = await a_world(TUTTI_EXPLORATION__SHARE="1", TUTTI_EXPLORATION__POOL="12")
        await world.ask(a_query())
        world.sell_out(19, 28)

        for n in range(30):
            slate = await world.ask(a_query(recommendation_id=f"r{n}"))
            assert slate.from_cache
            assert not {19, 28} & set(keys_of(slate))
            assert len(set(keys_of(slate))) == 10

    @pytest.mark.parametrize("about", [{"explain": True}, {"only_keys": tuple(range(10))}])
    async def test_explained_slates_and_rankings_are_not_played_with(self, about):
        world = await a_world(TUTTI_EXPLORATION__SHARE="1")

        slate = await world.ask(a_query(**about))

        assert {item.propensity for item in slate.items} == {1.0}
        assert keys_of(slate) == sorted(keys_of(slate), reverse=True)

    async def test_every_slate_is_written_down_while_it_is_on(self):
        world = await a_world(TUTTI_EXPLORATION__SHARE="0.1")

        with capture_logs() as lines:
            slates = [await world.ask(a_query(recommendation_id=f"r{n}")) for n in range(3)]

        shown = [line for line in lines if line["event"] == "shown"]
        assert [line["recommendation_id"] for line in shown] == ["r0", "r1", "r2"]
        for line, slate in zip(shown, slates, strict=True):
            assert line["items"] == [f"i{item.key:02d}" for item in slate.items]
            assert line["propensities"] == [item.propensity for item in slate.items]
            assert line["share"] == 0.1

    async def test_nothing_is_written_down_while_it_is_off(self):
        world = await a_world()

        with capture_logs() as lines:
            await world.ask(a_query())

        assert not [line for line in lines if line["event"] == "shown"]


class TestPlacements:
    """What a shelf promises whatever else is asked of it."""

    @pytest.mark.parametrize("lost", [(), (RERANKER,), (CF, CB, RERANKER, USER, CACHE)])
    @pytest.mark.parametrize("diversity", [Diversity.OFF, Diversity.HIGH])
    async def test_a_basket_never_shows_what_is_in_it_and_a_page_never_its_own_item(self, lost, diversity):
        world = await a_world(TUTTI_EXPLORATION__SHARE="1")
        world.lose(*lost)
        world.rule(written("hero", "pin", position=1, items=ids(29, 12)))

        for _ in range(5):
            cart = await world.ask(a_query(placement=Placement.CART, cart_keys=(29, 12), diversity=diversity))
            item = await world.ask(a_query(placement=Placement.ITEM, context_keys=(29, 12), diversity=diversity))
            assert not {29, 12} & {*keys_of(cart), *keys_of(item)}
            assert len(cart.items) == len(item.items) == 10

    async def test_an_item_bought_from_the_basket_a_moment_ago_is_gone_from_the_remembered_slate(self):
        world = await a_world()
        await world.ask(a_query(placement=Placement.CART, cart_keys=(2,)))

        slate = await world.ask(a_query(placement=Placement.CART, cart_keys=(2, 29)))

        assert not slate.from_cache, "another basket is another question"
        assert 29 not in keys_of(slate)


ACTIONS = st.sampled_from(
    [
        written("p", "pin", position=2, items=ids(3, 39)),
        written("q", "pin", position=9, items=ids(20)),
        written("b", "boost", factor=3, items={"brands": ["Alba"]}),
        written("d", "bury", places=6, items={"price_min": 25}),
        written("h", "hide", items={"categories": ["Toys"]}),
        written("n", "hide", items=ids(29, 5), when={"shopper": "known"}),
    ]
)


@given(
    rules=st.lists(ACTIONS, unique=True, max_size=6),
    about=st.fixed_dictionaries(
        {
            "placement": st.sampled_from(Placement),
            "category": st.sampled_from([None, "Home"]),
            "count": st.integers(1, 45),
            "context_keys": st.lists(st.integers(0, 39), max_size=2).map(tuple),
            "cart_keys": st.lists(st.integers(0, 39), max_size=2).map(tuple),
            "exclude_keys": st.lists(st.integers(0, 39), max_size=5).map(tuple),
            "diversity": st.sampled_from(Diversity),
            "user_id": st.sampled_from([None, "u1", "new"]),
        }
    ),
    sold_out=st.sets(st.integers(0, 39), max_size=10),
    caps=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    share=st.sampled_from([0, 1]),
    lost=st.sets(st.sampled_from([CF, CB, RERANKER, USER, CACHE]), max_size=2),
)
def test_whatever_is_arranged_nothing_forbidden_appears_and_the_slate_is_as_full_as_can_be(
    rules, about, sold_out, caps, share, lost
):
    query = a_query(**about)

    async def story():
        world = await a_world(
            **{f"TUTTI_PLACEMENTS__{p.name}__CAPS__CATEGORY": str(caps[0]) for p in Placement},
            **{f"TUTTI_PLACEMENTS__{p.name}__CAPS__BRAND": str(caps[1]) for p in Placement},
            TUTTI_EXPLORATION__SHARE=str(share),
        )
        world.rule("".join(rules))
        await world.ask(query)
        world.sell_out(*sold_out)
        world.lose(*lost)
        return [await world.ask(query) for _ in range(2)]

    slates = run(story())

    text = "".join(rules)
    never = {*query.exclude_keys, *query.focus_keys, *query.cart_keys} | sold_out
    never |= {key for key in range(N_ITEMS) if key % 4 == 3} if 'name = "h"' in text else set()
    in_category = query.placement is Placement.CATEGORY and query.category is not None
    may = {key for key in range(N_ITEMS) if key not in never and (not in_category or key % 4 != 3)}
    for slate in slates:
        keys = keys_of(slate)
        # With the shopper lost nobody knows that they are known; a rule about them cannot apply.
        hidden = {29, 5} if 'name = "n"' in text and query.user_id == "u1" and USER not in lost else set()
        assert len(set(keys)) == len(keys)
        assert set(keys) <= may - hidden
        assert len(keys) == min(query.count, len(may - hidden))
        assert all(POPULAR not in item.sources or len(item.sources) == 1 for item in slate.items)
