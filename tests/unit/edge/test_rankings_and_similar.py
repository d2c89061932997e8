"""POST /v1/rankings, GET /v1/items/{item_id}/similar and /v1/items/{item_id}/bought-together."""

import pytest

from orchestrator.core.model import Placement
from orchestrator.edge.answers import SlateAnswer


async def test_a_ranking_is_the_callers_own_list_each_known_item_once(client, pipeline):
    response = await client.post(
        "/v1/rankings", json={"item_ids": ["item-4", "gone", "item-2", "item-4"], "user_id": "u1"}
    )

    body = response.json()
    SlateAnswer.model_validate(body)
    assert [item["id"] for item in body["items"]] == ["item-2", "item-4"]
    assert body["missing_item_ids"] == ["gone"]
    (query,) = pipeline.queries
    assert (query.only_keys, query.count) == ((4, 2), 2)


async def test_a_ranking_of_unknown_items_only_is_empty_and_asks_nobody(client, pipeline):
    response = await client.post("/v1/rankings", json={"item_ids": ["gone"]})

    assert response.status_code == 200
    body = response.json()
    SlateAnswer.model_validate(body)
    assert (body["items"], body["missing_item_ids"]) == ([], ["gone"])
    assert pipeline.queries == []


@pytest.mark.parametrize("item_ids", [[], ["x"] * 501, "item-1", [1], None])
async def test_a_ranking_needs_one_to_five_hundred_ids(client, refused, item_ids):
    name = "item_ids[0]" if item_ids == [1] else "item_ids"
    refused(await client.post("/v1/rankings", json={"item_ids": item_ids}), 422, name)


async def test_similar_asks_for_the_item_page(client, pipeline):
    response = await client.get("/v1/items/item-3/similar?count=4&user_id=u1&visitor_id=v1")

    assert response.status_code == 200
    SlateAnswer.model_validate(response.json())
    (query,) = pipeline.queries
    assert (query.placement, query.context_keys, query.count) == (Placement.ITEM, (3,), 4)
    assert (query.user_id, query.visitor_id) == ("u1", "v1")


async def test_bought_together_asks_for_a_basket_with_this_item_alone(client, pipeline):
    response = await client.get("/v1/items/item-3/bought-together?count=4&user_id=u1&visitor_id=v1")

    assert response.status_code == 200
    SlateAnswer.model_validate(response.json())
    (query,) = pipeline.queries
    assert (query.placement, query.cart_keys, query.context_keys, query.count) == (Placement.CART, (3,), (), 4)
    assert (query.user_id, query.visitor_id) == ("u1", "v1")


async def test_an_id_may_hold_slashes_and_anything_printable(client, pipeline):
    response = await client.get("/v1/items/shelf%2F9%20%3Cb%3E%C3%BC%3C%2Fb%3E/similar")

    assert response.status_code == 200
    assert pipeline.queries[0].context_keys == (9,)


@pytest.mark.parametrize("about", ["similar", "bought-together"])
async def test_an_unknown_subject_is_not_found(client, refused, about):
    document = refused(await client.get(f"/v1/items/gone/{about}"), 404, "item_id")

    assert document["type"] == "/docs#unknown-item"


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("count=0", "count"),
        ("count=101", "count"),
        ("count=ten", "count"),
        ("count=1.5", "count"),
        ("count=99999999999999999999", "count"),
        ("count=", "count"),
        ("count=1&count=2", "count"),
        ("limit=3", "limit"),
        ("user_id=", "user_id"),
        ("user_id=a%00b", "user_id"),
        ("visitor_id=" + "x" * 257, "visitor_id"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(client, refused, query, name):
    refused(await client.get(f"/v1/items/item-3/similar?{query}"), 422, name)
