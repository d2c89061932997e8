"""Two processes' catalogues on one real Redis: what one is told the other has; whatever Redis forgets."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis.asyncio

from orchestrator.adapters.catalogue import load
from orchestrator.adapters.catalogue_mirror import CatalogueMirror
from orchestrator.adapters.redis_items import RedisItems
from orchestrator.telemetry import new_metrics
from protos import vocabulary
from protos.catalogue import STREAM, Wish
from tests.support import redis_server
from tests.support.ingestion import until
from tests.support.ports import free_port

pytestmark = pytest.mark.integration


@pytest.fixture
def data(tmp_path):
    vocabulary.write(tmp_path / vocabulary.FILE_NAME, ["mug", "pot"])
    pq.write_table(
        pa.table({"item_id": ["mug", "pot"], "title": ["Mug", "Pot"], "price": [5.0, 9.0]}), tmp_path / "items.parquet"
    )
    return tmp_path


@asynccontextmanager
async def mirrored(url, data):
    catalogue, metrics = load(data, np.asarray([0, 1], np.int32)), new_metrics()
    mirror = CatalogueMirror(catalogue, url, data, metrics)
    await mirror.start()
    try:
        yield catalogue, metrics
    finally:
        await mirror.close()


def reads(metrics, why):
    return metrics.catalogue_reads.labels(why)._value.get()


async def test_a_change_reaches_every_process(redis_url, client, data):
    async with mirrored(redis_url, data) as (one, _), mirrored(redis_url, data) as (other, _):
        await RedisItems(client).change([Wish("mug", {"title": "Mug", "price": 7.0}, key=0), Wish("pot", None, key=1)])

        await until(lambda: one.version_of("pot") == other.version_of("pot") == 2)

    for catalogue in (one, other):
        assert catalogue.properties(0) == {"title": "Mug", "price": 7.0}
        assert catalogue.popular.tolist() == [0]


async def test_who_starts_later_has_what_was_changed_before(redis_url, client, data):
    await RedisItems(client).change([Wish(f"n{n}", {"title": f"{n}"}, key=2 + n) for n in range(700)])

    async with mirrored(redis_url, data) as (catalogue, _):
        assert catalogue.size == 702
        assert catalogue.properties(701) == {"title": "699"}


async def test_who_was_away_while_the_stream_was_trimmed_reads_everything_anew(redis_url, client, data):
    items = RedisItems(client)
    async with mirrored(redis_url, data) as (catalogue, metrics):
        # As if it had been away: the entry of the first change is gone before it can be read.
        async with client.pipeline(transaction=True) as pipe:
            pipe.incr("tutti:catalogue:version")
            pipe.hset("tutti:items", "mug", b'1 0 {"title":"Missed"}')
            await pipe.execute()
        await items.change([Wish("pot", {"title": "Next"}, key=1)])

        await until(lambda: catalogue.version_of("pot") == 2 and catalogue.version_of("mug") == 1)

    assert catalogue.properties(0) == {"title": "Missed"}
    assert reads(metrics, "missed") == 1


async def test_a_redis_that_forgot_everything_leaves_the_data_directory(redis_url, client, data):
    items = RedisItems(client)
    async with mirrored(redis_url, data) as (catalogue, metrics):
        await items.change([Wish("mug", {"title": "Cup"}, key=0), Wish("toy", {"title": "Toy"}, key=2)])
        await until(lambda: catalogue.size == 3)

        await client.flushall()
        await until(lambda: not catalogue.changed())
        assert catalogue.properties(0) == {"title": "Mug", "price": 5.0}
        assert catalogue.document("toy") is None
        assert reads(metrics, "forgotten") == 1

        await items.change([Wish("mug", {"title": "Beaker"}, key=0)])
        await until(lambda: catalogue.version_of("mug") == 1)
    assert catalogue.properties(0) == {"title": "Beaker"}


async def test_entries_and_items_that_are_not_ours_are_told_and_passed_over(redis_url, client, data):
    await client.hset("tutti:items", "mug", "nonsense")
    async with mirrored(redis_url, data) as (catalogue, _):
        await client.xadd(STREAM, {"some": "thing"})
        await RedisItems(client).change([Wish("pot", {"title": "Pan"}, key=1)])

        await until(lambda: catalogue.version_of("pot") == 1)

    assert catalogue.properties(0)["title"] == "Mug"


async def test_without_redis_the_catalogue_is_the_data_directorys_until_one_comes(data):
    port = free_port()
    async with mirrored(f"redis://127.0.0.1:{port}/0", data) as (catalogue, metrics):
        assert catalogue.popular.tolist() == [0, 1]
        assert reads(metrics, "start") == 0


async def test_changes_go_on_when_redis_comes_back(data):
    with redis_server.running() as first:
        async with mirrored(first, data) as (catalogue, _):
            one = redis.asyncio.Redis.from_url(first)
            await one.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await RedisItems(one).change([Wish("mug", {"title": "Cup"}, key=0)])

            await until(lambda: catalogue.version_of("mug") == 1)
            await one.aclose()


@pytest.mark.parametrize("turns", range(24))
async def test_it_ends_whatever_it_is_doing(redis_url, data, turns):
    """At three of the first twelve turns a cancelled redis-py command goes on as if nothing were, on Python 3.11."""
    mirror = CatalogueMirror(load(data, np.asarray([0, 1], np.int32)), redis_url, data, new_metrics())
    await mirror.start()
    for _ in range(turns):
        await asyncio.sleep(0)

    closing = asyncio.create_task(mirror.close())
    ended, _ = await asyncio.wait({closing}, timeout=5)
    closing.cancel()
    assert ended
