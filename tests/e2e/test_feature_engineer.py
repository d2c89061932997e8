"""A feature engineer edits one view, runs the ordinary `feast apply`, retrains: the re-ranker uses the feature."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.system import ROOT, environment, running, tutti

pytestmark = pytest.mark.e2e

VIEW = "item_activity.py"
FEATURE = "purchases_3d"
FIELD = f"""
        Field(
            name="{FEATURE}",
            dtype=Float32,
            tags={{"sql": "count(*) FILTER (event_type = 'purchase' AND age_d <= 3)"}},
        ),"""


def test_a_new_field_in_one_view_reaches_the_re_ranker(trained_shop: Path, tmp_path: Path) -> None:
    repo, data = tmp_path / "feature_repo", tmp_path / "shop"
    shutil.copytree(ROOT / "feature_repo", repo, ignore=shutil.ignore_patterns("__pycache__", "$*"))
    shutil.copytree(trained_shop, data, ignore=shutil.ignore_patterns("run", "event_log", "up.log"))
    env = {"TUTTI_FEATURE_REPO": str(repo), "TUTTI_DATA": str(data)}
    before = plan(data)

    view = repo / VIEW
    view.write_text(view.read_text().replace("schema=[", "schema=[" + FIELD, 1))
    feast = Path(sys.executable).with_name("feast")
    subprocess.run([feast, "apply"], cwd=repo, env=environment(ROOT, env), check=True, capture_output=True, timeout=120)
    tutti("train", "--data", str(data), env=env)

    after = plan(data)
    assert FEATURE not in json.dumps(before)
    assert FEATURE in json.dumps(after)
    with running(data, env=env) as system:
        user = json.loads((data / "shoppers.json").read_text())[0]["user_id"]
        slate = system.post("/v1/recommendations", {"placement": "home", "user_id": user, "count": 12}).json()
    assert slate["quality"]["level"] == "full"
    assert slate["model_versions"]["reranking"] == champion(data) != champion(trained_shop)


def champion(data: Path) -> str:
    return json.loads((data / "models" / "reranking" / "aliases.json").read_text())["champion"]


def plan(data: Path) -> dict:
    return json.loads((data / "models" / "reranking" / champion(data) / "read_plan.json").read_text())
