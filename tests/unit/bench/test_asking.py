"""What is asked."""

import json

import pytest

from orchestrator.edge.schemas import PageRequest
from services.bench import asking
from services.bench.asking import Shopper, as_pages, units
from services.bench.options import BenchUnusable, concurrency_of, kinds_of

SHOPPERS = [Shopper(f"u{i}", tuple(f"i{i}{j}" for j in range(4))) for i in range(200)]
ITEMS = [f"i{n}" for n in range(300)]


def bodies(unit):
    return [json.loads(body) for _, body in unit]


def test_uncached_slates_are_asked_for_everybody_once():
    found = units("uncached", SHOPPERS, ITEMS, 7)

    assert {body["user_id"] for unit in found for body in bodies(unit)} == {one.user_id for one in SHOPPERS}
    assert len(found) == len(SHOPPERS)


def test_cached_slates_are_asked_for_by_few():
    assert len(units("cached", SHOPPERS, ITEMS, 7)) == asking.FEW


def test_the_same_seed_asks_the_same_and_another_does_not():
    once, again, other = (units("ranking", SHOPPERS, ITEMS, seed) for seed in (7, 7, 8))

    assert once == again
    assert once != other


def test_a_ranking_has_a_hundred_items_or_all_there_are():
    many, few = (units("ranking", SHOPPERS, items, 7)[0] for items in (ITEMS, ITEMS[:5]))

    assert len(set(bodies(many)[0]["item_ids"])) == 100
    assert sorted(bodies(few)[0]["item_ids"]) == sorted(ITEMS[:5])


def test_a_page_is_three_shelves_of_one_shopper_around_what_they_looked_at_last():
    page = next(unit for unit in units("page", SHOPPERS, ITEMS, 7) if bodies(unit)[0]["user_id"] == "u3")

    home, item, cart = bodies(page)
    assert [shelf["placement"] for shelf in (home, item, cart)] == ["home", "item", "cart"]
    assert item["context"] == {"item_ids": ["i33"]}
    assert cart["context"] == {"cart_item_ids": ["i31", "i32"]}


def test_a_shopper_of_one_item_has_a_basket_too():
    _, _, cart = bodies(units("page", [Shopper("u", ("a",))], ITEMS, 7)[0])

    assert cart["context"] == {"cart_item_ids": ["a"]}


def test_a_whole_page_asks_for_the_same_in_one_request():
    three = units("page", SHOPPERS, ITEMS, 7)

    ((path, body),) = as_pages(three)[0]

    shelves, page = bodies(three[0]), json.loads(body)
    assert path == "/v1/pages"
    assert [{"user_id": page["user_id"], **shelf} for shelf in page["placements"]] == shelves
    PageRequest.model_validate(page)


def test_kinds_and_concurrency_are_read_in_any_order():
    assert kinds_of("page, cached,page") == ("cached", "page")
    assert concurrency_of("64,1, 8,1") == (1, 8, 64)


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (kinds_of, "cached,warm", "there is no 'warm'; choose from cached, uncached, page, ranking"),
        (kinds_of, " ,", "names none"),
        (concurrency_of, "", "names none"),
        (concurrency_of, "1,0", "found '0', expected whole numbers from 1 to 1024"),
        (concurrency_of, "1,many", "found 'many'"),
    ],
)
def test_what_cannot_be_measured_is_said(read, text, said):
    with pytest.raises(BenchUnusable, match=said.replace("(", r"\(")):
        read(text)
