"""The consumer on a real Redis; it goes away, comes back, loses everything, and nothing else is lost."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import grpc
import pytest
import redis.asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.telemetry import start_logging
from services.ingestion.consume import DEAD, GROUP, STREAM, Consumer, Rhythm, connect, events_in_redis
from services.ingestion.sinks import ParquetLog
from tests.support.ingestion import QUICK, logged_ids, until
from tests.support.ports import free_port

pytestmark = pytest.mark.integration


async def add(client, *names):
    for name in names:
        event = {"event_id": name, "event_type": "view", "timestamp": "2026-03-01T10:00:00Z", "user_id": "u"}
        await client.xadd(STREAM, {"event": json.dumps(event)})


@asynccontextmanager
async def consuming(redis_url, data, name="one", rhythm=QUICK, sink=None):
    stop, client = asyncio.Event(), connect(redis_url)
    log = start_logging("test")
    stream = events_in_redis(client, name, log, rhythm)
    consumer = Consumer(client, stream, sink or ParquetLog(data / "event_log"), log, rhythm=rhythm)
    task = asyncio.create_task(consumer.run(stop))
    try:
        yield consumer, task
    finally:
        stop.set()
        await task
        await client.aclose()


def launch(*command, stdout=subprocess.DEVNULL):
    return subprocess.Popen(command, stdout=stdout)


async def pending(client):
    return (await client.xpending(STREAM, GROUP))["pending"]


async def test_events_from_before_and_after_the_start_are_written_once_and_acknowledged(redis_url, client, tmp_path):
    await add(client, "a", "b")

    async with consuming(redis_url, tmp_path):
        await add(client, "c")
        await until(lambda: len(logged_ids(tmp_path)) == 3)

    assert logged_ids(tmp_path) == ["a", "b", "c"]
    assert await pending(client) == 0


async def test_poison_goes_to_the_dead_letters_with_its_reason_and_holds_nothing_back(redis_url, client, tmp_path):
    await add(client, "a")
    await client.xadd(STREAM, {"event": "{"})
    await client.xadd(STREAM, {"other": "field"})
    await add(client, "b")

    async with consuming(redis_url, tmp_path):
        await until(lambda: len(logged_ids(tmp_path)) == 2)

    letters = [fields for _, fields in await client.xrange(DEAD)]
    assert len(letters) == 2
    assert letters[0][b"event"] == b"{"
    assert all(b"not JSON" in letter[b"reason"] for letter in letters)
    assert await pending(client) == 0


async def test_what_was_in_hand_when_a_consumer_died_is_taken_up_by_its_next_life(redis_url, client, tmp_path):
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await add(client, "a", "b")
    await client.xreadgroup(GROUP, "one", {STREAM: ">"})

    async with consuming(redis_url, tmp_path, rhythm=Rhythm(flush_s=0.02, block_s=0.02)):
        await until(lambda: len(logged_ids(tmp_path)) == 2)

    assert await pending(client) == 0


async def test_what_another_consumer_left_is_claimed(redis_url, client, tmp_path):
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await add(client, "a")
    await client.xreadgroup(GROUP, "gone", {STREAM: ">"})

    async with consuming(redis_url, tmp_path):
        await until(lambda: logged_ids(tmp_path) == ["a"])

    assert await pending(client) == 0


async def test_an_entry_that_was_delivered_again_and_again_is_buried(redis_url, client, tmp_path):
    await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await add(client, "killer")
    await client.xreadgroup(GROUP, "one", {STREAM: ">"})
    for _ in range(QUICK.deliveries):
        await client.xreadgroup(GROUP, "one", {STREAM: "0"})

    async with consuming(redis_url, tmp_path):

        async def letters_of():
            return await client.xrange(DEAD)

        letters = await until(letters_of)

    assert b"delivered more than" in letters[0][1][b"reason"]
    assert logged_ids(tmp_path) == []
    assert await pending(client) == 0


async def test_the_group_is_made_again_when_redis_has_lost_everything(redis_url, client, tmp_path):
    async with consuming(redis_url, tmp_path):
        await add(client, "a")
        await until(lambda: logged_ids(tmp_path) == ["a"])

        await client.flushall()
        await add(client, "b")
        await until(lambda: logged_ids(tmp_path) == ["a", "b"])


async def test_a_full_disk_keeps_events_until_it_has_room(redis_url, client, tmp_path):
    class Flaky(ParquetLog):
        attempts = 0

        def write(self, events):
            self.attempts += 1
            if self.attempts < 4:
                raise OSError("no space left on device")
            return super().write(events)

    await add(client, "a")
    async with consuming(redis_url, tmp_path, sink=Flaky(tmp_path / "event_log")):
        await until(lambda: logged_ids(tmp_path) == ["a"])

    assert logged_ids(tmp_path) == ["a"]
    assert await pending(client) == 0


async def test_the_process_survives_redis_going_away_and_finishes_what_it_has_on_sigterm(tmp_path):
    from orchestrator.supervisor.redis_server import command, find_binary

    port, address = free_port(), f"127.0.0.1:{free_port()}"
    server_command = [*command(find_binary(), tmp_path), "--port", str(port)]
    url = f"redis://127.0.0.1:{port}/0"
    server = launch(*server_command)
    arguments = ["--data", str(tmp_path), "--address", address, "--redis", url]
    process = launch(sys.executable, "-m", "services.ingestion", *arguments, stdout=subprocess.PIPE)
    client = redis.asyncio.Redis.from_url(url)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def is_serving():
                try:
                    answer = await health.Check(health_pb2.HealthCheckRequest())
                except grpc.aio.AioRpcError:
                    return None
                return answer.status == health_pb2.HealthCheckResponse.SERVING

            async def is_away():
                return await is_serving() is False

            await until(is_serving)
            await add(client, "a")
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            await until(is_away)

            server = launch(*server_command)
            await until(is_serving)
            await add(client, "b")

            async def has_both():
                pending_now = await client.xpending(STREAM, GROUP)
                return pending_now["pending"] >= 1 or "b" in logged_ids(tmp_path)

            await until(has_both)
            process.terminate()
            process.communicate(timeout=10)
    finally:
        process.kill()
        server.kill()
        server.wait()
        await client.aclose()

    assert process.returncode == 0
    # "a" was written less than a second before the kill: everysec may have lost it, then it is not in the log either.
    assert "b" in logged_ids(tmp_path)
