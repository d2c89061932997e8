"""The direct reader of Feast's Redis layout as a FeatureReader, against a real Redis; its parity with Feast's own SDK
is held by the feature tests."""

import asyncio
import time

import pytest
import redis.asyncio

from orchestrator.adapters.feast_reader import FeastRedisReader
from orchestrator.adapters.redis_client import connect
from orchestrator.adapters.user_reader import RedisUserReader
from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from orchestrator.settings import load
from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan
from protos.history import history_key, watermark_key
from protos.tutti.v1.feast_value_pb2 import FeastTimestamp, FeastValue
from tests.contract.candidate_source import TIMEOUT_S
from tests.contract.feature_reader import FeatureReaderContract
from tests.support.builders import IMPRESSION, VIEW, a_query, an_event
from tests.support.ports import free_port
from tests.support.stores import an_event_log

pytestmark = pytest.mark.integration

TTL_S = 3600.0
PLAN = ReadPlan(
    "reranking_v1",
    EntityPlan(
        "tutti", "user_id", "STRING", (ViewPlan("taste", TTL_S, (("a", "FLOAT"), ("b", "DOUBLE"), ("c", "STRING"))),)
    ),
    EntityPlan("tutti", "item_id", "STRING", ()),
)


@pytest.fixture
async def raw(redis_url):
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def events(redis_url):
    patient = {"url": redis_url, "event_timeout_ms": 5_000, "connect_timeout_ms": 5_000}
    async with connect(load(environment={}).redis.model_copy(update=patient)) as client:
        yield an_event_log(client)


@pytest.fixture
async def feast(redis_url):
    reader = FeastRedisReader(PLAN, redis_url)
    await reader.start()
    yield reader
    await reader.close()


@pytest.fixture
def reader(feast):
    return RedisUserReader(feast, time.time)


@pytest.fixture
def know(raw):
    async def know(user_id, a, b, c, age_s=0.0):
        values = (FeastValue(float_val=a), FeastValue(double_val=b), FeastValue(string_val=c))
        cells = [value.SerializeToString() for value in values]
        cells.append(FeastTimestamp(seconds=int(time.time() - age_s)).SerializeToString())
        fields = dict(zip(PLAN.user.fields, cells, strict=True))
        await raw.hset(PLAN.user.redis_key(user_id), mapping=fields)

    return know


class TestRedisUserReader(FeatureReaderContract):
    @pytest.fixture
    def fail(self, feast):
        return feast.close


async def test_all_that_is_known_of_a_shopper_comes_in_one_round_trip(feast, reader, know, events, monkeypatch):
    await know("u1", 1.0, 2.0, "gold")
    await events.append([an_event("e1"), an_event("e2", type_code=IMPRESSION)])
    asked = []
    ask = feast._pipeline.ask
    monkeypatch.setattr(feast._pipeline, "ask", lambda *what: asked.append(what) or ask(*what))

    user = await reader.read(a_query(), TIMEOUT_S)

    assert len(asked) == 1
    assert user.history_types.tolist() == [IMPRESSION, VIEW]
    assert user.categorical == ("gold",)
    assert user.watermark == 2


async def test_features_older_than_their_ttl_are_missing(reader, know):
    await know("u1", 1.0, 2.0, "old", age_s=TTL_S + 60)

    user = await reader.read(a_query(), TIMEOUT_S)

    assert user.categorical == ("",)
    assert (user.numeric != user.numeric).all()


async def test_without_a_plan_there_is_still_a_history(redis_url, raw):
    await raw.set(watermark_key("u:u1"), 4)
    feast = FeastRedisReader(None, redis_url)
    await feast.start()

    user = await RedisUserReader(feast, time.time).read(a_query(), TIMEOUT_S)
    await feast.close()

    assert user.watermark == 4
    assert len(user.numeric) == len(user.categorical) == 0


@pytest.mark.parametrize(
    ("key", "command"), [(history_key("u:u1"), "set"), (watermark_key("u:u1"), "lpush"), (watermark_key("u:u1"), "set")]
)
async def test_what_a_foreign_writer_left_has_a_name(reader, raw, key, command):
    await getattr(raw, command)(key, "rubbish")

    with pytest.raises(DependencyError) as failed:
        await reader.read(a_query(), TIMEOUT_S)

    assert failed.value.loss is Loss.INVALID_REPLY


async def test_a_store_that_is_not_there_is_a_loss_at_once():
    feast = FeastRedisReader(PLAN, f"redis://127.0.0.1:{free_port()}/0")
    await feast.start()

    async with asyncio.timeout(1):
        with pytest.raises(DependencyError) as failed:
            await RedisUserReader(feast, time.time).read(a_query(), TIMEOUT_S)
    await feast.close()

    assert failed.value.loss is Loss.UNAVAILABLE


async def test_a_read_that_was_given_up_never_gives_its_answer_to_another(reader, know):
    for n in range(5):
        await know(f"{n}", float(n), 0.0, str(n))

    for turns in range(30):
        abandoned = asyncio.create_task(reader.read(a_query(user_id="0"), TIMEOUT_S))
        for _ in range(turns % 5):
            await asyncio.sleep(0)
        abandoned.cancel()
        await asyncio.wait([abandoned])
        wanted = str(1 + turns % 4)
        assert (await reader.read(a_query(user_id=wanted), TIMEOUT_S)).categorical == (wanted,)
