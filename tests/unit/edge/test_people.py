"""Identities, erasure and export at the edge: what goes in, what comes out, and what a sick store means."""

import pytest

from orchestrator.adapters.memory import MemoryEvents
from orchestrator.core.model import Loss
from orchestrator.edge.answers import ErasedAnswer, MergeAnswer, UserAnswer, VisitorAnswer
from tests.contract.slate_cache import entry_of
from tests.support.builders import IMPRESSION, PURCHASE, an_event

AT_US = 1_772_366_400_000_000


@pytest.fixture
def store(running):
    return running.people.store


@pytest.fixture
async def erika(running, store):
    """A user with all there can be."""
    running.people.features["erika"] = {"taste__a": 1.5, "taste__list": ("x",), "taste__raw": b"\x01"}
    events = [
        an_event("e1", subject="u:erika", key=1, type_code=PURCHASE, at_us=AT_US),
        an_event("e2", subject="u:erika", key=99, type_code=IMPRESSION, at_us=AT_US),
    ]
    await MemoryEvents(store=store).append(events)
    await running.people.merge("browser", "erika")
    store.slates["u:erika"] = {"f": entry_of(2, 99)}
    return "erika"


async def test_a_log_in_gives_the_visitors_history_to_the_user(client, store):
    await MemoryEvents(store=store).append([an_event("e1", subject="v:v-81", key=1)])

    response = await client.post("/v1/identities:merge", json={"visitor_id": "v-81", "user_id": "12583"})

    assert response.status_code == 200
    MergeAnswer.model_validate(response.json())
    assert response.json() == {"is_new": True, "moved": 1, "watermark": 2}
    assert [event.key for event in store.histories["u:12583"]] == [1]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"visitor_id": "v"}, "user_id"),
        ({"user_id": "u"}, "visitor_id"),
        ({"visitor_id": "", "user_id": "u"}, "visitor_id"),
        ({"visitor_id": "v", "user_id": 5}, "user_id"),
        ({"visitor_id": "v\n", "user_id": "u"}, "visitor_id"),
        ({"visitor_id": "v", "user_id": "u", "force": True}, "force"),
        ([], "body"),
    ],
)
async def test_a_merge_names_both(client, refused, store, body, name):
    refused(await client.post("/v1/identities:merge", json=body), 422, name)

    assert store.identities == {}


async def test_a_user_is_shown_whole_and_in_the_shops_own_words(client, erika):
    response = await client.get("/v1/users/erika")

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    UserAnswer.model_validate(body)
    assert body.pop("exported_at").endswith("Z")
    assert body == {
        "user_id": "erika",
        "features": {"taste__a": 1.5, "taste__list": ["x"], "taste__raw": "01"},
        "history": [{"item_id": "item-1", "event_type": "purchase", "timestamp": "2026-03-01T12:00:00.000000Z"}],
        # An item that came after this process's catalogue.
        "shown": [{"item_id": None, "event_type": "impression", "timestamp": "2026-03-01T12:00:00.000000Z"}],
        "watermark": 3,
        "visitor_ids": ["browser"],
        "merged_into": None,
        "slates": [{"made_at": "1970-01-01T00:00:00.000000Z", "item_ids": ["item-2", None]}],
    }


async def test_a_visitor_is_shown_with_the_user_they_became(client, erika):
    body = (await client.get("/v1/visitors/browser")).json()

    VisitorAnswer.model_validate(body)
    assert (body["visitor_id"], body["merged_into"], body["history"]) == ("browser", "erika", [])


async def test_somebody_unknown_is_an_empty_answer(client):
    body = (await client.get("/v1/users/nobody")).json()

    assert (body["features"], body["history"], body["watermark"]) == ({}, [], 0)


async def test_an_erasure_says_what_is_gone_and_what_follows(client, erika, store):
    response = await client.delete("/v1/users/erika")

    assert response.status_code == 202
    body = response.json()
    ErasedAnswer.model_validate(body)
    assert body["erased"] == {
        "features": 1,
        "history": 1,
        "shown": 1,
        "slates": 1,
        "watermark": 3,
        "identities": 1,
    }
    assert body["later"] == ["event_stream", "event_log", "training_data"]
    assert store.redactions == [("erika", ("browser",))]
    again = (await client.delete("/v1/users/erika")).json()
    assert set(again["erased"].values()) == {0}


async def test_a_visitor_can_be_erased_too(client, store):
    await MemoryEvents(store=store).append([an_event("e1", subject="v:v1")])

    assert (await client.delete("/v1/visitors/v1")).json()["erased"]["history"] == 1
    assert store.redactions == [("", ("v1",))]


@pytest.mark.parametrize("odd", ["a/b", "a b", "é", "%", "..%2f", "a:b?c#d"])
async def test_an_id_may_hold_what_a_path_must_quote(client, store, odd):
    from urllib.parse import quote

    assert (await client.get(f"/v1/users/{quote(odd, safe='')}")).json()["user_id"] == odd


@pytest.mark.parametrize("odd", ["%0a", "x" * 257, "%7f"])
@pytest.mark.parametrize(("kind", "name"), [("users", "user_id"), ("visitors", "visitor_id")])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_id_that_cannot_be_is_named(client, refused, store, method, kind, name, odd):
    refused(await client.request(method, f"/v1/{kind}/{odd}"), 422, name)

    assert store.redactions == []


async def test_a_store_that_does_not_answer_is_said_so(client, running, refused):
    running.people.fail_with = Loss.UNAVAILABLE

    for response in (
        await client.post("/v1/identities:merge", json={"visitor_id": "v", "user_id": "u"}),
        await client.get("/v1/users/u"),
        await client.delete("/v1/users/u"),
        await client.delete("/v1/visitors/v"),
    ):
        document = refused(response, 503)
        assert document["type"] == "/docs#people-unavailable"
        assert response.headers["retry-after"] == "1"
