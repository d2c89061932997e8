"""What every request gets, whatever it asks: id, limits, timing, counting, problem documents, pages."""

import asyncio
import re

import httpx
import orjson
import pytest

from orchestrator.edge.app import create_app
from orchestrator.edge.middleware import DRAIN_BYTES
from orchestrator.edge.openapi import CALLS
from orchestrator.edge.pages import FILES
from orchestrator.edge.problems import Kind
from orchestrator.telemetry import metrics

URL = "/v1/recommendations"
JSON = {"content-type": "application/json"}


def counted(route, status_class):
    return metrics.requests.labels(route, status_class)._value.get()


async def test_the_callers_request_id_is_echoed(client):
    response = await client.get("/livez", headers={"x-request-id": "order-17/a"})

    assert response.headers["x-request-id"] == "order-17/a"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "é".encode("latin-1"), "<script>"])
async def test_an_unusable_request_id_is_replaced(client, bad):
    response = await client.get("/livez", headers={"x-request-id": bad})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


async def test_a_body_that_announces_too_much_is_refused_unparsed(client, pipeline, refused):
    document = refused(await client.post(URL, content=b"x" * 1_000_000, headers=JSON), 413)

    assert "262144" in document["detail"]
    assert pipeline.queries == []


async def test_a_body_that_never_says_its_length_is_refused_while_it_streams(client, refused):
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b"x" * 65536

    response = await client.post(URL, content=chunks(), headers=JSON)

    refused(response, 413)
    assert response.headers["connection"] == "close"
    # Nothing of it is kept; so much is read on, so that a client that still sends gets to read the answer.
    assert sent <= 262_144 + DRAIN_BYTES + 2 * 65536


async def test_a_body_at_the_limit_is_read(client, settings):
    body = orjson.dumps({"placement": "home"})

    response = await client.post(URL, content=body.ljust(settings.edge.max_body_bytes), headers=JSON)

    assert response.status_code == 200


async def test_an_unknown_address_is_a_problem(client, refused):
    before = counted("unmatched", "4xx")

    refused(await client.get("/v2/nothing"), 404)
    refused(await client.post("/v1/recommendations/", json={}), 404)

    assert counted("unmatched", "4xx") == before + 2


async def test_another_method_is_a_problem_that_names_the_right_one(client, refused):
    response = await client.get(URL)

    refused(response, 405)
    assert response.headers["allow"] == "POST"


async def test_a_bug_is_a_problem_without_insides_and_is_logged(client, pipeline, refused, monkeypatch):
    logged = []
    monkeypatch.setattr(
        "orchestrator.edge.middleware.log.exception", lambda *a, **k: logged.append((a, k)), raising=False
    )
    pipeline.error = RuntimeError("secret password")
    before = counted(URL, "5xx")

    response = await client.post(URL, json={"placement": "home"}, headers={"x-request-id": "r-9"})

    document = refused(response, 500)
    assert "secret" not in response.text
    assert document["request_id"] == "r-9"
    assert [fields["request_id"] for _, fields in logged] == ["r-9"]
    assert counted(URL, "5xx") == before + 1


async def test_requests_are_counted_by_route_and_nothing_stays_in_flight(client):
    before = counted("/v1/items/{item_id:path}/similar", "2xx")

    await client.get("/v1/items/item-1/similar")
    await client.get("/v1/items/item-2/similar")

    assert counted("/v1/items/{item_id:path}/similar", "2xx") == before + 2
    assert metrics.requests_in_flight._value.get() == 0


async def test_ready_says_how_the_dependencies_are(client):
    response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json() == {"status": "ready", "checks": {"popular": "ok", "redis": "unavailable"}}


async def test_a_draining_process_is_alive_and_not_ready(client, running, refused):
    running.is_draining = True

    refused(await client.get("/readyz"), 503)
    assert (await client.get("/livez")).status_code == 200


async def test_not_ready_is_a_problem_with_the_checks(client, running, refused):
    running.is_ready = False

    document = refused(await client.get("/readyz"), 503, "redis")

    assert document["checks"] == {"popular": "ok", "redis": "unavailable"}
    assert (await client.get("/livez")).status_code == 200


async def test_before_the_start_everything_but_livez_says_not_ready(settings, refused):
    app = create_app(settings)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        refused(await client.get("/readyz"), 503)
        refused(await client.post(URL, json={"placement": "home"}), 503)
        assert (await client.get("/livez")).status_code == 200


async def test_checks_that_hang_do_not_hang_the_probe(client, running, monkeypatch):
    monkeypatch.setattr("orchestrator.edge.operations.CHECKS_WITHIN_S", 0.001)
    monkeypatch.setattr(type(running), "checks", lambda self: asyncio.Event().wait())

    response = await client.get("/readyz")

    assert response.status_code == 200
    assert "took longer" in response.json()["checks"]["checks"]


async def test_a_caller_who_leaves_is_counted_and_answered_nothing(settings, running):
    app = create_app(settings)
    app.state.running = running
    sent = []
    before = counted(URL, "none")

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": URL, "query_string": b"", "root_path": ""}
    await app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send)

    assert sent == []
    assert counted(URL, "none") == before + 1


async def test_metrics_are_prometheus_text(client):
    await client.get("/livez")

    text = (await client.get("/metrics")).text

    assert 'tutti_requests_total{route="/livez",status_class="2xx"}' in text
    assert "process_cpu_seconds_total" in text


async def test_every_example_of_the_api_document_is_a_legal_call(client):
    document = (await client.get("/openapi.json")).json()

    asked = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                response = await client.request(method, path, json=example["value"])
                assert str(response.status_code) in operation["responses"], response.text
                assert response.is_success, response.text
                asked += 1
    assert asked >= 6


async def test_every_address_is_in_the_api_document_or_is_a_page(client, settings):
    documented = (await client.get("/openapi.json")).json()["paths"]
    app = create_app(settings)

    addresses = {path.replace(":path", "") for path in app.user_middleware[0].kwargs["labels"].values()}

    assert {"/v1/recommendations", "/v1/events", "/livez"} <= addresses
    assert addresses - documented.keys() == {*FILES, "/storefront/shoppers", "/openapi.json"}
    assert all(method in documented[path] for path, method in CALLS)


async def test_metrics_know_every_address_by_its_route(client):
    before = counted("/openapi.json", "2xx"), counted(URL, "4xx")

    await client.get("/openapi.json")
    await client.get(URL)

    assert (counted("/openapi.json", "2xx"), counted(URL, "4xx")) == (before[0] + 1, before[1] + 1)


async def test_the_api_document_resolves_its_references_and_tells_this_servers_limits(client, settings):
    text = (await client.get("/openapi.json")).text
    document = orjson.loads(text)
    schemas = document["components"]["schemas"]

    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= schemas.keys()
    assert schemas["RecommendationRequest"]["properties"]["count"]["maximum"] == settings.edge.max_count


@pytest.mark.parametrize("address", list(FILES))
async def test_a_page_loads_nothing_from_elsewhere(client, address):
    response = await client.get(address)

    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["'](https?:)?//|@import|url\(["']?(https?:)?//""", response.text)
    assert not re.search(
        r"<script>|<style| style=| on[a-z]+=|innerHTML|insertAdjacentHTML|document\.write", response.text
    )


async def test_an_unchanged_page_is_not_sent_again(client):
    tag = (await client.get("/")).headers["etag"]

    response = await client.get("/", headers={"if-none-match": tag})

    assert (response.status_code, response.content) == (304, b"")


async def test_every_problem_kind_has_a_paragraph_in_the_docs(client):
    text = (await client.get("/docs")).text

    assert all(f'id="{kind.slug}"' in text for kind in Kind)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, []), (b'[{"user_id":"u1"}]', [{"user_id": "u1"}]), (b"not json", []), (b"{}", [])],
)
async def test_sample_shoppers_are_what_training_wrote_or_none(client, tmp_path, content, expected):
    if content is not None:
        (tmp_path / "shoppers.json").write_bytes(content)

    assert (await client.get("/storefront/shoppers")).json() == expected
