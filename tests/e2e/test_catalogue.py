"""The catalogue changes while two orchestrators serve it: what one is told, the other shows."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.system import ROOT, System, running, tutti, wait_until

pytestmark = pytest.mark.e2e

WITHIN_S = 20.0
"""The promise is two seconds on a machine of one's own; tests share theirs, and it takes eight there at times."""


@pytest.fixture(scope="module")
def shop(trained_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A shop of its own, since items change, behind two orchestrators."""
    data = tmp_path_factory.mktemp("changing") / "shop"
    shutil.copytree(trained_shop, data, ignore=shutil.ignore_patterns("run"))
    with running(data, ROOT, None, "--workers", "2") as up:
        yield up


@pytest.fixture(scope="module")
def workers(shop: System) -> tuple[str, str]:
    """Where each of the two is reached alone."""
    status = json.loads(tutti("status", "--data", str(shop.data), "--json"))
    one, other = (process["address"] for process in status["processes"] if process["name"] == "orchestrator")
    return one, other


@pytest.fixture(scope="module")
def catalogue(shop: System) -> list[dict]:
    return pq.read_table(shop.data / "items.parquet").to_pylist()


def send(address: str, method: str, path: str, body: object = None) -> tuple[int, dict]:
    """Status and answer. A process that says it is too busy is asked again, as it asks for."""
    found: tuple[int, dict] = (503, {})

    def is_answered() -> bool:
        nonlocal found
        found = sent(address, method, path, body)
        return found[0] != 503

    wait_until(is_answered, WITHIN_S, lambda: str(found))
    return found


def sent(address: str, method: str, path: str, body: object) -> tuple[int, dict]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{address}{path}", data, {"content-type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.loads(reply.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def slate(address: str, **body: object) -> dict:
    status, answer = send(address, "POST", "/v1/recommendations", {"placement": "home", "count": 10, **body})
    assert status == 200, answer
    return answer


def ids(answer: dict) -> list[str]:
    return [item["id"] for item in answer["items"]]


def somebody_who_viewed(address: str, item_id: str) -> str:
    visitor = f"v-{uuid.uuid4().hex}"
    event = {"event_id": uuid.uuid4().hex, "event_type": "view", "item_id": item_id, "visitor_id": visitor}
    assert send(address, "POST", "/v1/events", {"events": [event]})[0] == 202
    return visitor


def document_of(row: dict) -> dict:
    names = ("title", "description", "category", "brand", "price")
    return {name: row[name] for name in names if row.get(name) is not None}


def test_a_new_item_is_proposed_by_the_other_orchestrator_without_training(workers, catalogue) -> None:
    one, other = workers
    like = catalogue[107]
    new = f"new-{uuid.uuid4().hex}"
    # All of it: collaborative filtering, which cannot know the item yet, has the greater say in the order.
    path = f"/v1/items/{urllib.parse.quote(like['item_id'], safe='')}/similar?count=100"

    status, answer = send(one, "PUT", f"/v1/items/{new}", document_of(like) | {"title": f"{like['title']} again"})

    assert status == 201, answer
    wait_until(lambda: new in ids(send(other, "GET", path)[1]), WITHIN_S)
    item = next(item for item in send(other, "GET", path)[1]["items"] if item["id"] == new)
    assert "content_based" in item["sources"]
    assert send(other, "GET", f"/v1/items/{new}")[1]["state"] == "known"
    wait_until(lambda: ids(slate(one, visitor_id=somebody_who_viewed(one, new))), WITHIN_S)

    assert send(one, "DELETE", f"/v1/items/{new}")[0] == 204
    assert new not in ids(send(one, "GET", path)[1])
    wait_until(lambda: new not in ids(send(other, "GET", path)[1]), WITHIN_S)


def test_a_deleted_item_leaves_a_remembered_slate_at_once(workers, catalogue) -> None:
    one, other = workers
    visitor = somebody_who_viewed(one, catalogue[3]["item_id"])
    before = slate(one, visitor_id=visitor)
    wait_until(lambda: slate(one, visitor_id=visitor)["quality"]["from_cache"], WITHIN_S)
    gone = ids(before)[0]

    assert send(one, "DELETE", f"/v1/items/{urllib.parse.quote(gone, safe='')}")[0] == 204

    after = slate(one, visitor_id=visitor)
    assert after["quality"]["from_cache"]
    assert gone not in ids(after)
    assert len(ids(after)) == 10
    wait_until(lambda: gone not in ids(slate(other, visitor_id=visitor)), WITHIN_S)


def test_a_new_price_is_shown_and_filtered_by_in_a_remembered_slate(workers, catalogue) -> None:
    one, other = workers
    visitor = somebody_who_viewed(one, catalogue[5]["item_id"])
    cheap = {"visitor_id": visitor, "filter": {"price_max": 1000}}
    before = slate(one, **cheap)
    wait_until(lambda: slate(one, **cheap)["quality"]["from_cache"], WITHIN_S)
    wait_until(lambda: slate(one, visitor_id=visitor)["quality"]["from_cache"], WITHIN_S)
    dear = ids(before)[0]

    status, answer = send(one, "PATCH", f"/v1/items/{urllib.parse.quote(dear, safe='')}", {"price": 4321.5})

    assert (status, answer["item"]["price"]) == (200, 4321.5)
    after = slate(one, **cheap)
    assert after["quality"]["from_cache"]
    assert dear not in ids(after)
    prices = {item["id"]: item["properties"].get("price") for item in slate(one, visitor_id=visitor)["items"]}
    assert prices.get(dear, 4321.5) == 4321.5
    wait_until(lambda: dear not in ids(slate(other, **cheap)), WITHIN_S)


def test_a_file_of_items_is_imported_from_the_command_line(shop, workers, catalogue, tmp_path) -> None:
    names = [f"bulk-{n}" for n in range(1200)]
    file = tmp_path / "items.ndjson"
    file.write_text(
        "".join(json.dumps(document_of(catalogue[n % 50]) | {"item_id": name}) + "\n" for n, name in enumerate(names))
    )

    said = tutti("items", "import", str(file), "--url", f"http://127.0.0.1:{shop.port}")

    assert "1200 items taken, 0 lines refused" in said
    for address in workers:
        wait_until(lambda at=address: send(at, "GET", f"/v1/items/{names[-1]}")[1].get("state") == "known", 30)
