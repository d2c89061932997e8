"""An erasure from the edge's script to the last file: nothing of the person in any key, value or row; whoever dies."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from orchestrator.adapters.redis_client import connect as connect_edge
from orchestrator.edge.receive_events import judge
from protos import redactions
from protos.history import REDACTIONS, slates_key
from services.chassis.telemetry import start_logging
from services.ingestion.consume import DEAD, GROUP, STREAM, Consumer, Rhythm, connect, events_in_redis
from services.ingestion.redact import Redactor
from services.ingestion.sinks import ParquetLog
from tests.support import ingestion
from tests.support.ingestion import QUICK, until
from tests.support.stores import DEFAULTS, an_event_log, people_of

pytestmark = pytest.mark.integration

PATIENT = Rhythm(flush_s=30.0, block_s=0.02, claim_idle_s=30.0, backoff_s=(0.02, 0.05), redact_every_s=0.0)


class NoItems:
    """A shop without items: events are logged."""

    def key_of(self, item_id):
        return None


@pytest.fixture
async def edge(redis_url):
    """What the edge has: an event log and people."""
    patient = {"url": redis_url, "event_timeout_ms": 5_000, "connect_timeout_ms": 5_000}
    async with connect_edge(DEFAULTS.redis.model_copy(update=patient)) as found:
        yield an_event_log(found), people_of(found)


async def send(edge, *events, now_us=None):
    documents = [{"event_type": "view", **event} for event in events]
    accepted, rejected = judge(documents, NoItems(), now_us or time.time_ns() // 1000)
    assert not rejected
    assert all(await edge[0].append(accepted))


@asynccontextmanager
async def consuming(redis_url, data, name="one", rhythm=QUICK, redactor=Redactor, sink=None):
    stop, client, log = asyncio.Event(), connect(redis_url), start_logging("test")
    carries_out = redactor(client, STREAM, GROUP, DEAD, data, log)
    written = sink or ParquetLog(data / "event_log")
    stream = events_in_redis(client, name, log, rhythm)
    consumer = Consumer(client, stream, written, log, rhythm=rhythm, redactor=carries_out)
    task = asyncio.create_task(consumer.run(stop))
    try:
        yield consumer
    finally:
        stop.set()
        await task
        await client.aclose()


def logged(data):
    return [(row["event_id"], row["user_id"], row["visitor_id"]) for row in ingestion.logged(data)]


async def everything(client):
    """Every key and every value, as one text."""
    readers = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    return repr([(key, await readers[await client.type(key)](key)) async for key in client.scan_iter()])


def bytes_of(data):
    return b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())


async def orders_are_done(client):
    return not await client.xlen(REDACTIONS)


async def a_shop_with_erika(edge):
    await send(edge, {"event_id": "1", "user_id": "erika"}, {"event_id": "2", "visitor_id": "browser"})
    await edge[1].merge("browser", "erika")
    await send(edge, {"event_id": "3", "visitor_id": "browser"}, {"event_id": "4", "user_id": "anna"})
    await send(edge, {"event_id": "5", "user_id": "anna", "visitor_id": "browser"})


async def test_an_erased_person_is_in_no_key_no_value_and_no_row(redis_url, client, edge, tmp_path):
    await a_shop_with_erika(edge)
    await client.xadd(DEAD, {"event": '{"user_id":"erika"', "reason": "not JSON"})
    async with consuming(redis_url, tmp_path):

        async def are_written():
            return len(logged(tmp_path)) == 5

        await until(are_written)
        await edge[1].erase("u:erika")

        await until(lambda: orders_are_done(client))

    assert logged(tmp_path) == [("4", "anna", None), ("5", "anna", None)]
    text = await everything(client)
    assert "erika" not in text
    assert "browser" not in text
    assert b"erika" not in bytes_of(tmp_path)
    assert b"browser" not in bytes_of(tmp_path)
    assert redactions.read(tmp_path).of_users(["erika", "anna"]).keys() == {"erika"}


async def test_entries_that_were_not_read_yet_never_reach_the_log(redis_url, client, edge, tmp_path):
    await a_shop_with_erika(edge)
    await edge[1].erase("u:erika")
    written = []

    class Remembering(ParquetLog):
        def write(self, events):
            written.extend(event.columns["event_id"] for event in events)
            return super().write(events)

    async with consuming(redis_url, tmp_path, sink=Remembering(tmp_path / "event_log")):
        await until(lambda: orders_are_done(client))

    assert sorted(written) == ["4", "5"]
    assert logged(tmp_path) == [("4", "anna", None), ("5", "anna", None)]
    assert "erika" not in await everything(client)


async def test_entries_in_hand_never_reach_the_log(redis_url, client, edge, tmp_path):
    await a_shop_with_erika(edge)
    async with consuming(redis_url, tmp_path, rhythm=PATIENT) as consumer:

        async def are_in_hand():
            return len(consumer._buffer) == 5

        await until(are_in_hand)
        await edge[1].erase("u:erika")
        await until(lambda: orders_are_done(client))

    assert consumer.events_written == 2
    assert logged(tmp_path) == [("4", "anna", None), ("5", "anna", None)]


async def test_what_an_earlier_life_had_in_hand_never_reaches_the_log(redis_url, client, edge, tmp_path):
    await a_shop_with_erika(edge)
    await client.xgroup_create(STREAM, GROUP, id="0")
    await client.xreadgroup(GROUP, "one", {STREAM: ">"})
    await edge[1].erase("u:erika")

    async with consuming(redis_url, tmp_path) as consumer:
        await until(lambda: orders_are_done(client))

    assert consumer.events_written == 2
    assert logged(tmp_path) == [("4", "anna", None), ("5", "anna", None)]


async def test_an_order_waits_for_what_another_consumer_has_in_hand(redis_url, client, edge, tmp_path):
    await a_shop_with_erika(edge)
    await client.xgroup_create(STREAM, GROUP, id="0")
    held = await client.xreadgroup(GROUP, "slow", {STREAM: ">"})
    entries = [
        entry_id for _, part in (held.items() if isinstance(held, dict) else held) for entry_id, _ in _flat(part)
    ]
    await edge[1].erase("u:erika")
    async with consuming(redis_url, tmp_path, rhythm=PATIENT) as consumer:

        async def knows_the_order():
            return consumer._orders

        await until(knows_the_order)
        assert not await orders_are_done(client)

        # The other one writes what it had, erased people included, and acknowledges; then it is over.
        slow = [{"event_id": "2", "event_type": "view", "timestamp": "2026-03-01T12:00:00Z", "visitor_id": "browser"}]
        write_directly(tmp_path, slow)
        await client.xack(STREAM, GROUP, *entries)
        await until(lambda: orders_are_done(client))

    assert logged(tmp_path) == []
    assert "erika" not in await everything(client)


def _flat(part):
    """redis-py's entries with protocol 3 are one list deeper."""
    return part[0] if part and isinstance(part[0], list) else part


def write_directly(data, documents):
    from services.ingestion.sinks import parse

    ParquetLog(data / "event_log").write([parse(json.dumps(document).encode()) for document in documents])


@pytest.mark.parametrize("dies_at", ["_without", "_files", "_client"])
async def test_whoever_dies_half_way_leaves_the_order_to_the_next_life(redis_url, client, edge, tmp_path, dies_at):
    await a_shop_with_erika(edge)

    class Dying(Redactor):
        async def carry_out(self, orders):
            if orders:
                if dies_at == "_client":
                    self._files(orders)
                elif dies_at == "_files":
                    await self._without(STREAM, orders, "+")
                raise OSError("the machine is gone")

    async with consuming(redis_url, tmp_path, redactor=Dying) as consumer:
        await edge[1].erase("u:erika")

        async def has_tried():
            return consumer._orders

        await until(has_tried)
    assert not await orders_are_done(client)

    async with consuming(redis_url, tmp_path):
        await until(lambda: orders_are_done(client))

    assert logged(tmp_path) == [("4", "anna", None), ("5", "anna", None)]
    assert "erika" not in await everything(client)


async def test_who_comes_back_is_in_the_log_again(redis_url, client, edge, tmp_path):
    await send(edge, {"event_id": "before", "user_id": "erika"})
    async with consuming(redis_url, tmp_path):
        await edge[1].erase("u:erika")
        await until(lambda: orders_are_done(client))
        seconds, _ = await client.time()
        # Six minutes later by the edge's clock; before that, clocks may differ.
        await send(edge, {"event_id": "after", "user_id": "erika"}, now_us=(seconds + 360) * 1_000_000)

        async def is_written():
            return logged(tmp_path)

        await until(is_written)

    assert logged(tmp_path) == [("after", "erika", None)]


async def test_an_erased_visitor_is_taken_out_of_what_a_user_did_there(redis_url, client, edge, tmp_path):
    await a_shop_with_erika(edge)
    await edge[1].erase("v:browser")
    async with consuming(redis_url, tmp_path):
        await until(lambda: orders_are_done(client))

    assert logged(tmp_path) == [("1", "erika", None), ("4", "anna", None), ("5", "anna", None)]
    assert "browser" not in await everything(client)


async def test_a_slate_that_was_stored_during_the_erasure_is_forgotten(redis_url, client, edge, tmp_path):
    await edge[1].erase("u:erika")
    await client.hset(slates_key("u:erika"), "f", "made of what was known")

    async with consuming(redis_url, tmp_path):
        await until(lambda: orders_are_done(client))

    assert not await client.exists(slates_key("u:erika"))


async def test_two_consumers_carry_out_every_order_once_between_them(redis_url, client, edge, tmp_path):
    for n in range(40):
        await send(edge, {"event_id": f"e{n}", "user_id": f"u{n}"})
    # Not `QUICK`, in which each takes over what the other has in hand, and both write it.
    rhythm = replace(QUICK, claim_idle_s=30.0)
    async with consuming(redis_url, tmp_path, "one", rhythm), consuming(redis_url, tmp_path, "two", rhythm):
        for n in range(0, 40, 2):
            await edge[1].erase(f"u:u{n}")
        await until(lambda: orders_are_done(client))

        async def are_written():
            return len(logged(tmp_path)) == 20

        await until(are_written)

    assert {user for _, user, _ in logged(tmp_path)} == {f"u{n}" for n in range(1, 40, 2)}
    assert len(redactions.read(tmp_path).erased_at_us) == 20


async def test_an_order_that_nobody_can_read_holds_back_no_other(redis_url, client, edge, tmp_path):
    await client.xadd(REDACTIONS, {"users": "otto"})
    await send(edge, {"event_id": "1", "user_id": "erika"})
    await edge[1].erase("u:erika")

    async with consuming(redis_url, tmp_path):

        async def only_that_one_is_left():
            return await client.xlen(REDACTIONS) == 1

        await until(only_that_one_is_left)

    assert logged(tmp_path) == []
