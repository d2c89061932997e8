"""The slate log on a real Redis: the stream, the item columns read behind the answer, and what is lost."""

import numpy as np
import pytest
import redis.asyncio

from orchestrator.adapters import redis_slate_log
from orchestrator.adapters.redis_pipeline import Address, RedisPipeline
from orchestrator.adapters.redis_slate_log import EFFECT, MAX_WAITING, RedisSlateLog
from orchestrator.telemetry import new_metrics
from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan
from protos.slate_log import MADE, SERVED, STREAM, made_row, served_row
from tests.contract.slate_log import SlateLogContract, asked_about
from tests.support.builders import a_query, a_slate, changed

pytestmark = pytest.mark.integration


@pytest.fixture
async def client(redis_url):
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def pipeline(redis_url):
    pipeline = RedisPipeline(Address.parse(redis_url))
    await pipeline.start()
    yield pipeline
    await pipeline.close()


@pytest.fixture
def metrics():
    return new_metrics()


@pytest.fixture
async def opened(pipeline, metrics):
    """Logs by share, started, and closed in the end."""
    logs = []

    def opened(share, plan=None):
        about = {"share": share, "explored_share": 0.0, "wall": lambda: 1e9, "shop_now": lambda: 1e9}
        log = RedisSlateLog(pipeline, plan, lambda key: f"i{key}", metrics=metrics, **about)
        log.start()
        logs.append(log)
        return log

    opened.logs = logs
    yield opened
    for log in logs:
        await log.close()


def lost_by(metrics):
    return metrics.side_effect_failures.labels(EFFECT)._value.get()


class TestRedisSlateLog(SlateLogContract):
    @pytest.fixture
    def slate_log(self, opened):
        return opened

    @pytest.fixture
    def messages(self, opened, client):
        async def messages():
            for log in opened.logs:
                await log.drain()
            return [pair for _, fields in await client.xrange(STREAM) for pair in fields.items()]

        return messages

    @pytest.fixture
    def lose(self, pipeline):
        return pipeline.close

    @pytest.fixture
    def lost(self, opened, metrics):
        async def lost():
            for log in opened.logs:
                await log.drain()
            return lost_by(metrics)

        return lost


ITEM = EntityPlan("p", "item_id", "STRING", (ViewPlan("catalogue", 0.0, (("price", "DOUBLE"), ("brand", "STRING"))),))
PLAN = ReadPlan("reranking_v1", EntityPlan("p", "user_id", "STRING", ()), ITEM)


async def test_item_columns_are_those_of_the_online_store_and_an_unknown_item_has_none(opened, client):
    log = opened(1.0, PLAN)

    log.made(a_query(), asked_about(5, 9), changed(a_slate(9, 5), made_as="r1"))
    await log.drain()

    ((_, fields),) = await client.xrange(STREAM)
    row = made_row(fields[MADE])
    assert row["feature_digest"] == PLAN.digest
    assert np.isnan(row["item_numeric"]).tolist() == [True, True]
    assert row["item_categorical"] == ["", ""]


async def test_what_finds_the_queue_full_is_lost_and_counted(opened, client, metrics):
    log = opened(1.0)

    for number in range(MAX_WAITING + 3):
        log.served(a_query(recommendation_id=f"r{number}"), a_slate(1))
    await log.drain()

    assert lost_by(metrics) == 3
    assert await client.xlen(STREAM) == MAX_WAITING


async def test_the_stream_is_bounded(opened, client, monkeypatch):
    monkeypatch.setattr(redis_slate_log, "STREAM_MAX_LENGTH", 100)
    log = opened(1.0)

    for number in range(400):
        log.served(a_query(recommendation_id=f"r{number}"), a_slate(1))
    await log.drain()

    # About: whole nodes of the stream are trimmed, of 100 entries by default.
    assert await client.xlen(STREAM) <= 200
    newest = (await client.xrevrange(STREAM, count=1))[0][1]
    assert served_row(newest[SERVED])["recommendation_id"] == "r399"


async def test_what_was_answered_before_the_start_is_nobodys(pipeline, client, metrics):
    about = {"share": 1.0, "explored_share": 0.0, "wall": lambda: 1e9, "shop_now": lambda: 1e9}
    log = RedisSlateLog(pipeline, None, str, metrics=metrics, **about)

    log.served(a_query(), a_slate(1))
    log.start()
    await log.close()

    assert await client.xlen(STREAM) == 0
    assert lost_by(metrics) == 0


async def test_closing_writes_what_waits(opened, client):
    log = opened(1.0)

    log.served(a_query(), a_slate(1))
    await log.close()

    assert await client.xlen(STREAM) == 1


async def test_slates_that_come_together_are_written_together(opened, client, pipeline, monkeypatch):
    log, asked = opened(1.0), []
    ask = pipeline.ask
    monkeypatch.setattr(pipeline, "ask", lambda commands, n: asked.append(n) or ask(commands, n))

    for number in range(10):
        log.served(a_query(recommendation_id=f"r{number}"), a_slate(1))
    await log.drain()

    assert asked == [10]
    assert await client.xlen(STREAM) == 10


async def test_a_slate_that_cannot_be_written_down_is_lost_alone(opened, client, metrics):
    log = opened(1.0)

    log.served(a_query(recommendation_id="r1"), a_slate(1))
    log.served(a_query(recommendation_id="r2"), changed(a_slate(1), watermark=0, level=None))
    log.served(a_query(recommendation_id="r3"), a_slate(1))
    await log.drain()

    assert lost_by(metrics) == 1
    assert await client.xlen(STREAM) == 2
