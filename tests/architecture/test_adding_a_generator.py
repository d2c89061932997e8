"""One folder in services/ and one [[sources]] entry add a candidate generator: done here, in a copy, for real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.system import ROOT, running, tutti

PACKAGES = ("orchestrator", "services", "protos", "feature_repo")

INIT = (
    '"""Trending: what is wanted more this week than in the weeks before. Knows no shopper."""\n\nROLE = "generator"\n'
)

MODEL = '''"""The trend of an item: decayed events of the last days against those of the last weeks."""

import numpy as np

DAY_S = 86_400.0


def trend(keys, ages_s, n_items):
    """(n_items,) float32: weekly rate over monthly rate, smoothed by one event."""
    week = np.bincount(keys, np.exp2(-ages_s / (7 * DAY_S)), n_items)
    month = np.bincount(keys, np.exp2(-ages_s / (28 * DAY_S)), n_items)
    return (np.sqrt(week) * (week + 1) / (month + 1)).astype(np.float32)
'''

TRAIN = '''"""Fits the trend and writes it down."""

import numpy as np

from services.chassis.model import Fitted
from services.trending.model import trend


def fit(dataset, parameters, seed, out):
    """One score an item; the seed decides nothing."""
    np.save(out / "trend.npy", trend(dataset.keys, dataset.ages_s, dataset.n_items), allow_pickle=False)
    return Fitted(dict(parameters), {})
'''

SERVE = '''"""Serves the trend: the same items for everybody."""

import numpy as np

from protos.arrays import Rows
from services.chassis.model import Candidates


class Trending:
    """A Generator that looks at nobody."""

    def __init__(self, version, scores):
        self.version, self._scores = version, scores
        self._order = np.argsort(-scores, kind="stable").astype(np.int32)

    def generate(self, queries):
        """The most trending items that each query allows."""
        rows = []
        for i, count in enumerate(queries.counts):
            keys = self._order
            if len(queries.within.row(i)):
                keys = keys[np.isin(keys, queries.within.row(i))]
            rows.append(keys[~np.isin(keys, queries.exclude.row(i))][:count])
        found = Rows.of(rows)
        return Candidates(found, self._scores[found.values])


def load(artefact, resources):
    """Open a verified artefact."""
    return Trending(artefact.version, artefact.array("trend.npy"))
'''

ENTRY = '[[sources]]\nname = "trending"\nquota = 50\nweight = 0.5\n'


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The product's packages in a folder of their own, so that a fourth generator can be added to it."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "$*"))
    return tmp_path


@pytest.mark.e2e
def test_one_folder_and_one_entry_add_a_generator(copy: Path, small_shop_data: Path) -> None:
    data = copy / "shop"
    data.mkdir()
    for name in ("events.parquet", "items.parquet", "dataset.json"):
        shutil.copy(small_shop_data / name, data / name)
    folder = copy / "services" / "trending"
    folder.mkdir()
    for name, text in (("__init__", INIT), ("model", MODEL), ("train", TRAIN), ("serve", SERVE)):
        (folder / f"{name}.py").write_text(text)
    (copy / "tutti.toml").write_text(ENTRY)
    env = {"TUTTI_CONFIG": str(copy / "tutti.toml")}

    # A relative path, as `make demo` gives it: once it was taken relative to the feature repository.
    tutti("train", "--data", "shop", root=copy, env=env)
    with running(data, root=copy, env=env) as system:
        user = _somebody(data)
        slate = system.post("/v1/recommendations", {"placement": "home", "user_id": user, "count": 40}).json()
        anonymous = system.post("/v1/recommendations", {"placement": "home", "count": 10}).json()
        names = set(system.processes())

    assert "trending" in names
    assert {source["name"]: source["status"] for source in slate["quality"]["sources"]}["trending"] == "ok"
    assert any("trending" in item["sources"] for item in slate["items"])
    assert slate["quality"]["level"] == "full"
    assert all(item["sources"] == ["trending"] for item in anonymous["items"])


def _somebody(data: Path) -> str:
    return json.loads((data / "shoppers.json").read_text())[0]["user_id"]
