"""The short way of hot calls: the same answers as the long one, past FastAPI's layers."""

import httpx
import orjson
import pytest

from orchestrator.edge.exchange import IDS_AT_ONCE, new_id

CALLS = [
    ("/v1/recommendations", {"placement": "home", "count": 3}),
    ("/v1/recommendations", {"placement": "nowhere", "count": 0}),
    ("/v1/recommendations", {"placement": "item", "context": {"item_ids": ["gone"]}}),
    ("/v1/rankings", {"item_ids": ["item-3", "gone", "item-1"]}),
    ("/v1/rankings", {}),
    ("/v1/pages", {"placements": [{"placement": "home", "count": 2}, {"placement": "cart", "count": 1}]}),
    ("/v1/pages", {"placements": []}),
]

DRAWN = ("recommendation_id", "request_id", "took_ms")


def without_chance(body):
    kept = {name: value for name, value in body.items() if name not in DRAWN}
    return kept | {"slates": [without_chance(slate) for slate in kept.get("slates", [])]}


@pytest.fixture
async def mounted(client, settings):
    """The same application below a path of somebody's: its calls go through the router."""
    transport = httpx.ASGITransport(client._transport.app, root_path="/shop")
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as through_the_router:
        yield through_the_router


@pytest.mark.parametrize(("address", "document"), CALLS)
async def test_both_ways_answer_the_same(client, mounted, address, document):
    short, long = await client.post(address, json=document), await mounted.post(f"/shop{address}", json=document)

    assert short.status_code == long.status_code
    assert without_chance(short.json()) == without_chance(long.json())
    assert short.headers.keys() == long.headers.keys()
    assert short.headers["content-type"] == long.headers["content-type"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"placement": "home"', b"\xff", b"[]"])
async def test_both_ways_refuse_the_same(client, mounted, content, refused):
    headers = {"content-type": "application/json"}

    short = await client.post("/v1/recommendations", content=content, headers=headers)
    long = await mounted.post("/shop/v1/recommendations", content=content, headers=headers)

    refused(short, long.status_code)
    assert without_chance(short.json()) == without_chance(long.json())


async def test_a_body_in_pieces_is_one_body(client):
    async def pieces():
        for byte in orjson.dumps({"placement": "home", "count": 2}):
            yield bytes([byte])

    response = await client.post(
        "/v1/recommendations", content=pieces(), headers={"content-type": "Application/JSON; charset=utf-8"}
    )

    assert len(response.json()["items"]) == 2


async def test_the_short_way_does_not_touch_the_router(client, monkeypatch):
    app = client._transport.app
    monkeypatch.setattr(app.router, "routes", [])

    assert (await client.post("/v1/recommendations", json={"placement": "home"})).status_code == 200
    assert (await client.get("/v1/recommendations")).status_code == 404


def test_ids_are_of_32_hex_digits_and_no_two_alike():
    ids = [new_id() for _ in range(3 * IDS_AT_ONCE)]

    assert len(set(ids)) == len(ids)
    assert {len(one) for one in ids} == {32}
    assert all(int(one, 16) >= 0 for one in ids)
