"""What real processes served, with what it was made of and what became of it, is in files that training can join."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from services.training import dataset, slate_log
from services.training.attribution import attribute
from tests.support.system import System, running, wait_until

pytestmark = pytest.mark.e2e

WRITTEN_WITHIN_S = 90
"""Ingestion writes slates every 30 s; the test machine may be shared."""


@pytest.fixture(scope="module")
def logging_system(trained_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of its own that logs every slate."""
    data = tmp_path_factory.mktemp("logging") / "shop"
    shutil.copytree(trained_shop, data, ignore=shutil.ignore_patterns("run", "event_log", "slate_log"))
    with running(data, env={"TUTTI_LOG__SLATES_SHARE": "1"}) as up:
        yield up


def shelf(system: System, user: str) -> dict:
    answer = system.post("/v1/recommendations", {"placement": "home", "count": 8, "user_id": user, "session_id": "s"})
    assert answer.status == 200, answer.body
    return answer.json()


def deed(kind: str, user: str, slate: dict, rank: int) -> dict:
    item = slate["items"][rank - 1]["id"]
    named = {"recommendation_id": slate["recommendation_id"], "position": rank, "session_id": "s"}
    return {
        "event_id": uuid.uuid4().hex,
        "event_type": kind,
        "item_id": item,
        "user_id": user,
        "session_id": "s",
    } | named


def test_what_was_served_meets_what_it_was_made_of_and_what_became_of_it(
    logging_system: System, shoppers: list[str]
) -> None:
    first = {user: shelf(logging_system, user) for user in shoppers}
    again = {user: shelf(logging_system, user) for user in shoppers}
    events = [deed("impression", user, slate, rank) for user, slate in first.items() for rank in (1, 2, 3)]
    events += [deed("click", user, slate, 2) for user, slate in first.items()]
    assert logging_system.post("/v1/events", {"events": events}).status == 202

    data, everything = logging_system.data, dataset.load(logging_system.data)
    wait_until(lambda: len(slate_log.served(data).slates) == 2 * len(shoppers), WRITTEN_WITHIN_S)
    wait_until(lambda: list((data / "event_log").rglob("part-*.parquet")), WRITTEN_WITHIN_S)

    served, made = slate_log.served(data), slate_log.made(data)
    by_id = dict(zip(served.slates.ids, range(len(served.slates)), strict=True))
    for user in shoppers:
        row, later = by_id[first[user]["recommendation_id"]], by_id[again[user]["recommendation_id"]]
        shown = [everything.item_ids[key] for key in served.slates.slots.row(row)]
        assert shown == [item["id"] for item in first[user]["items"]]
        assert served.slates.subjects[row] == f"u:{user}"
        assert served.made_as[row] == first[user]["recommendation_id"]
        # Remembered, or made anew because the cache was not filled yet: the log says which.
        assert served.made_as[later] in (served.made_as[row], again[user]["recommendation_id"])
        of = made[served.made_as[row]]
        assert set(served.slates.slots.row(row).tolist()) <= set(of.item_keys.tolist())
        assert of.version == first[user]["model_versions"]["reranking"]
        assert of.as_of_us > 0
        assert np.isfinite(of.queries.user_numeric).any()
        assert np.isfinite(of.item_numeric).any(1).all(), "every item has columns in the online store"
    key_of = {item: key for key, item in enumerate(everything.item_ids)}
    outcomes = attribute(served.slates, slate_log.events(data, key_of, 0))
    assert outcomes.counts["impressions"] == 3 * len(shoppers)
    assert outcomes.counts["by_position"] == len(shoppers)
    assert outcomes.shown.sum() == 3 * len(shoppers)
