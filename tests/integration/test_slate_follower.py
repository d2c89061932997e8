"""The slate log from the stream to files, on a real Redis that goes away and with a consumer that dies."""

import asyncio
from contextlib import asynccontextmanager

import pyarrow.parquet as pq
import pytest

from protos.slate_log import MADE, SERVED, STREAM
from services.chassis.telemetry import start_logging
from services.ingestion.consume import connect
from services.ingestion.slates import DELIVERIES, GROUP, SlateFiles, SlateFollower
from tests.support.ingestion import until
from tests.support.slate_log import a_made, a_served

pytestmark = pytest.mark.integration


def ids(data, kind="served", column="recommendation_id"):
    paths = sorted((data / "slate_log" / kind).rglob("part-*.parquet"))
    return [one for path in paths for one in pq.ParquetFile(path).read().column(column).to_pylist()]


@asynccontextmanager
async def following(url, data, sink=None, **about):
    stop, client = asyncio.Event(), connect(url)
    follower = SlateFollower(client, sink or SlateFiles(data), "one", start_logging("test"), flush_s=0.0, **about)
    task = asyncio.create_task(follower.run(stop))
    try:
        yield follower
    finally:
        stop.set()
        await task
        await client.aclose()


async def test_slates_of_before_and_after_the_start_are_written_and_leave_the_stream(redis_url, client, tmp_path):
    await client.xadd(STREAM, {MADE: a_made("r1")})
    await client.xadd(STREAM, {SERVED: a_served("r1")})

    async with following(redis_url, tmp_path):
        await client.xadd(STREAM, {SERVED: a_served("r2")})
        await until(lambda: sorted(ids(tmp_path)) == ["r1", "r2"])

    assert ids(tmp_path, "made", "made_as") == ["r1"]
    assert await client.xlen(STREAM) == 0
    assert (await client.xpending(STREAM, GROUP))["pending"] == 0


async def test_what_cannot_be_read_is_counted_and_holds_nothing_back(redis_url, client, tmp_path):
    await client.xadd(STREAM, {SERVED: b"\xff"})
    await client.xadd(STREAM, {"other": b"field"})
    await client.xadd(STREAM, {SERVED: a_served("r1")})

    async with following(redis_url, tmp_path) as follower:
        await until(lambda: ids(tmp_path) == ["r1"])

    assert follower.unreadable == 2
    assert await client.xlen(STREAM) == 0


async def test_what_could_not_be_written_is_written_later(redis_url, client, tmp_path):
    class Full(SlateFiles):
        tries = 0

        def write(self, rows):
            self.tries += 1
            if self.tries == 1:
                raise OSError("no space left on device")
            return super().write(rows)

    await client.xadd(STREAM, {SERVED: a_served("r1")})

    async with following(redis_url, tmp_path, Full(tmp_path)):
        await until(lambda: ids(tmp_path) == ["r1"])

    assert await client.xlen(STREAM) == 0


async def test_what_was_in_hand_at_a_death_is_taken_up_by_the_next_life(redis_url, client, tmp_path):
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await client.xadd(STREAM, {SERVED: a_served("r1")})
    await client.xreadgroup(GROUP, "one", {STREAM: ">"})

    async with following(redis_url, tmp_path):
        await until(lambda: ids(tmp_path) == ["r1"])

    assert await client.xlen(STREAM) == 0


async def test_what_another_consumer_left_is_claimed(redis_url, client, tmp_path):
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await client.xadd(STREAM, {SERVED: a_served("r1")})
    await client.xreadgroup(GROUP, "gone", {STREAM: ">"})

    async with following(redis_url, tmp_path, claim_idle_s=0.0):
        await until(lambda: ids(tmp_path) == ["r1"])

    assert await client.xlen(STREAM) == 0


async def test_a_slate_that_was_given_again_and_again_is_dropped(redis_url, client, tmp_path):
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await client.xadd(STREAM, {SERVED: a_served("killer")})
    for start in (">", *["0"] * DELIVERIES):
        await client.xreadgroup(GROUP, "one", {STREAM: start})
    await client.xadd(STREAM, {SERVED: a_served("r1")})

    async with following(redis_url, tmp_path) as follower:
        await until(lambda: ids(tmp_path) == ["r1"])

    assert follower.unreadable == 1
    assert await client.xlen(STREAM) == 0
