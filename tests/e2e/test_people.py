"""A guest logs in, is shown what is held of them, and is forgotten: through every real process and every file."""

from __future__ import annotations

import uuid

import pyarrow.parquet as pq
import pytest

from protos import redactions
from tests.support.system import System, wait_until

pytestmark = pytest.mark.e2e

WRITTEN_WITHIN_S = 30
"""Ingestion writes every 5 s and looks for erased people every second; the test machine may be shared."""


def visit(system: System, items: list[str], **who: str) -> int:
    events = [
        {"event_id": uuid.uuid4().hex, "event_type": "add_to_cart", "item_id": item, "session_id": "s", **who}
        for item in items
    ]
    answer = system.post("/v1/events", {"events": events})
    assert answer.status == 202, answer.body
    return answer.json()["watermark"]


def shelf(system: System, **who: str) -> dict:
    answer = system.post("/v1/recommendations", {"placement": "home", "count": 12, **who})
    assert answer.status == 200, answer.body
    return answer.json()


def people_in_the_log(system: System) -> set[str]:
    parts = (system.data / "event_log").glob("date=*/*.parquet")
    tables = [pq.ParquetFile(part).read(columns=["user_id", "visitor_id"]) for part in parts]
    return {one for table in tables for column in table.columns for one in column.to_pylist() if one is not None}


def test_a_log_in_keeps_the_sessions_taste_and_a_log_out_does_not_show_it(system: System, items: list[str]) -> None:
    visitor, user = f"guest-{uuid.uuid4().hex}", f"user-{uuid.uuid4().hex}"
    seen = visit(system, items[:3], visitor_id=visitor)
    assert shelf(system, visitor_id=visitor)["watermark"] == seen == 3

    merged = system.post("/v1/identities:merge", {"visitor_id": visitor, "user_id": user}).json()

    assert (merged["is_new"], merged["moved"]) == (True, 3)
    logged_in = shelf(system, user_id=user, visitor_id=visitor)
    assert logged_in["watermark"] == merged["watermark"] >= seen
    assert logged_in["quality"]["level"] == "full"
    logged_out = shelf(system, visitor_id=visitor)
    assert logged_out["watermark"] >= seen, "the number never goes back"
    assert {source for item in logged_out["items"] for source in item["sources"]} == {"popular"}

    late = visit(system, items[3:4], visitor_id=visitor)

    now = shelf(system, user_id=user)["watermark"]
    assert now == merged["watermark"] + 1
    assert now >= late
    held = system.get(f"/v1/users/{user}").json()
    assert [entry["item_id"] for entry in held["history"]] == [items[3], *items[2::-1]]
    assert held["visitor_ids"] == [visitor]


def test_an_erased_person_is_in_no_answer_and_in_no_file(system: System, items: list[str]) -> None:
    visitor, user = f"guest-{uuid.uuid4().hex}", f"user-{uuid.uuid4().hex}"
    visit(system, items[:2], visitor_id=visitor)
    system.post("/v1/identities:merge", {"visitor_id": visitor, "user_id": user})
    visit(system, items[2:4], user_id=user)
    wait_until(lambda: {visitor, user} <= people_in_the_log(system), WRITTEN_WITHIN_S)

    answer = system.delete(f"/v1/users/{user}")

    assert answer.status == 202
    assert answer.json()["erased"]["history"] == 4
    held = system.get(f"/v1/users/{user}").json()
    assert (held["history"], held["watermark"], held["visitor_ids"], held["slates"]) == ([], 0, [], [])
    assert system.get(f"/v1/visitors/{visitor}").json()["merged_into"] is None
    wait_until(lambda: not {visitor, user} & people_in_the_log(system), WRITTEN_WITHIN_S)
    wait_until(lambda: user in redactions.read(system.data).of_users([user]), WRITTEN_WITHIN_S)
    again = system.delete(f"/v1/users/{user}").json()
    assert set(again["erased"].values()) == {0}


def test_a_system_as_it_is_started_keeps_what_it_accepted(system: System) -> None:
    assert system.get("/readyz").json()["checks"]["events"] == "ok"
