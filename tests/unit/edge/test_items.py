"""The shop's items over HTTP: read, put, patch, delete."""

import asyncio

import pytest

from orchestrator.adapters.memory import MemoryItems
from orchestrator.core.model import Loss
from orchestrator.edge import answers
from protos.catalogue import ItemState, Outcome, Verdict, Wish

URL = "/v1/items/item-3"


@pytest.fixture
def items(running) -> MemoryItems:
    return running.items


async def test_an_item_is_what_the_data_directory_says_until_it_is_changed(client):
    answer = await client.get(URL)

    assert answer.status_code == 200
    assert answer.headers["etag"] == '"0"'
    assert answer.json() == {
        "item_id": "item-3",
        "version": 0,
        "state": "known",
        "item": {"title": "Mug 3", "category": "Home > Mugs", "brand": "tutti", "price": 4.5},
    }


async def test_an_item_is_put_whole(client, running, items):
    answer = await client.put(URL, json={"title": "Cup", "price": 2.5, "attributes": {"size": 3, "hot": True}})

    assert answer.status_code == 200
    assert answer.json()["item"] == {"title": "Cup", "price": 2.5, "attributes": {"size": 3, "hot": True}}
    assert answer.json()["version"] == 1
    assert running.catalogue.properties(3) == {"title": "Cup", "price": 2.5}
    assert items.held["item-3"].key == 3


async def test_a_new_item_is_created_and_waits_for_its_key(client, running):
    answer = await client.put("/v1/items/shelf/1 ü", json={"title": "New"})

    assert answer.status_code == 201
    assert answer.json() == {"item_id": "shelf/1 ü", "version": 1, "state": "waiting", "item": {"title": "New"}}
    running.catalogue.apply([ItemState("shelf/1 ü", 1, 10, {"title": "New"})])
    assert (await client.get("/v1/items/shelf/1 ü")).json()["state"] == "known"


async def test_a_patch_changes_what_it_names_and_null_removes(client):
    await client.put(URL, json={"title": "Cup", "price": 2.5, "brand": "Alba", "attributes": {"size": 3, "hot": True}})

    answer = await client.patch(URL, json={"price": 9, "brand": None, "attributes": {"hot": None, "colour": "red"}})

    assert answer.status_code == 200
    assert answer.json()["item"] == {"title": "Cup", "price": 9, "attributes": {"size": 3, "colour": "red"}}


async def test_of_patches_at_the_same_time_none_is_lost(client, items):
    fields = [{"price": 1.0}, {"brand": "Alba"}, {"in_stock": False}, {"category": "Toys"}, {"description": "d"}]

    answers = await asyncio.gather(*(client.patch(URL, json=field) for field in fields))

    assert {answer.status_code for answer in answers} == {200}
    assert items.held["item-3"].document == {"title": "Mug 3"} | {k: v for one in fields for k, v in one.items()}
    assert items.held["item-3"].version == 5


async def test_a_patch_is_merged_into_what_another_process_made_of_the_item(client, running, items):
    # This process has not heard of it yet.
    await items.change([Wish("item-3", {"title": "Cup", "brand": "Brix"}, key=3)])

    answer = await client.patch(URL, json={"price": 1.0})

    assert answer.json()["item"] == {"title": "Cup", "brand": "Brix", "price": 1.0}
    assert running.catalogue.version_of("item-3") == 2


async def test_a_patch_of_what_another_process_took_in_a_moment_ago(client, items):
    await items.change([Wish("new", {"title": "New"})])

    assert (await client.patch("/v1/items/new", json={"price": 1.0})).json()["item"] == {"title": "New", "price": 1.0}
    assert (await client.get("/v1/items/new")).json()["version"] == 2


async def test_a_patch_after_redis_forgot_the_item_builds_on_what_is_known_here(client, running, items):
    running.catalogue.apply([ItemState("item-3", 7, 3, {"title": "Cup"})])

    answer = await client.patch(URL, json={"price": 1.0})

    assert answer.status_code == 200
    assert items.held["item-3"].document == {"title": "Cup", "price": 1.0}


async def test_a_patch_that_is_always_too_late_gives_up(client, running, refused, monkeypatch):
    async def always_another(self, wishes):
        return [Outcome(Verdict.STALE, ItemState("item-3", 99, 3, {"title": "Cup"}))]

    monkeypatch.setattr(MemoryItems, "change", always_another)

    refused(await client.patch(URL, json={"price": 1.0}), 503)


async def test_a_deleted_item_is_gone_at_once_and_can_be_deleted_again(client, running, items, refused):
    for _ in range(2):
        answer = await client.delete(URL)
        assert (answer.status_code, answer.content) == (204, b"")

    assert not running.catalogue.is_listed(3)
    refused(await client.get(URL), 404, "item_id")
    refused(await client.patch(URL, json={"price": 1}), 404, "item_id")
    refused(await client.get(f"{URL}/similar"), 404, "item_id")
    assert items.version == 1
    assert (await client.delete("/v1/items/never-heard-of")).status_code == 204
    assert items.version == 1


async def test_a_deleted_item_is_missing_from_a_ranking(client):
    await client.delete(URL)

    answer = await client.post("/v1/rankings", json={"item_ids": ["item-1", "item-3"]})

    assert answer.json()["missing_item_ids"] == ["item-3"]
    assert [item["id"] for item in answer.json()["items"]] == ["item-1"]


async def test_a_deleted_item_comes_back_when_it_is_put(client, running):
    await client.delete(URL)

    assert (await client.put(URL, json={"title": "Again"})).status_code == 201

    assert running.catalogue.key_of("item-3") == 3
    assert 3 in running.catalogue.popular.tolist()


@pytest.mark.parametrize(
    ("method", "body", "field"),
    [
        ("put", {}, "title"),
        ("put", {"title": ""}, "title"),
        ("put", {"title": "x", "price": -1}, "price"),
        ("put", {"title": "x", "price": "5"}, "price"),
        ("put", {"title": "x", "in_stock": "yes"}, "in_stock"),
        ("put", {"title": "x", "attributes": {"a": [1]}}, "attributes.a.bool"),
        ("put", {"title": "x", "stock": 3}, "stock"),
        ("put", {"title": "x", "item_id": "y"}, "item_id"),
        ("put", [], "body"),
        ("patch", {"title": None}, "title"),
        ("patch", {"price": -1}, "price"),
    ],
)
async def test_a_field_that_cannot_be_is_named(client, items, refused, method, body, field):
    document = refused(await client.request(method, URL, json=body), 422)

    assert any(error["field"].startswith(field.split(".bool")[0]) for error in document["errors"]), document
    assert items.version == 0


async def test_answers_are_as_documented(client):
    for answer in (await client.get(URL), await client.put("/v1/items/new", json={"title": "N"})):
        answers.ItemAnswer.model_validate_json(answer.content)


async def test_another_method_is_a_problem_that_names_those_there_are(client, refused):
    document = refused(await client.post(URL, json={}), 405)

    assert all(method in document["detail"] for method in ("GET", "PUT", "PATCH", "DELETE"))


async def test_an_id_that_cannot_be_is_named(client, refused):
    refused(await client.put(f"/v1/items/{'x' * 257}", json={"title": "x"}), 422, "item_id")


async def test_an_unknown_item_is_not_found(client, refused):
    refused(await client.get("/v1/items/never"), 404, "item_id")
    refused(await client.patch("/v1/items/never", json={"price": 1}), 404, "item_id")


async def test_without_the_store_items_can_be_read_and_not_changed(client, running, items, refused):
    items.fail_with = Loss.UNAVAILABLE

    assert (await client.get(URL)).status_code == 200
    for answer in (
        await client.put(URL, json={"title": "x"}),
        await client.patch(URL, json={}),
        await client.delete(URL),
    ):
        refused(answer, 503)
        assert answer.headers["retry-after"] == "1"
    assert running.catalogue.n_changes == 0
