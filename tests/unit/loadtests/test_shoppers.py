"""Who comes to a load test, what they look at, what they do about it, and when."""

import random
from collections import Counter
from itertools import islice, pairwise

import pytest

from loadtests.shoppers.arrivals import PATIENCE_S, Arrivals, poisson
from loadtests.shoppers.session import BUFFER, COUNT, SEARCH_HITS, Kind, Session, Shown
from loadtests.shoppers.shop import USER_SHARE, VISITOR_SHARE, Shop, read_shop
from loadtests.shoppers.zipf import Zipf
from orchestrator.edge.parse import check
from orchestrator.edge.schemas import EventDocument, RankingRequest, RecommendationRequest
from tests.support.small_shop import write_shop

SHOP = Shop(
    tuple(f"u{i}" for i in range(50)), tuple(f"i{i}" for i in range(200)), ("Home > Mugs", "Home > Lamps", "Toys")
)


def a_session(seed=1, shop=SHOP):
    return Session(f"s{seed}", shop, random.Random(seed))


def played(session):
    """A whole visit in which every request is answered with a shelf: looks, and acts one by one."""
    looks, acts = [], []
    while not session.is_over:
        look = session.next()
        shown = Shown(f"r{len(looks)}", tuple(SHOP.some_items(COUNT, random.Random(len(looks)))))
        looks.append(look)
        acts += session.sees(look, shown)
    return looks, acts


def visits(n=300):
    return [played(a_session(seed)) for seed in range(n)]


def test_ranks_are_drawn_as_often_as_zipfs_law_says():
    zipf, rng = Zipf(5, 1.0), random.Random(3)

    seen = Counter(zipf.draw(rng) for _ in range(20_000))

    expected = [1 / rank for rank in range(1, 6)]
    for rank, weight in enumerate(expected):
        assert seen[rank] / 20_000 == pytest.approx(weight / sum(expected), rel=0.06)
    assert set(seen) == set(range(5))


def test_zipf_with_exponent_nought_draws_everybody_alike_and_refuses_nobody_to_draw():
    zipf, rng = Zipf(4, 0.0), random.Random(3)

    seen = Counter(zipf.draw(rng) for _ in range(8_000))

    assert all(n == pytest.approx(2_000, rel=0.1) for n in seen.values())
    with pytest.raises(ValueError, match="n = 0"):
        Zipf(0, 1.0)


def test_a_shop_is_read_with_the_most_active_and_the_most_wanted_first(tmp_path):
    rows = [
        ("ann", "i2", "view", 1.0),
        ("bob", "i2", "view", 2.0),
        ("bob", "i4", "view", 3.0),
        ("bob", "i2", "view", 4.0),
    ]
    data = write_shop(tmp_path / "shop", rows, title={"i1": "lamp", "i2": "mug", "i4": "mug"})

    shop = read_shop(data)

    assert shop.users == ("bob", "ann")
    assert shop.items == ("i2", "i4", "i1")
    assert shop.categories == ("Home > Kitchen", "Home > Light")


def test_who_comes_is_a_user_a_visitor_or_nobody_in_the_shares_that_are_said():
    rng = random.Random(5)

    kinds = Counter(next(iter(SHOP.somebody(rng)), "nobody") for _ in range(5_000))

    assert kinds["user_id"] / 5_000 == pytest.approx(USER_SHARE, abs=0.03)
    assert kinds["visitor_id"] / 5_000 == pytest.approx(VISITOR_SHARE, abs=0.03)
    assert kinds.total() == 5_000
    assert kinds["nobody"] > 0


def test_the_same_seed_is_the_same_visit_and_another_is_another():
    assert played(a_session(7)) == played(a_session(7))
    assert played(a_session(7)) != played(a_session(8))


def test_every_request_and_every_event_of_300_visits_is_one_that_the_edge_takes():
    kinds = Counter()

    for looks, acts in visits():
        for look in looks:
            kinds[look.kind] += 1
            for body in look.bodies:
                check(RankingRequest if look.kind is Kind.RANKING else RecommendationRequest, dict(body))
        for act in acts:
            for event in act.events:
                assert check(EventDocument, dict(event)).item_id is not None

    assert set(kinds) == set(Kind)


def test_a_click_names_the_slate_and_the_place_and_leads_to_the_items_page():
    clicks = 0

    for seed in range(200):
        session = a_session(seed)
        look = session.next()
        shown = Shown("r-1", tuple(SHOP.items[10 : 10 + COUNT]))
        acts = session.sees(look, shown)
        for event in (one for act in acts for one in act.events if one["event_type"] == "click"):
            clicks += 1
            assert event["recommendation_id"] == "r-1"
            assert shown.item_ids[event["position"] - 1] == event["item_id"]
            assert session.next().bodies[0]["context"] == {"item_ids": [event["item_id"]]}

    assert clicks > 10


def test_clicks_fall_off_down_the_shelf():
    places = Counter(
        event["position"]
        for _, acts in visits()
        for act in acts
        for event in act.events
        if event["event_type"] == "click"
    )

    assert places[1] > places[5] > places[11]


def test_a_basket_is_bought_whole_and_the_visit_ends_with_it():
    bought = 0

    for looks, acts in visits(600):
        told = [event for act in acts for event in act.events]
        added = [event["item_id"] for event in told if event["event_type"] == "add_to_cart"]
        purchases = [event["item_id"] for event in told if event["event_type"] == "purchase"]
        assert not purchases or purchases == added
        if purchases:
            bought += 1
            assert looks[-1].kind is Kind.CART
            assert list(looks[-1].bodies[0]["context"]["cart_item_ids"]) == purchases

    assert bought > 3


def test_events_of_some_visits_go_together_and_none_is_lost_or_told_twice():
    sizes = Counter()

    for _, acts in visits():
        ids = [event["event_id"] for act in acts for event in act.events]
        assert len(set(ids)) == len(ids)
        assert sorted(int(one.rpartition("-")[2]) for one in ids) == list(range(1, len(ids) + 1))
        sizes.update(len(act.events) for act in acts)

    assert max(sizes) >= BUFFER
    assert sizes[1] > 0


def test_a_shopper_who_saw_nothing_tells_nothing_and_goes_elsewhere_or_leaves():
    over = Counter()

    for seed in range(200):
        session = a_session(seed)
        acts = session.sees(session.next(), None)
        over[session.is_over] += 1
        assert acts == []

    assert over[True] > 20
    assert over[False] > 20


def test_a_front_page_asks_for_three_shelves_and_a_search_for_an_order_of_its_hits():
    looks = {look.kind: look for looks, _ in visits() for look in looks}

    assert [body["placement"] for body in looks[Kind.PAGE].bodies] == ["home", "item", "home"]
    assert len(looks[Kind.RANKING].bodies[0]["item_ids"]) == SEARCH_HITS
    assert (looks[Kind.RANKING].path, looks[Kind.HOME].path) == ("/v1/rankings", "/v1/recommendations")


def test_page_views_come_at_the_rate_whatever_becomes_of_them():
    moments = list(islice(poisson(40.0, random.Random(2), 100.0), 8_000))

    gaps = [b - a for a, b in pairwise(moments)]
    assert 8_000 / (moments[-1] - 100.0) == pytest.approx(40, rel=0.05)
    assert moments[0] > 100.0
    assert min(gaps) > 0
    # Poisson: the spread of the gaps is their mean; a metronome's would be nought.
    mean = sum(gaps) / len(gaps)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)


def test_the_next_page_view_is_made_by_who_has_thought_longest_and_else_by_somebody_new():
    numbers = iter(range(10))
    arrivals = Arrivals(lambda: next(numbers))

    first = arrivals.who(0.0)
    second = arrivals.who(0.5)
    arrivals.think(first, until=4.0)
    arrivals.think(second, until=3.0)

    assert arrivals.who(2.9) == 2
    assert arrivals.who(4.1) == second
    assert arrivals.who(4.2) == first
    assert arrivals.who(4.3) == 3
    assert arrivals.n_sessions == 4


def test_who_was_ready_and_not_called_for_a_minute_has_gone():
    numbers = iter(range(10))
    arrivals = Arrivals(lambda: next(numbers))
    arrivals.think(arrivals.who(0.0), until=1.0)

    late = arrivals.who(1.1 + PATIENCE_S)

    assert late == 1
    assert arrivals.n_lost == 1
