"""A shop with 0, 10, 100 and 1,000 events is trained, served and seeded; every stage gives what it has."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import redis

from orchestrator.cli import what_helps
from protos import artefacts, needs
from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis.model import GenerateQueries, Resources, Shoppers
from services.ingestion.seed import seed
from services.training import dataset, pipeline, popular
from services.training.sources import service
from tests.integration.conftest import MODELS, SOURCES

pytestmark = pytest.mark.integration

SIZES = (0, 10, 100, 1_000)


@pytest.fixture(scope="module")
def shops(tiny_data, tmp_path_factory):
    """The first events of one shop, trained."""
    events = pq.read_table(tiny_data / "events.parquet").sort_by("timestamp")
    found = {}
    for size in SIZES:
        data = tmp_path_factory.mktemp(f"shop{size}")
        pq.write_table(events.slice(0, size), data / "events.parquet")
        for name in ("items.parquet", "dataset.json"):
            shutil.copy(tiny_data / name, data / name)
        pipeline.train(data, SOURCES)
        found[size] = data
    return found


def model(data, name):
    return service(name, "serve").load(artefacts.load(data / "models", name), Resources(data))


def looking_at(key, history=()):
    """One shopper on the page of item *key*, who touched the items of *history* a moment ago."""
    n = len(history)
    shoppers = Shoppers(
        Rows.of([np.array(history, np.int32)]),
        np.full(n, common_pb2.EVENT_TYPE_VIEW, np.uint8),
        np.ones(n, np.float32),
        Rows.of([np.array([key], np.int32)]),
        np.full(1, common_pb2.PLACEMENT_ITEM, np.uint8),
    )
    return GenerateQueries(np.full(1, 20, np.int32), shoppers, Rows.of([np.array([key], np.int32)]), Rows.empty(1))


@pytest.mark.parametrize("size", SIZES)
def test_every_model_is_trained_however_young_the_shop(shops, size):
    assert {name for name in MODELS if artefacts.load(shops[size] / "models", name).version} == MODELS


@pytest.mark.parametrize("size", SIZES)
def test_a_young_shop_has_a_full_page_and_item_pages_from_the_first_day(shops, size):
    keys = artefacts.load(shops[size] / "models", "popular").arrays(popular.FILE)["keys"]
    similar = model(shops[size], "content_based").generate(looking_at(0))

    assert sorted(keys.tolist()) == list(range(80))
    assert len(similar.rows.values) == 20
    assert 0 not in similar.rows.values


def test_the_first_page_of_a_new_shop_shows_every_shelf(shops):
    keys = artefacts.load(shops[0] / "models", "popular").arrays(popular.FILE)["keys"]
    categories = np.array(dataset.load(shops[0]).items.categories)
    shelves = len(set(categories.tolist()))

    assert shelves > 1
    assert len(set(categories[keys[:shelves]].tolist())) == shelves


@pytest.mark.parametrize("size", SIZES)
def test_collaborative_filtering_says_nothing_before_it_has_heard_something(shops, size):
    said = model(shops[size], "collaborative_filtering").generate(looking_at(0, history=(1, 2)))

    assert np.isfinite(said.scores).all()
    if size == 0:
        assert not len(said.rows.values)


def test_a_shop_without_events_repeats_the_fused_order_and_says_what_it_waits_for(shops):
    metrics = artefacts.load(shops[0] / "models", "reranking").manifest.metrics
    said = what_helps.lines(shops[0])

    assert needs.of(metrics)[0].has == 0
    assert said[0] == "trained from 0 events:"
    assert [line.split(":")[0].strip() for line in said[1:]] == [
        "collaborative_filtering",
        "content_based",
        "popular",
        "reranking",
    ]
    assert "content_based: helps" in said[2]
    assert all("silent" in said[i] for i in (1, 3, 4))
    report = json.loads((shops[0] / "models" / "training.json").read_text())
    assert any("no shopper to ask" in note for note in report["gate"]["notes"])


def test_training_a_shop_without_events_again_finds_nothing_to_do(shops):
    assert not pipeline.train(shops[0], SOURCES).was_needed


@pytest.mark.parametrize("size", [0, 10])
def test_a_young_shop_can_be_seeded(shops, size, redis_url):
    assert seed(shops[size], redis_url)
    assert not seed(shops[size], redis_url)

    with redis.Redis.from_url(redis_url) as client:
        assert bool(list(client.scan_iter("tutti:history:*"))) == (size > 0)
