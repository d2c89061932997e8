"""Ingestion on a real Redis: new items get keys once and for ever, and every change lies in the log."""

import asyncio
from contextlib import asynccontextmanager

import pyarrow.dataset as ds
import pytest

from orchestrator.adapters.redis_items import RedisItems
from protos import catalogue_log, vocabulary
from protos.catalogue import STREAM, Wish
from services.chassis.telemetry import start_logging
from services.ingestion import catalogue
from services.ingestion.catalogue import CatalogueFollower, CatalogueLog
from services.ingestion.consume import connect
from services.ingestion.keys import Keys
from tests.support.ingestion import until

pytestmark = pytest.mark.integration


@pytest.fixture
def data(tmp_path):
    vocabulary.write(tmp_path / vocabulary.FILE_NAME, ["mug", "pot"])
    return tmp_path


@asynccontextmanager
async def following(url, data):
    stop, client = asyncio.Event(), connect(url)
    follower = CatalogueFollower(client, Keys(data), CatalogueLog(data), start_logging("test"), flush_s=0.0)
    task = asyncio.create_task(follower.run(stop))
    try:
        yield follower
    finally:
        stop.set()
        await task
        await client.aclose()


def logged(data):
    folder = data / catalogue_log.FOLDER
    files = sorted(folder.glob("part-*.parquet"))
    return ds.dataset(files, format="parquet").to_table().to_pylist() if files else []


async def key_of(items, item_id):
    return (await items.read(item_id)).key


async def test_a_new_item_gets_the_next_key_and_everybody_is_told(redis_url, client, data):
    items = RedisItems(client)
    async with following(redis_url, data) as follower:
        await items.change(
            [Wish("toy", {"title": "Toy"}), Wish("cap", {"title": "Cap"}), Wish("mug", {"title": "M"}, 0)]
        )
        await until(lambda: is_given(items, "cap"))

    assert [await key_of(items, one) for one in ("toy", "cap", "mug")] == [2, 3, 0]
    assert vocabulary.read(data / vocabulary.FILE_NAME) == ["mug", "pot", "toy", "cap"]
    ops = [fields[b"op"] for _, fields in await client.xrange(STREAM)]
    assert ops.count(b"key") == 2
    assert follower.keys_given == 2


async def is_given(items, item_id):
    return (state := await items.read(item_id)) is not None and state.key >= 0


async def test_what_came_while_nobody_followed_gets_its_key_at_the_next_start(redis_url, client, data):
    items = RedisItems(client)
    await items.change([Wish("toy", {"title": "Toy"}), Wish("pot", {"title": "Pot"}), Wish("junk", None)])

    async with following(redis_url, data):
        await until(lambda: is_given(items, "toy"))
        await until(lambda: is_given(items, "pot"))

    assert await key_of(items, "toy") == 2
    assert await key_of(items, "pot") == 1, "known to the file, if not to who put it"
    assert {row["item_id"] for row in logged(data)} == {"toy", "pot"}


async def test_an_item_keeps_its_key_through_every_change(redis_url, client, data):
    items = RedisItems(client)
    async with following(redis_url, data):
        await items.change([Wish("toy", {"title": "Toy"})])
        await until(lambda: is_given(items, "toy"))
        await items.change([Wish("toy", None), Wish("toy", {"title": "Again"})])

    assert await key_of(items, "toy") == 2
    assert vocabulary.read(data / vocabulary.FILE_NAME) == ["mug", "pot", "toy"]


# The vocabulary is written whole, so an import of a million items wrote it every few thousand.
async def test_giving_keys_rests_in_proportion_and_what_waits_is_written_all_the_same(
    redis_url, client, data, monkeypatch
):
    monkeypatch.setattr(catalogue, "KEYS_REST", 1e9)
    items = RedisItems(client)
    async with following(redis_url, data) as follower:
        await items.change([Wish("toy", {"title": "Toy"})])
        await until(lambda: is_given(items, "toy"))
        await items.change([Wish("cap", {"title": "Cap"}), Wish("hat", {"title": "Hat"})])
        await until(lambda: {row["item_id"] for row in logged(data)} == {"toy", "cap", "hat"})
    assert [await key_of(items, one) for one in ("cap", "hat")] == [-1, -1]
    assert follower.keys_given == 1

    async with following(redis_url, data):
        await until(lambda: is_given(items, "hat"))
    assert [await key_of(items, one) for one in ("cap", "hat")] == [3, 4]


async def test_training_and_ingestion_never_give_one_key_twice(data):
    keys = Keys(data)
    assert keys.of(["toy"]) == {"toy": 2}
    with vocabulary.sole_writer(data):
        vocabulary.write(data / vocabulary.FILE_NAME, [*vocabulary.read(data / vocabulary.FILE_NAME), "trained"])

    assert keys.of(["cap", "trained", "toy", "cap"]) == {"cap": 4, "trained": 3, "toy": 2}
    assert vocabulary.read(data / vocabulary.FILE_NAME) == ["mug", "pot", "toy", "trained", "cap"]


async def test_every_change_is_logged_once_over_a_restart(redis_url, client, data):
    items = RedisItems(client)
    async with following(redis_url, data):
        await items.change([Wish("mug", {"title": "Cup"}, 0), Wish("pot", None, 1)])

        async def both():
            return len(logged(data)) == 2

        await until(both)
    await items.change([Wish("mug", {"title": "Beaker"}, 0)])
    async with following(redis_url, data):

        async def third():
            return len(logged(data)) == 3

        await until(third)

    assert [(row["item_id"], row["version"], row["document"]) for row in logged(data)] == [
        ("mug", 1, '{"title":"Cup"}'),
        ("pot", 2, None),
        ("mug", 3, '{"title":"Beaker"}'),
    ]
    assert CatalogueLog(data).position == 3


async def test_a_redis_that_forgot_is_logged_from_the_beginning(redis_url, client, data):
    items = RedisItems(client)
    async with following(redis_url, data):
        await items.change([Wish("mug", {"title": "Cup"}, 0), Wish("pot", {"title": "P"}, 1)])

        async def both():
            return len(logged(data)) == 2

        await until(both)
        await client.flushall()
        await items.change([Wish("mug", {"title": "New"}, 0)])

        async def third():
            return len(logged(data)) == 3

        await until(third)

    assert logged(data)[-1]["document"] == '{"title":"New"}'
