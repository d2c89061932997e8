"""What answers say of items: held as bytes, and always what the catalogue says now."""

import orjson

from orchestrator.adapters.catalogue import MAX_TOUCHED_UP
from orchestrator.adapters.redis_slates import decode
from orchestrator.adapters.redis_slates import encode as stored_as
from orchestrator.core.model import SlateItem, SourceReport
from orchestrator.edge import encode
from orchestrator.edge.encode import ItemWords, slate_body
from protos.catalogue import ItemState
from tests.support.builders import a_query, a_slate, an_entry
from tests.unit.edge.conftest import ShopTwin


def items_of(words, slate, **more):
    return orjson.loads(slate_body(a_query(), slate, words, (), 1.0, **more))["items"]


def test_a_new_price_and_title_are_in_the_next_answer():
    shop = ShopTwin()
    words = ItemWords(shop)
    before = items_of(words, a_slate(4, 2))

    shop.apply([ItemState("item-2", 1, 2, {"title": "Mug, mended", "price": 0.75})])

    after = items_of(words, a_slate(4, 2))
    assert before[1]["properties"]["price"] == 3.5
    assert after[1]["properties"] == {"title": "Mug, mended", "price": 0.75}
    assert after[0] == before[0]


def test_words_say_what_an_encoder_would():
    slate = a_slate(items=(SlateItem(9, 0.125, ("a", "b"), 0.5), SlateItem(0, -1e-9, ()), SlateItem(3, 2.0, ("a",))))
    shop = ShopTwin()

    found = items_of(ItemWords(shop), slate)

    assert found == [
        {
            "id": shop.id_of(item.key),
            "rank": rank,
            "score": item.score,
            "sources": list(item.sources),
            "properties": shop.properties(item.key),
            **({"propensity": item.propensity} if item.propensity < 1 else {}),
        }
        for rank, item in enumerate(slate.items, 1)
    ]


def test_an_empty_slate_is_an_empty_list():
    words = ItemWords(ShopTwin())

    assert items_of(words, a_slate(items=())) == []
    assert items_of(words, a_slate(items=()), ranks={}) == []


def test_no_more_words_are_held_than_are_allowed(monkeypatch):
    monkeypatch.setattr(encode, "MAX_SAID", 3)
    words = ItemWords(ShopTwin())

    found = [items_of(words, a_slate(key))[0]["id"] for key in (0, 1, 2, 3, 4, 0)]

    assert found == ["item-0", "item-1", "item-2", "item-3", "item-4", "item-0"]
    assert repr(words) == "<ItemWords of 3, 0 changes>"


def test_a_stored_slate_is_answered_like_one_that_was_just_made():
    slate = a_slate(
        items=(SlateItem(9, 0.125, ("a", "100%"), 0.5), SlateItem(0, -1e-9, ())),
        sources=(SourceReport("a", "cached", 0.0, 100, 1),),
        removed=(("sold_out", 3),),
        watermark=7,
    )
    words = ItemWords(ShopTwin())

    found = decode(stored_as(an_entry(slate))).slate

    assert slate_body(a_query(), found, words, ("gone",), 1.5) == slate_body(a_query(), slate, words, ("gone",), 1.5)


def test_words_of_other_items_are_kept_when_one_changes():
    shop = ShopTwin()
    words = ItemWords(shop)
    items_of(words, a_slate(4, 2, 1))

    shop.apply([ItemState("item-2", 1, 2, {"title": "Mug, mended"})])
    items_of(words, a_slate(4))

    assert repr(words) == "<ItemWords of 2, 1 changes>"


def test_after_more_changes_than_are_remembered_all_words_are_made_anew():
    shop = ShopTwin()
    words = ItemWords(shop)
    items_of(words, a_slate(4, 2, 1))

    versions = range(1, MAX_TOUCHED_UP + 3)
    shop.apply([ItemState("item-3", version, 3, {"title": f"Mug {version}"}) for version in versions])
    items_of(words, a_slate(4))

    assert repr(words) == f"<ItemWords of 1, {MAX_TOUCHED_UP + 2} changes>"
