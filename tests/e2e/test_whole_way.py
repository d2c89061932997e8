"""The whole way of a request, through every real process: slates, losses, bad input, events, batch."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.system import System, tutti, wait_until

pytestmark = pytest.mark.e2e

NAMES = {"orchestrator", "collaborative_filtering", "content_based", "reranking", "ingestion", "redis"}


def ask(system: System, **body: object) -> dict:
    answer = system.post("/v1/recommendations", {"placement": "home", "count": 12, **body})
    assert answer.status == 200, answer.body
    return answer.json()


@contextmanager
def hung(system: System, user: str, name: str) -> Iterator[None]:
    """Process *name* hangs for a while; afterwards slates are full again, whatever it was."""
    with system.paused(name):
        yield
    wait_until(lambda: ask(system, user_id=user, explain=True)["quality"]["level"] == "full", 10)


def status_of(slate: dict, source: str) -> str:
    return {s["name"]: s["status"] for s in slate["quality"]["sources"]}[source]


def test_every_process_is_listed_under_its_name(system: System) -> None:
    processes = system.processes()

    assert set(processes) == NAMES
    assert all(process["state"] == "ready" and process["pid"] for process in processes.values())


def test_a_known_shopper_gets_a_full_personal_slate(system: System, somebody: str) -> None:
    # explain: computed, whoever asked before.
    body = {"placement": "home", "user_id": somebody, "count": 12, "explain": True}
    answer = system.post("/v1/recommendations", body)
    slate = answer.json()

    assert len(slate["items"]) == 12
    assert [item["rank"] for item in slate["items"]] == list(range(1, 13))
    assert slate["quality"]["level"] == "full"
    assert slate["quality"]["degraded"] == []
    assert {s["name"]: s["status"] for s in slate["quality"]["sources"]} == {
        "collaborative_filtering": "ok",
        "content_based": "ok",
    }
    assert set(slate["model_versions"]) == {"collaborative_filtering", "content_based", "reranking"}
    assert all(item["properties"]["title"] for item in slate["items"])
    assert "server-timing" in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": "nobody-knows-me"},
        {"visitor_id": "a-new-visitor"},
        {"context": {"item_ids": ["no-such-item"]}},
        {"context": {}},
        {"placement": "item", "context": {"item_ids": []}},
        {"placement": "cart", "context": {"cart_item_ids": ["no-such-item"]}},
    ],
)
def test_whoever_asks_gets_a_sensible_slate(system: System, body: dict) -> None:
    slate = ask(system, **body)

    assert len(slate["items"]) == 12
    assert len({item["id"] for item in slate["items"]}) == 12


def test_unknown_items_in_the_context_are_reported_and_ignored(system: System) -> None:
    slate = ask(system, context={"item_ids": ["no-such-item"]}, exclude_item_ids=["nor-this"])

    assert sorted(slate["missing_item_ids"]) == ["no-such-item", "nor-this"]


def test_a_shopper_with_one_event_gets_a_slate_about_it(system: System, an_item: str) -> None:
    visitor = f"v-{uuid.uuid4().hex}"
    view = {"event_id": uuid.uuid4().hex, "event_type": "view", "item_id": an_item, "visitor_id": visitor}

    assert system.post("/v1/events", {"events": [view]}).status == 202
    slate = ask(system, visitor_id=visitor)

    assert slate["quality"]["level"] == "full"
    assert {"collaborative_filtering", "content_based"} & {s for item in slate["items"] for s in item["sources"]}


def test_an_accepted_event_is_reflected_in_the_very_next_slate(system: System, somebody: str, an_item: str) -> None:
    before = ask(system, user_id=somebody)
    remembered = ask(system, user_id=somebody)
    event = {"event_id": uuid.uuid4().hex, "event_type": "view", "item_id": an_item, "user_id": somebody}
    accepted = system.post("/v1/events", {"events": [event]})
    after = ask(system, user_id=somebody)

    assert {s["status"] for s in remembered["quality"]["sources"]} == {"cached"}
    assert accepted.status == 202
    assert after["watermark"] == accepted.json()["watermark"] == before["watermark"] + 1
    assert status_of(after, "collaborative_filtering") == "ok"


def test_events_are_idempotent_by_id(system: System, an_item: str) -> None:
    event = {"event_id": uuid.uuid4().hex, "event_type": "view", "item_id": an_item, "visitor_id": "twice"}

    first = system.post("/v1/events", {"events": [event]}).json()
    second = system.post("/v1/events", {"events": [event]}).json()

    assert (first["accepted"], first["duplicates"]) == (1, 0)
    assert (second["accepted"], second["duplicates"]) == (0, 1)
    assert first["watermark"] == second["watermark"]


def test_accepted_events_reach_the_event_log(system: System, an_item: str) -> None:
    event_id = uuid.uuid4().hex
    event = {"event_id": event_id, "event_type": "purchase", "item_id": an_item, "user_id": "logged", "price": 3.5}
    system.post("/v1/events", {"events": [event]})

    def logged() -> bool:
        parts = (system.data / "event_log").glob("date=*/*.parquet")
        return any(event_id in pq.read_table(part, columns=["event_id"])["event_id"].to_pylist() for part in parts)

    wait_until(logged, 20)


def a_page(system: System, user: str, item: str, **about: object) -> dict:
    shelves = [
        {"placement": "item", "count": 8, "context": {"item_ids": [item]}},
        {"placement": "cart", "count": 6, "context": {"cart_item_ids": [item]}},
        {"placement": "home", "count": 12, "diversity": "low"},
    ]
    answer = system.post("/v1/pages", {"user_id": user, "placements": shelves, **about})
    assert answer.status == 200, answer.body
    page = answer.json()
    assert [len(slate["items"]) for slate in page["slates"]] == [8, 6, 12]
    shown = [one["id"] for slate in page["slates"] for one in slate["items"]]
    assert len(set(shown)) == len(shown)
    return page


def qualities(page: dict) -> list[str]:
    return [slate["quality"]["level"] for slate in page["slates"]]


def test_the_shelves_of_a_page_are_full_and_show_no_item_twice(
    system: System, shoppers: list[str], an_item: str
) -> None:
    page = a_page(system, shoppers[1], an_item, explain=True)

    assert qualities(page) == ["full"] * 3
    assert len({slate["recommendation_id"] for slate in page["slates"]}) == 3
    assert all(one["reason"]["ranks"] for one in page["slates"][2]["items"] if one["sources"] != ["popular"])


def test_a_page_is_remembered_until_the_shopper_does_something(
    system: System, shoppers: list[str], an_item: str
) -> None:
    user = shoppers[1]
    wait_until(lambda: qualities(a_page(system, user, an_item)) == ["full"] * 3, 10)
    wait_until(lambda: all(slate["quality"]["from_cache"] for slate in a_page(system, user, an_item)["slates"]), 10)
    event = {"event_id": uuid.uuid4().hex, "event_type": "view", "item_id": an_item, "user_id": user}
    accepted = system.post("/v1/events", {"events": [event]}).json()

    page = a_page(system, user, an_item)

    assert not any(slate["quality"]["from_cache"] for slate in page["slates"])
    assert {slate["watermark"] for slate in page["slates"]} == {accepted["watermark"]}


def test_a_page_of_which_a_model_hangs_is_full_and_says_what_is_missing(
    system: System, shoppers: list[str], an_item: str
) -> None:
    with hung(system, shoppers[1], "content_based"):
        page = a_page(system, shoppers[1], an_item, explain=True)

    assert all("content_based" in slate["quality"]["degraded"] for slate in page["slates"])


def test_an_item_page_shows_what_is_similar_and_never_the_item_itself(system: System, an_item: str) -> None:
    answer = system.get(f"/v1/items/{an_item}/similar?count=8")

    ids = [item["id"] for item in answer.json()["items"]]
    assert answer.status == 200
    assert len(ids) == 8
    assert an_item not in ids


def test_an_unknown_item_has_no_similar_ones(system: System) -> None:
    answer = system.get("/v1/items/no-such-item/similar")

    assert answer.status == 404
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_a_ranking_is_the_callers_own_list_in_personal_order(system: System, somebody: str, items: list[str]) -> None:
    mine = items[:30]
    answer = system.post("/v1/rankings", {"item_ids": [*mine, "no-such-item"], "user_id": somebody})

    ranked = [item["id"] for item in answer.json()["items"]]
    assert answer.status == 200
    assert sorted(ranked) == sorted(mine)
    assert ranked != mine
    assert answer.json()["missing_item_ids"] == ["no-such-item"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"placement": "home", "count": "12"}, "count"),
        ({"placement": "home", "count": 0}, "count"),
        ({"placement": "home", "count": 1_000_000}, "count"),
        ({"placement": "nowhere"}, "placement"),
        ({"placement": "home", "colour": "red"}, "colour"),
        ({"placement": "home", "filter": {"price_min": -1}}, "price_min"),
        (b'{"placement": "home", "filter": {"price_min": NaN}}', "price_min"),
        (b'{"placement": "home"', "placement"),
        (b'{"placement": "\xff\xfe"}', "placement"),
        (b'{"placement": "home", "user_id": "' + b"x" * 1_000_000 + b'"}', "body"),
    ],
)
def test_bad_input_is_refused_by_naming_the_field(system: System, body: object, field: str) -> None:
    answer = system.post("/v1/recommendations", body)

    problem = answer.json()
    assert 400 <= answer.status < 500
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert problem["status"] == answer.status
    assert field in json.dumps(problem["errors"])


@pytest.mark.parametrize("service", ["collaborative_filtering", "content_based"])
def test_with_one_source_hung_the_others_carry_on_honestly(system: System, somebody: str, service: str) -> None:
    with hung(system, somebody, service):
        slate = ask(system, user_id=somebody, explain=True)

    assert len(slate["items"]) == 12
    assert slate["quality"]["level"] == "partial"
    assert slate["quality"]["degraded"] == [service]
    assert status_of(slate, service) == "timeout"


def test_with_the_re_ranker_hung_the_fused_order_stands(system: System, somebody: str) -> None:
    with hung(system, somebody, "reranking"):
        slate = ask(system, user_id=somebody, explain=True)

    assert len(slate["items"]) == 12
    assert slate["quality"]["level"] == "partial"
    assert slate["quality"]["degraded"] == ["rerank"]


def test_with_redis_hung_everybody_sees_what_is_popular(system: System, somebody: str) -> None:
    with hung(system, somebody, "redis"):
        slate = ask(system, user_id=somebody)

    assert len(slate["items"]) == 12
    assert slate["quality"]["level"] == "popular"
    assert "user" in slate["quality"]["degraded"]


def test_the_page_the_docs_and_the_metrics_answer(system: System) -> None:
    page, docs, metrics = system.get("/"), system.get("/docs"), system.get("/metrics")

    assert (page.status, docs.status, metrics.status) == (200, 200, 200)
    assert b"tutti" in page.body
    assert b"tutti_slates_total" in metrics.body
    assert system.get("/livez").status == 200


def test_batch_slates_come_from_the_same_pipeline(system: System, shoppers: list[str], tmp_path: Path) -> None:
    users, out = tmp_path / "users.parquet", tmp_path / "slates.parquet"
    pq.write_table(pa.table({"user_id": shoppers}), users)

    tutti("recommend", "--data", str(system.data), "--users", str(users), "--k", "20", "--out", str(out))

    rows = pq.read_table(out).to_pylist()
    assert {row["user_id"] for row in rows} == set(shoppers)
    for user in shoppers:
        own = [row for row in rows if row["user_id"] == user]
        assert [row["rank"] for row in own] == list(range(1, 21))
        assert len({row["item_id"] for row in own}) == 20


def test_batch_leaves_out_what_was_seen_when_asked(system: System, shoppers: list[str], tmp_path: Path) -> None:
    users, out = tmp_path / "users.parquet", tmp_path / "slates.parquet"
    pq.write_table(pa.table({"user_id": shoppers}), users)
    events = pq.read_table(system.data / "events.parquet", columns=["user_id", "item_id"]).to_pylist()
    seen = {(event["user_id"], event["item_id"]) for event in events}

    tutti(
        *("recommend", "--data", str(system.data), "--users", str(users)),
        *("--k", "20", "--exclude-seen", "--out", str(out)),
    )

    rows = pq.read_table(out).to_pylist()
    assert rows
    assert not [row for row in rows if (row["user_id"], row["item_id"]) in seen]


def test_batch_asks_for_any_page_row_by_row(
    system: System, shoppers: list[str], items: list[str], tmp_path: Path
) -> None:
    users, out = tmp_path / "users.csv", tmp_path / "slates.parquet"
    rows = [f"{shoppers[0]},item,{items[0]},", f"{shoppers[0]},cart,,{items[1]}|{items[2]}", ",home,,"]
    users.write_text("\n".join(["user_id,placement,context_item_ids,cart_item_ids", *rows]) + "\n")

    tutti("recommend", "--data", str(system.data), "--users", str(users), "--k", "10", "--stages", "--out", str(out))

    table = pq.read_table(out).to_pandas()
    slates = table[table["stage"] == "slate"].groupby("query")["item_id"].agg(list).to_dict()
    assert {number: len(ids) for number, ids in slates.items()} == {0: 10, 1: 10, 2: 10}
    assert items[0] not in slates[0]
    assert not {items[1], items[2]} & set(slates[1])
    assert table[table["query"] == 2]["user_id"].isna().all()
    assert {"fused", "fused:reciprocal_rank", "source:content_based"} <= set(table["stage"])


def test_an_evaluation_judges_what_every_stage_of_the_real_pipeline_answered(
    trained_shop: Path, tmp_path: Path
) -> None:
    data = tmp_path / "shop"
    shutil.copytree(trained_shop, data, ignore=shutil.ignore_patterns("run", "event_log"))

    tutti("evaluate", "--data", str(data), "--split", "test", "--shoppers", "60")

    report = json.loads((data / "evaluation" / "test" / "evaluation.json").read_text())
    stages = {"source:collaborative_filtering", "source:content_based", "fused", "fused:reciprocal_rank", "slate"}
    for task in ("discovery", "rebuy", "newcomers", "item", "cart", "category"):
        assert stages <= set(report["tasks"][task]["methods"]), task
        assert report["tasks"][task]["methods"]["slate"]["ndcg_at_10"] > 0, task
    assert (data / "evaluation" / "test" / "page.html").is_file()
    assert any(cost["stage"] == "asking the pipeline" and cost["peak_mb"] > 100 for cost in report["costs"])
