"""An item that is put while the re-ranker serves has its own features there as soon as they are written."""

import time

import numpy as np
import pytest
import redis

from protos import vocabulary
from protos.catalogue import ITEMS, KEY, PUT, STREAM, VERSION, document_bytes, state_bytes
from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan
from protos.live_features import CHANGES, entry
from protos.tutti.v1.feast_value_pb2 import FeastTimestamp, FeastValue
from services.chassis.model import Resources
from services.chassis.telemetry import ServiceMetrics
from services.reranking import serve, train
from services.training import registry
from services.training.repeatable import repeatable
from tests.support.small_dataset import N_ITEMS, a_dataset

pytestmark = pytest.mark.integration

PLAN = ReadPlan(
    "reranking_v1",
    EntityPlan("tutti", "user_id", "STRING", (ViewPlan("profile", 0.0, (("mean_price", "FLOAT"),)),)),
    EntityPlan("tutti", "item_id", "STRING", (ViewPlan("catalogue", 0.0, (("price", "FLOAT"), ("brand", "STRING"))),)),
)
DATASET = a_dataset()


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def reranking(tmp_path, redis_url):
    """A re-ranker that has learnt nothing and serves 40 items."""
    vocabulary.write(tmp_path / vocabulary.FILE_NAME, DATASET.item_ids)
    staged = registry.staging(tmp_path, "reranking")
    columns = DATASET.items.prices[:, None], DATASET.items.brands[:, None]
    with repeatable(7):
        fitted = train.fit([], train.Serving(PLAN, DATASET, *columns), ["all"], {"hidden": (16,)}, 7, staged)
    artefact = registry.publish(tmp_path, "reranking", "reranker", staged, fitted, DATASET, 7)
    reranking = serve.load(artefact, Resources(tmp_path, redis_url))
    yield reranking
    reranking.close()


def put(client, item_id, key):
    """What the edge and then ingestion do when an item comes."""
    document = document_bytes({"title": "a new one"})
    client.incr(VERSION)
    for op, given in ((PUT, -1), (KEY, key)):
        state = state_bytes(1, given, document)
        client.hset(ITEMS, item_id, state)
        client.xadd(STREAM, {"op": op, "id": item_id, "item": state})


def write_features(client, item_id, price, brand):
    values = FeastValue(float_val=price), FeastValue(string_val=brand), FeastTimestamp(seconds=1_700_000_000)
    cells = [value.SerializeToString() for value in values]
    client.hset(PLAN.item.redis_key(item_id), mapping=dict(zip(PLAN.item.fields, cells, strict=True)))
    client.xadd(CHANGES, entry([item_id]))


def row_of(reranking, key):
    table = reranking._table
    at = table.rows_of(np.array([key]))
    return [*np.nan_to_num(table.numbers[at][0], nan=-1).tolist(), *table.codes[at][0].tolist()]


def until(claim):
    give_up_at = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_a_new_item_has_a_row_without_a_restart_and_its_features_when_they_come(reranking, client):
    nobody = row_of(reranking, 10_000)

    put(client, "new", N_ITEMS + 1)
    until(lambda: len(reranking.matrix) == N_ITEMS + 2)
    assert row_of(reranking, N_ITEMS + 1) == nobody
    write_features(client, "new", float(DATASET.items.prices[5]), DATASET.items.brands[5])

    until(lambda: row_of(reranking, N_ITEMS + 1) != nobody)
    assert row_of(reranking, N_ITEMS + 1) == row_of(reranking, 5)
    assert row_of(reranking, N_ITEMS) == nobody


def test_how_old_the_features_may_be_is_a_metric(reranking):
    metrics = ServiceMetrics("reranking", reranking.version)
    metrics.watch(reranking.gauges())

    age_s = metrics.registry.get_sample_value("tutti_service_item_features_age_seconds")
    assert 0 <= age_s < 30
    assert metrics.registry.get_sample_value("tutti_service_items") == N_ITEMS
