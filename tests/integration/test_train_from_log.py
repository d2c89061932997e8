"""`tutti train --from-log` with real Feast: the log of what was served teaches, and a planted skew is named."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.adapters.slate_messages import made_message, served_message
from orchestrator.core.model import Asked, Reranked
from protos import artefacts
from protos.feast_layout import ReadPlan
from protos.slate_log import MADE, SERVED, made_row, served_row
from services.ingestion.sinks import ParquetLog, parse
from services.ingestion.slates import SlateFiles
from services.training import dataset, features, pipeline, skew
from tests.integration.conftest import SOURCES
from tests.support.builders import a_query, a_slate, a_user, candidates_of, changed

pytestmark = pytest.mark.integration

SLATES, SHOWN, CANDIDATES = 90, 4, 12


@pytest.fixture(scope="module")
def shop(tiny_shop, tmp_path_factory):
    return Path(shutil.copytree(tiny_shop.data, tmp_path_factory.mktemp("log") / "shop"))


def rfc3339(at_us):
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat()


def serve(shop):
    """
    Slates to shoppers of the shop, as the champion would have logged them: features are Feast's, but for the first
    number of the shopper's, which is one more. Everything shown was seen, and one slot of each was clicked.
    """
    champion = artefacts.load(shop / "models", "reranking")
    plan, everything = ReadPlan.load(champion.file("read_plan.json")), dataset.load(shop)
    rng, as_of_us = np.random.default_rng(1), everything.until_us + 1_000_000
    users = [everything.user_ids[i % len(everything.user_ids)] for i in range(SLATES)]
    keys = [rng.permutation(everything.n_items)[:CANDIDATES].tolist() for _ in range(SLATES)]
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(users, SHOWN),
            "item_id": [everything.item_ids[key] for row in keys for key in row[:SHOWN]],
            "event_timestamp": pd.Timestamp(as_of_us, unit="us", tz=UTC),
        }
    )
    joined = features.historical(shop, frame)
    user_numeric, user_words = features.matrices(plan.user, joined.iloc[::SHOWN])
    item_numeric, item_words = features.matrices(plan.item, joined)
    user_numeric[:, 0] = np.nan_to_num(user_numeric[:, 0]) + 1
    served, made = [], []
    for i, user in enumerate(users):
        own, at_s = slice(i * SHOWN, (i + 1) * SHOWN), as_of_us / 1e6 + i
        query = a_query(recommendation_id=f"r{i}", user_id=user, session_id=f"s{i}")
        found = candidates_of({"collaborative_filtering": keys[i], "content_based": keys[i][::-1]})
        shopper = changed(a_user(numeric=user_numeric[i], categorical=user_words[i].tolist()), as_of_us=as_of_us)
        asked = Asked(shopper, found, Reranked(rng.random(len(found)).astype(np.float32), champion.version))
        slate = changed(a_slate(*keys[i][:SHOWN]), made_as=f"r{i}")
        words = [list(row) for row in item_words[own]]
        served.append(served_row(served_message(query, slate, at_s, 0.0)))
        made.append(made_row(made_message(query, asked, slate, at_s, plan.digest, item_numeric[own], words)))
    SlateFiles(shop).write({SERVED: served, MADE: made})
    ParquetLog(shop / "event_log").write([parse(json.dumps(one).encode()) for one in deeds(users, as_of_us)])
    return plan


def deeds(users, as_of_us):
    for i, user in enumerate(users):
        shown = [("impression", position) for position in range(1, SHOWN + 1)]
        for kind, position in [*shown, ("click", 1 + i % SHOWN)]:
            yield {
                "event_id": f"{kind}-{i}-{position}",
                "event_type": kind,
                "user_id": user,
                "timestamp": rfc3339(as_of_us + i * 1_000_000 + 5_000_000),
                "recommendation_id": f"r{i}",
                "position": position,
            }


@pytest.fixture(scope="module")
def trained(shop):
    plan = serve(shop)
    return plan, pipeline.train(shop, SOURCES, with_log=True)


def test_the_log_is_learnt_from_beside_the_usual_lessons_and_the_manifest_says_how_much(shop, trained):
    _, done = trained
    log = done.report["log"]

    assert done.was_needed
    assert (log["slates"], log["lists"], log["is_taught"]) == (SLATES, SLATES, True)
    assert log["left_out"] == {}
    assert log["events"]["by_position"] == SLATES
    assert log["events"]["impressions"] == SLATES * SHOWN
    manifest = artefacts.verify(shop / "models" / "reranking" / done.versions["reranking"]).manifest
    assert manifest.metrics["logged_lists"] == SLATES
    assert manifest.metrics["judged_queries"] > 0


def test_the_planted_skew_is_named_and_nothing_else_is(shop, trained):
    plan, done = trained

    assert done.report["log"]["skewed"] == [plan.user.numeric[0]]
    said = {one["feature"]: one for one in json.loads((shop / skew.FILE).read_text())["features"]}
    assert set(said) == {*plan.user.numeric, *plan.user.categorical, *plan.item.numeric, *plan.item.categorical}
    assert said[plan.user.numeric[0]]["differs"] == 1.0
    assert said[plan.user.numeric[0]]["examples"]


def test_the_same_log_is_not_trained_twice(shop, trained):
    assert not pipeline.train(shop, SOURCES, with_log=True).was_needed
