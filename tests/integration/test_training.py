"""The offline run on a small shop, with real Feast: from canonical data to promoted artefacts, twice the same."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from protos import artefacts
from protos import tuned as tuned_file
from protos.tuned import Tuned
from services.content_based import train as content_based
from services.training import admission, dataset, headway, lessons, pipeline, popular, tuned
from services.training.dataset import DatasetUnusable
from services.training.repeatable import repeatable
from services.training.sources import SettingsUnusable, SourceSpec, configured
from tests.integration.conftest import MODELS, SOURCES

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(tiny_shop):
    return tiny_shop.data


@pytest.fixture
def trained(tiny_shop):
    return tiny_shop.trained


def test_a_run_promotes_every_model_and_says_what_it_did(shop, trained):
    assert trained.was_needed
    assert set(trained.versions) == MODELS
    for name in MODELS:
        assert artefacts.load(shop / "models", name).version == trained.versions[name]
    report = json.loads((shop / "models" / "training.json").read_text())
    assert report["versions"] == trained.versions
    assert report["gate"]["admitted"]
    assert {one["model"] for one in report["gate"]["speed"]} == MODELS - {"popular"}
    shoppers = json.loads((shop / "shoppers.json").read_text())
    assert 1 <= len(shoppers) <= 12
    assert set(shoppers[0]) == {"user_id", "label", "events", "last_items"}
    assert not list((shop / "models").glob("*/.staging"))


def test_the_reranker_carries_the_plan_it_was_trained_on(shop, trained):
    manifest = artefacts.load(shop / "models", "reranking").manifest

    assert manifest.features is not None
    assert manifest.features["plan"] in manifest.files
    assert manifest.parameters["sources"] == [source.name for source in SOURCES]


def test_what_is_fitted_on_the_catalogue_alone_is_fitted_once_and_is_what_a_fit_of_now_gives(shop, trained, tmp_path):
    published = artefacts.load(shop / "models", "content_based").manifest

    with repeatable(7):
        fitted = content_based.fit(dataset.load(shop), {}, 7, tmp_path)

    assert published.files == artefacts.hash_files(tmp_path)
    assert published.metrics == fitted.metrics
    assert published.data["events"] == len(dataset.load(shop))
    assert not (shop / "models" / pipeline.UNCHANGED).exists()


def test_a_run_says_how_far_each_step_is(shop, tmp_path):
    for name in ("events.parquet", "items.parquet", "dataset.json"):
        shutil.copy(shop / name, tmp_path / name)
    heard = {}
    step = [""]

    def begins(what):
        step[0] = what

    with headway.heard_by(lambda share: heard.setdefault(step[0], []).append(share)):
        pipeline.train(tmp_path, SOURCES, progress=begins)

    for what, shares in heard.items():
        assert shares == sorted(shares), what
        assert shares[-1] == 1.0, what
    fits = [shares for what, shares in heard.items() if what.startswith(("fitting collab", "training the re-ranker"))]
    assert fits
    assert min(map(len, fits)) > 5


def test_popular_holds_every_item_once(shop, trained):
    arrays = artefacts.load(shop / "models", "popular").arrays(popular.FILE)

    assert sorted(arrays["keys"].tolist()) == list(range(len(arrays["keys"])))
    assert (np.diff(arrays["scores"]) <= 0).all()


def test_a_second_run_finds_nothing_to_do_until_the_sources_change(shop, trained):
    assert not pipeline.train(shop, SOURCES).was_needed
    run = pipeline._Run(shop, SOURCES[:1], 7, print)
    data = dataset.load(shop)
    assert pipeline._still_good(run, pipeline._fingerprint(run, data)) is None


def test_the_same_data_and_seed_give_the_same_versions_elsewhere(shop, trained, tmp_path):
    for name in ("events.parquet", "items.parquet", "dataset.json"):
        shutil.copy(shop / name, tmp_path / name)

    assert pipeline.train(tmp_path, SOURCES).versions == trained.versions


def test_what_was_tuned_is_used_written_down_and_a_reason_to_train_again(shop, trained, tmp_path):
    for name in ("events.parquet", "items.parquet", "dataset.json"):
        shutil.copy(shop / name, tmp_path / name)
    close = {"linear_ridge": 5.0}
    found = Tuned(
        {
            "collaborative_filtering": {"dimensions": 8, "affinity": close},
            "reranking": {"epochs": 2, "affinity": close},
        },
        None,
        {"content_based": 0.05},
        1,
    )
    tuned.write(tmp_path, found, {})

    done = pipeline.train(tmp_path, SOURCES, promote_anyway=True)

    changed = {name for name in MODELS if done.versions[name] != trained.versions[name]}
    assert changed == {"collaborative_filtering", "reranking"}
    used = {name: artefacts.load(tmp_path / "models", name).manifest.parameters for name in changed}
    assert used["collaborative_filtering"]["dimensions"] == 8
    assert used["reranking"]["epochs"] == 2
    assert used["collaborative_filtering"]["affinity"] == used["reranking"]["affinity"] == close
    assert "weights" in used["collaborative_filtering"]
    assert tuned_file.serving(tmp_path) == found
    assert not pipeline.train(tmp_path, SOURCES).was_needed
    tuned.forget(tmp_path)
    run = pipeline._Run(tmp_path, SOURCES, 7, print)
    assert pipeline._still_good(run, pipeline._fingerprint(run, dataset.load(tmp_path))) is None


def test_a_candidate_the_gate_refuses_is_published_and_the_champion_stays(tmp_path, shop, trained):
    data = tmp_path / "shop"
    shutil.copytree(shop, data)
    report = data / "models" / "training.json"
    before = {name: artefacts.load(data / "models", name).version for name in MODELS}
    # The feed broke: a sixth of the history is left, and it ends months ago.
    events = pq.read_table(data / "events.parquet")
    pq.write_table(events.slice(0, events.num_rows // 6), data / "events.parquet")

    refused = pipeline.train(data, SOURCES)

    assert not refused.was_promoted
    reasons = [reason["message"] for reason in refused.report["gate"]["reasons"]]
    assert any("is it an old copy?" in reason for reason in reasons)
    assert {name: artefacts.load(data / "models", name).version for name in MODELS} == before
    assert json.loads(report.read_text())["versions"] == before
    assert artefacts.load(data / "models", "popular", refused.versions["popular"])
    assert json.loads((data / "models" / "candidate.json").read_text())["versions"] == refused.versions

    promoted = admission.promote_candidate(data)

    assert promoted == refused.versions == json.loads(report.read_text())["versions"]
    assert not (data / "models" / "candidate.json").exists()
    assert not pipeline.train(data, SOURCES).was_needed
    assert admission.rollback(data)["popular"] == before["popular"]
    assert json.loads(report.read_text())["versions"] == before


def test_a_folder_without_data_and_a_source_without_folder_are_named(tmp_path):
    with pytest.raises(DatasetUnusable, match=r"no events\.parquet"):
        pipeline.train(tmp_path, SOURCES)
    with pytest.raises(SettingsUnusable, match="trending_nowhere"):
        pipeline.train(tmp_path, [SourceSpec("trending_nowhere")])


def test_sources_are_the_defaults_overlaid_by_name(tmp_path, monkeypatch):
    (tmp_path / "tutti.toml").write_text(
        '[[sources]]\nname = "content_based"\nquota = 7\n[[sources]]\nname = "trending"\n'
    )
    monkeypatch.setenv("TUTTI_CONFIG", str(tmp_path / "tutti.toml"))

    quotas = {spec.name: spec.quota for spec in configured()}

    assert quotas["content_based"] == 7
    assert quotas["trending"] == 100
    assert "collaborative_filtering" in quotas


# Once: it read what another test had trained, and failed whenever the shuffled order put it first.
def test_no_lesson_sees_its_own_window(shop, trained):
    data = dataset.load(shop)
    for window in lessons.windows(data):
        asked = lessons.ask(data, window, 1)
        assert (asked.shoppers.history_ages_s > 0).all()
        home = asked.shoppers.placements == 1
        newest = [
            data.at_us[(data.users == u) & (data.at_us < window.start_us)].max(initial=0) for u in asked.users[home]
        ]
        assert max(newest, default=0) < window.start_us
