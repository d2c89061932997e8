"""
Ingestion dies at every step between reading and acknowledging, erasing and counting, and begins again: the log has each
event, once for who reads by event_id, and features are the SQL over everything.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest

from protos import feast_values
from protos.feast_layout import EntityPlan, ViewPlan
from protos.history import REDACTIONS
from protos.live_features import AGAIN, POSITION
from services.chassis.telemetry import start_logging
from services.ingestion import steps
from services.ingestion.consume import DEAD, GROUP, STREAM, Consumer, connect, events_in_redis
from services.ingestion.features import FeatureFollower
from services.ingestion.redact import Redactor
from services.ingestion.sinks import ParquetLog
from services.ingestion.tails import RedisTail
from services.training import live_views
from tests.support.ingestion import QUICK, Died, logged_ids
from tests.support.ports import free_port
from tests.support.small_shop import tastes, write_shop
from tests.unit.ingestion.test_known_events import VIEWS, an_event, everything

pytestmark = pytest.mark.integration

EVENTS = [an_event(n, f"u{n % 5}", f"i{n % 7}", "purchase" if n % 3 else "view", n) for n in range(20)]
ERIKAS = [an_event(100, "erika", "hers", "view", 30), an_event(101, "erika", "hers", "purchase", 31)]
PLANS = {
    view.name: EntityPlan(
        "tutti", view.key, "STRING", (ViewPlan(view.name, 0.0, tuple((f.name, f.dtype) for f in view.fields)),)
    )
    for view in VIEWS
}


@pytest.fixture
async def shop(tmp_path, client):
    """A shop with events in the stream, poison among them, and an erasure that waits."""
    data = write_shop(tmp_path / "shop", tastes(users=6, items=8, days=120, each=6))
    (data / "features").mkdir()
    live_views.save(data, "tutti", VIEWS)
    for event in [*EVENTS[:10], *ERIKAS, *EVENTS[10:]]:
        columns = {n: v.isoformat() if isinstance(v, datetime) else v for n, v in event.columns.items()}
        last = await client.xadd(STREAM, {"event": json.dumps(columns)})
    await client.xadd(STREAM, {"event": "{"})
    order = {"users": "erika", "visitors": "", "until": last, "at_ms": int(time.time() * 1000)}
    await client.xadd(REDACTIONS, order)
    return data


async def one_life(redis_url, data, step):
    """All that an ingestion process does with events, until *step* ends it or everything is done."""
    stop, log = asyncio.Event(), start_logging("test")
    clients = [connect(redis_url), connect(redis_url)]
    redactor = Redactor(clients[0], STREAM, GROUP, DEAD, data, log, step)
    stream = events_in_redis(clients[0], "one", log, QUICK)
    written = ParquetLog(data / "event_log")
    consumer = Consumer(clients[0], stream, written, log, rhythm=QUICK, redactor=redactor, step=step)
    tail = RedisTail(clients[1], STREAM, GROUP)
    follower = FeatureFollower(clients[1], data, tail, log, every_s=0.01, look_every_s=0.01, step=step)
    try:
        async with asyncio.TaskGroup() as group, asyncio.timeout(30):
            group.create_task(consumer.run(stop))
            group.create_task(follower.run(stop))
            while not await is_done(clients[0]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            stop.set()
    finally:
        for one in clients:
            await one.aclose()


async def is_done(client):
    """Everything acknowledged, erased and counted, and nothing of Erika's left in the store or to be done about her."""
    if await client.xlen(REDACTIONS) or not await client.exists(STREAM) or await client.exists(AGAIN):
        return False
    groups = await client.xinfo_groups(STREAM)
    left = [PLANS["of_user"].redis_key("erika"), PLANS["of_item"].redis_key("hers")]
    if not groups or groups[0]["pending"] or await client.exists(*left):
        return False
    newest = await client.xrevrange(STREAM, count=1)
    return groups[0]["last-delivered-id"] == newest[0][0] == await client.get(POSITION)


async def assert_nothing_was_lost_or_doubled(client, data):
    expected = {event.columns["event_id"] for event in EVENTS}
    assert set(logged_ids(data)) == expected
    letters = {fields[b"entry"] for _, fields in await client.xrange(DEAD)}
    assert len(letters) == 1
    for view, ids in (("of_user", [f"u{n}" for n in range(5)]), ("of_item", [f"i{n}" for n in range(7)])):
        for entity_id in ids:
            await assert_is_the_sql_over_everything(client, data, view, entity_id)
    assert not await client.exists(PLANS["of_item"].redis_key("hers"))


async def assert_is_the_sql_over_everything(client, data, view, entity_id):
    plan = PLANS[view]
    cells = await client.hmget(plan.redis_key(entity_id), plan.fields)
    seconds = feast_values.event_seconds([cells[-1]])[0]
    at_us = round(seconds * 1e6)
    rows = everything(data, EVENTS, at_us)[view].to_pylist()
    (wanted,) = [row for row in rows if row[plan.join_key] == entity_id]
    found = plan.decode([cells], 2e9)
    values = dict(zip(plan.numeric, found.numeric[0].tolist(), strict=True))
    values |= dict(zip(plan.categorical, found.categorical[0].tolist(), strict=True))
    for name, value in values.items():
        # Float32 on both sides: equal, and not nearly so.
        assert value == wanted[name.split("__")[1]], (view, entity_id, name)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", steps.STEPS)
async def test_who_dies_at_a_step_loses_and_doubles_nothing(redis_url, client, shop, name, times):
    left = times

    def die(step):
        nonlocal left
        left -= step == name
        if step == name and left == 0:
            raise Died

    died = False
    try:
        await one_life(redis_url, shop, die)
    except* Died:
        died = True
    await one_life(redis_url, shop, steps.nothing)

    # A step that is passed once only is not died at the second time.
    assert died or times == 2
    await assert_nothing_was_lost_or_doubled(client, shop)


@pytest.mark.parametrize("name", ["consume.written", "redact.files", "features.stored"])
async def test_the_process_killed_for_good_is_taken_up_by_the_next(redis_url, client, shop, name):
    where = ["--data", str(shop), "--redis", redis_url]
    command = [sys.executable, "-m", "services.ingestion", *where, "--consumer", "one"]

    def launch(**more):
        environment = {**os.environ, **more}
        return subprocess.Popen(
            [*command, "--address", f"127.0.0.1:{free_port()}"], stdout=subprocess.DEVNULL, env=environment
        )

    dying = launch(**{steps.VARIABLE: name})
    try:
        assert await asyncio.to_thread(dying.wait, 60) == -signal.SIGKILL
    finally:
        dying.kill()
    living = launch()
    try:
        async with asyncio.timeout(60):
            while not await is_done(client):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        living.terminate()
        assert await asyncio.to_thread(living.wait, 30) == 0
    finally:
        living.kill()
        living.wait()

    await assert_nothing_was_lost_or_doubled(client, shop)


async def test_an_item_whose_events_are_erased_before_they_come_into_a_file_is_counted_again(redis_url, client, shop):
    connected = connect(redis_url)
    redactor = Redactor(connected, STREAM, GROUP, DEAD, shop, start_logging("test"))

    await redactor.carry_out(await redactor.orders())

    await connected.aclose()
    assert logged_ids(shop) == []
    assert await client.smembers(AGAIN) == {b"u:erika", b"i:hers"}
