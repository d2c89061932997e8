"""POST /v1/recommendations: what is asked of the pipeline, what comes back, and what is refused."""

import os

import orjson
import pytest

from orchestrator.core.model import Diversity, ItemFilter, Placement, SlateItem
from orchestrator.edge.answers import SlateAnswer
from orchestrator.edge.encode import ItemWords, reason, slate_body
from tests.support.builders import a_query, a_slate
from tests.unit.edge.conftest import ShopTwin

URL = "/v1/recommendations"
JSON = {"content-type": "application/json"}


async def test_a_placement_alone_is_a_legal_query(client, pipeline):
    response = await client.post(URL, json={"placement": "home"})

    assert response.status_code == 200
    (query,) = pipeline.queries
    assert (query.placement, query.count, query.subject) == (Placement.HOME, 20, None)
    assert pipeline.budgets == [None]


async def test_the_answer_has_exactly_the_documented_shape(client, pipeline):
    body = (await client.post(URL, json={"placement": "home", "count": 2})).json()

    SlateAnswer.model_validate(body)
    assert body["recommendation_id"] == pipeline.queries[0].recommendation_id
    assert body["items"][1] == {
        "id": "item-1",
        "rank": 2,
        "score": 0.5,
        "sources": ["two", "one"],
        "properties": {"title": "Mug 1", "category": "Home > Mugs", "brand": "tutti", "price": 2.5},
    }
    assert body["quality"]["level"] == "partial"
    assert body["quality"]["degraded"] == ["three"]
    assert body["quality"]["sources"][2] == {
        "name": "three",
        "status": "timeout",
        "ms": 40.0,
        "candidates": 0,
        "kept": 0,
    }
    assert body["model_versions"] == {"one": "abc", "two": "def"}
    assert body["watermark"] == 7
    assert body["took_ms"] >= 0


async def test_every_field_reaches_the_query(client, pipeline):
    response = await client.post(
        URL,
        json={
            "placement": "cart",
            "user_id": "u1",
            "visitor_id": "v1",
            "session_id": "s1",
            "context": {
                "item_ids": ["item-1"],
                "cart_item_ids": ["item-3", "item-2", "item-3"],
                "category": "Home",
                "device": "mobile",
            },
            "count": 5,
            "filter": {
                "categories": ["Home"],
                "brands": ["tutti"],
                "price_min": 1,
                "price_max": 9.5,
                "in_stock": True,
                "attributes": {"colour": ["red", "blue"]},
            },
            "exclude_item_ids": ["item-8"],
            "diversity": "high",
            "budget_ms": 50,
        },
    )

    assert response.status_code == 200
    (query,) = pipeline.queries
    assert (query.user_id, query.visitor_id, query.session_id) == ("u1", "v1", "s1")
    assert (query.context_keys, query.cart_keys, query.exclude_keys) == ((1,), (3, 2), (8,))
    assert (query.category, query.device, query.diversity) == ("Home", "mobile", Diversity.HIGH)
    assert query.filter == ItemFilter(("Home",), ("tutti",), 1.0, 9.5, True, (("colour", ("red", "blue")),))
    assert pipeline.budgets == [0.05]


async def test_unknown_items_are_reported_once_each_and_never_an_error(client, pipeline):
    response = await client.post(
        URL,
        json={
            "placement": "item",
            "context": {"item_ids": ["gone", "item-1", "gone"], "cart_item_ids": ["lost"]},
            "exclude_item_ids": ["vanished"],
        },
    )

    assert response.json()["missing_item_ids"] == ["gone", "lost", "vanished"]
    assert pipeline.queries[0].context_keys == (1,)


@pytest.mark.parametrize("placement", ["item", "cart"])
async def test_a_page_without_its_subject_is_fine(client, placement):
    assert (await client.post(URL, json={"placement": placement})).status_code == 200


async def test_explaining_adds_a_reason_with_ranks(client):
    body = (await client.post(URL, json={"placement": "home", "count": 3, "explain": True})).json()

    SlateAnswer.model_validate(body)
    assert body["items"][0]["reason"] == {"code": "several_sources", "ranks": {"one": 3, "fused": 1}, "rules": []}


@pytest.mark.parametrize(
    ("sources", "code"),
    [
        (("popular",), "popular"),
        (("pinned",), "pinned"),
        ((), "listed"),
        (("one",), "one_source"),
        (("one", "two"), "several_sources"),
    ],
)
def test_a_reason_is_a_closed_word(sources, code):
    found = reason(SlateItem(4, 0.0, sources), {"one": {4: 2}, "two": {5: 1}}, ("summer", "fatigue"))

    assert found == {"code": code, "ranks": {"one": 2}, "rules": ["summer", "fatigue"]}


def test_an_explained_slate_tells_of_each_item_which_rules_touched_it():
    slate = a_slate(4, 2, touched=((2, ("summer", "fatigue")),))

    body = orjson.loads(slate_body(a_query(), slate, ItemWords(ShopTwin()), (), 1.0, ranks={}))

    SlateAnswer.model_validate(body)
    assert [item["reason"]["rules"] for item in body["items"]] == [[], ["summer", "fatigue"]]


def test_a_propensity_is_told_where_chance_had_a_say_and_is_certain_otherwise():
    slate = a_slate(items=(SlateItem(4, 1.0, ("s",), 0.975), SlateItem(2, 0.5, ("pinned",))))

    body = orjson.loads(slate_body(a_query(), slate, ItemWords(ShopTwin()), (), 1.0))

    SlateAnswer.model_validate(body)
    assert [item.get("propensity") for item in body["items"]] == [0.975, None]


async def test_server_timing_lists_the_stages_and_says_which_process_answered(client):
    response = await client.post(URL, json={"placement": "home"})

    timing = response.headers["server-timing"]
    assert timing.startswith("total;dur=")
    assert timing.endswith(f'user;dur=1.25, retrieve;dur=40.00, process;desc="{os.getpid()}"')


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "placement"),
        ({"placement": None}, "placement"),
        ({"placement": "checkout"}, "placement"),
        ({"placement": 1}, "placement"),
        ({"placement": "category"}, "context.category"),
        ({"placement": "home", "colour": "red"}, "colour"),
        ({"placement": "home", "count": 0}, "count"),
        ({"placement": "home", "count": -1}, "count"),
        ({"placement": "home", "count": 101}, "count"),
        ({"placement": "home", "count": 10**6}, "count"),
        ({"placement": "home", "count": 10**30}, "count"),
        ({"placement": "home", "count": "12"}, "count"),
        ({"placement": "home", "count": True}, "count"),
        ({"placement": "home", "count": 12.5}, "count"),
        ({"placement": "home", "count": None}, "count"),
        ({"placement": "home", "user_id": 12}, "user_id"),
        ({"placement": "home", "user_id": ""}, "user_id"),
        ({"placement": "home", "user_id": "x" * 257}, "user_id"),
        ({"placement": "home", "user_id": "a\x00b"}, "user_id"),
        ({"placement": "home", "visitor_id": "a\nb"}, "visitor_id"),
        ({"placement": "home", "session_id": "a\x7fb"}, "session_id"),
        ({"placement": "home", "context": []}, "context"),
        ({"placement": "home", "context": {"item_ids": "item-1"}}, "context.item_ids"),
        ({"placement": "home", "context": {"item_ids": ["item-1", 2]}}, "context.item_ids[1]"),
        ({"placement": "home", "context": {"item_ids": ["x"] * 101}}, "context.item_ids"),
        ({"placement": "home", "context": {"pages": 1}}, "context.pages"),
        ({"placement": "home", "filter": {"price_min": -1}}, "filter.price_min"),
        ({"placement": "home", "filter": {"price_max": -0.01}}, "filter.price_max"),
        ({"placement": "home", "filter": {"price_min": 5, "price_max": 4}}, "filter.price_max"),
        ({"placement": "home", "filter": {"price_min": "5"}}, "filter.price_min"),
        ({"placement": "home", "filter": {"in_stock": 1}}, "filter.in_stock"),
        ({"placement": "home", "filter": {"attributes": {"colour": "red"}}}, "filter.attributes.colour"),
        ({"placement": "home", "filter": {"attributes": {"colour": []}}}, "filter.attributes.colour"),
        ({"placement": "home", "diversity": "max"}, "diversity"),
        ({"placement": "home", "explain": "yes"}, "explain"),
        ({"placement": "home", "budget_ms": 4}, "budget_ms"),
        ({"placement": "home", "budget_ms": 10001}, "budget_ms"),
        ([], "body"),
        ("home", "body"),
    ],
)
async def test_a_wrong_field_is_refused_by_name(client, pipeline, refused, body, field):
    refused(await client.post(URL, json=body), 422, field)

    assert pipeline.queries == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b'{"placement":"home"', "placement"),
        (b'{"placement":"home","count":NaN}', "count"),
        (b'{"placement":"home","filter":{"price_min":Infinity}}', "price_min"),
        (b'{"placement":"home","budget_ms":1e999}', "budget_ms"),
        (b'{"placement":"home","user_id":"\xff\xfe"}', "user_id"),
        (b'{"placement":"home","user_id":"\\ud800"}', "user_id"),
        (b'{"placement":"home","user_id":"a\x00"}', "user_id"),
        (b"[" * 5000, "body"),
        (b"\xef\xbb\xbf{}", "body"),
    ],
)
async def test_what_is_not_json_is_refused_with_the_place(client, pipeline, refused, body, field):
    document = refused(await client.post(URL, content=body, headers=JSON), 400, field)

    assert "not JSON" in document["detail"]
    assert pipeline.queries == []


async def test_a_key_given_twice_counts_with_its_last_value(client, pipeline):
    await client.post(URL, content=b'{"placement":"home","count":3,"count":4}', headers=JSON)

    assert pipeline.queries[0].count == 4


async def test_a_typo_is_told_with_the_likely_name(client, refused):
    document = refused(await client.post(URL, json={"placment": "home"}), 422, "placment")

    assert {"field": "placment", "message": "unknown field; did you mean placement?"} in document["errors"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("item_ids", "unknown field here; did you mean context.item_ids?"), ("event_id", "unknown field")],
)
async def test_a_field_that_stands_elsewhere_is_told_where_and_not_suggested_for_itself(client, refused, name, message):
    document = refused(await client.post(URL, json={"placement": "item", name: ["i1"]}), 422, name)

    assert {"field": name, "message": message} in document["errors"]


async def test_all_wrong_fields_are_named_at_once_but_not_thousands(client, refused):
    document = refused(await client.post(URL, json={f"f{i}": 0 for i in range(5000)}), 422)

    assert len(document["errors"]) == 20


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
async def test_another_media_type_is_refused(client, refused, media_type):
    refused(await client.post(URL, content=b'{"placement":"home"}', headers={"content-type": media_type}), 415)


async def test_a_charset_beside_the_media_type_is_fine(client):
    headers = {"content-type": "Application/JSON; charset=utf-8"}

    assert (await client.post(URL, content=b'{"placement":"home"}', headers=headers)).status_code == 200


async def test_a_compressed_body_is_refused(client, refused):
    headers = {**JSON, "content-encoding": "gzip"}

    refused(await client.post(URL, content=b"\x1f\x8b", headers=headers), 415)
