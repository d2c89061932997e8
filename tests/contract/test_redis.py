"""The Redis adapters against a real server on loopback; and what only a store that others write to can do wrong."""

import asyncio
import random
import socket
import struct
import time
from contextlib import asynccontextmanager, contextmanager

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import settings
from orchestrator.adapters import redis_client
from orchestrator.adapters.redis_events import SEEN_FOR_S, STREAM, RedisEvents
from orchestrator.adapters.redis_pipeline import Address, RedisPipeline
from orchestrator.adapters.redis_slates import FORGET, FORMAT, LEASE, RedisSlates, decode, encode
from orchestrator.core.deadline import Deadline
from orchestrator.core.model import Loss
from orchestrator.core.slate_cache import LEASE_S
from orchestrator.guard import Guard
from orchestrator.ports import DependencyError
from orchestrator.settings import Stage
from orchestrator.telemetry import new_metrics
from protos.history import ENTRY, history_key, slates_key, watermark_key
from tests.contract.candidate_source import TIMEOUT_S
from tests.contract.event_log import EventLogContract
from tests.contract.slate_cache import A_RICH_SLATE, FAR, SlateCacheContract, entry_in, entry_of
from tests.support.builders import an_entry, an_event
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

PATIENT = {"event_timeout_ms": 5_000, "connect_timeout_ms": 5_000}
"""A busy machine must not fail these tests; what a sick Redis may cost is tested on its own below."""


def connected(url, **about):
    section = settings.load(environment={}).redis.model_copy(update={"url": url} | PATIENT | about)
    return redis_client.connect(section)


@pytest.fixture
async def client(redis_url):
    async with connected(redis_url) as client:
        yield client


@pytest.fixture
def events(client):
    return RedisEvents(client)


@asynccontextmanager
async def pipelined(url):
    pipeline = RedisPipeline(Address.parse(url))
    await pipeline.start()
    yield pipeline
    await pipeline.close()


@pytest.fixture
async def pipeline(redis_url):
    async with pipelined(redis_url) as pipeline:
        yield pipeline


@pytest.fixture
def slates(pipeline):
    return RedisSlates(pipeline)


@pytest.fixture
def fail(client, pipeline):
    async def fail():
        """From now on connections are refused."""
        client.connection_pool = connected(f"redis://127.0.0.1:{free_port()}/0").connection_pool
        await pipeline.close()

    return fail


class TestRedisSlates(SlateCacheContract):
    @pytest.fixture
    def end_of_leases(self, client):
        async def end_of_leases():
            """Nobody waits two seconds here: every lease is given an end that lies behind us in Redis' own clock."""
            seconds, microseconds = await client.time()
            for key in await client.keys(slates_key("*")):
                for field, value in (await client.hgetall(key)).items():
                    if field.startswith(LEASE):
                        token, until_ms = value.split()
                        assert 0 < int(until_ms) - seconds * 1000 - microseconds // 1000 <= LEASE_S * 1000 + 1
                        await client.hset(key, field, token + b" %d" % (int(until_ms) - LEASE_S * 1000))

        return end_of_leases

    @pytest.fixture
    def erase(self, client):
        async def erase(subject):
            assert await client.delete(slates_key(subject)) == 1

        return erase


class TestRedisEvents(EventLogContract):
    @pytest.fixture
    def history(self, client):
        async def history(subject):
            return [struct.unpack("<iBq", entry) for entry in await client.lrange(history_key(subject), 0, -1)]

        return history

    @pytest.fixture
    def logged(self, client):
        async def logged():
            return [fields[b"event"] for _, fields in await client.xrange(STREAM)]

        return logged


def test_the_entry_of_these_tests_is_the_entry_of_the_history():
    assert struct.calcsize("<iBq") == ENTRY.itemsize


# What others may have left in the hash.


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\x80\x04K\x01.",
        b"null",
        b"[]",
        b"{}",
        b'{"v":%d}' % FORMAT,
        b'{"v":%d,"fresh":"soon","stale":1,"kept":1,"delta":0,"slate":{}}' % FORMAT,
        b'{"v":%d,"fresh":1,"stale":2,"kept":2,"delta":0,"slate":[]}' % FORMAT,
        orjson.dumps({**orjson.loads(encode(entry_of(1))), "v": FORMAT + 1}),
        orjson.dumps({**orjson.loads(encode(entry_of(1))), "v": FORMAT - 1}),
        encode(entry_of(1))[:-10],
    ],
)
# case 68: corrupt_entry
async def test_bytes_that_are_no_slate_of_this_version_are_a_miss_and_are_deleted(slates, client, stored):
    await client.hset(slates_key("u:u1"), mapping={"f": stored, "g": encode(entry_of(2))})

    assert await entry_in(slates) is None

    assert await client.hkeys(slates_key("u:u1")) == [b"g"]


# case 68: corrupt_entry
async def test_what_another_process_has_written_over_bad_bytes_is_not_deleted_with_them(slates, client):
    await client.hset(slates_key("u:u1"), "f", encode(entry_of(1)))

    await slates._run(FORGET, "u:u1", b"f", b"bad bytes")

    assert await entry_in(slates) == entry_of(1)


NASTY = st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=3), st.just([]))


def paths(tree, at=()):
    yield at
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from paths(tree[key], (*at, key))


PATHS = [path for path in paths(orjson.loads(encode(an_entry(A_RICH_SLATE)))) if path]


@given(path=st.sampled_from(PATHS), value=NASTY)
def test_one_wrong_value_inside_is_a_miss_or_a_slate_whose_items_are_numbers(path, value):
    tree = orjson.loads(encode(an_entry(A_RICH_SLATE)))
    *way, last = path
    here = tree
    for step in way:
        here = here[step]
    here[last] = value

    entry = decode(orjson.dumps(tree))

    if entry is not None:
        assert all(type(item.key) is int and 0 <= item.key < 2**31 for item in entry.slate.items)
        assert all(type(item.score) is float for item in entry.slate.items)
        assert isinstance(entry.fresh_until, float)
        assert isinstance(entry.slate.watermark, int)


async def test_a_hash_is_gone_when_its_longest_kept_slate_is_of_no_use(slates, client):
    await slates.put("u:u1", "f", an_entry(stale_until=FAR - 100))
    await slates.put("u:u1", "g", an_entry(stale_until=FAR))
    await slates.put("u:u1", "h", an_entry(stale_until=time.time() + 5))

    assert FAR < await client.ttl(slates_key("u:u1")) + time.time() <= FAR + 2


async def test_a_slate_that_is_of_no_use_leaves_no_hash(slates, client):
    await slates.put("u:u1", "f", an_entry(stale_until=1.0))

    assert await client.exists(slates_key("u:u1")) == 0


async def test_a_hash_of_nothing_but_a_lease_ends_with_it(slates, client):
    await slates.lease("u:u1", "f")

    assert 0 < await client.pttl(slates_key("u:u1")) <= LEASE_S * 1000


async def test_a_lease_does_not_shorten_the_life_of_the_slates(slates, client):
    await slates.put("u:u1", "f", entry_of(1))

    await slates.lease("u:u1", "f")

    assert FAR < await client.ttl(slates_key("u:u1")) + time.time() <= FAR + 2


async def test_a_key_that_holds_something_else_has_a_name(slates, client):
    await client.set(slates_key("u:u1"), "not a hash")

    with pytest.raises(DependencyError) as failed:
        await slates.get("u:u1", "f", TIMEOUT_S)

    assert failed.value.loss is Loss.REFUSED


async def test_a_watermark_that_is_no_number_has_a_name(slates, events, client):
    await slates.put("u:u1", "f", entry_of(1))
    await client.set(watermark_key("u:u1"), "seven")

    for call in (lambda: slates.get("u:u1", "f", TIMEOUT_S), lambda: events.watermark("u:u1")):
        with pytest.raises(DependencyError) as failed:
            await call()
        assert failed.value.loss is Loss.INVALID_REPLY


async def test_an_event_id_is_remembered_for_a_day_and_the_rest_for_good(events, client):
    await events.append([an_event("e1")])

    assert SEEN_FOR_S - 60 < await client.ttl(b"tutti:event:e1") <= SEEN_FOR_S
    assert await client.ttl(history_key("u:u1")) == await client.ttl(watermark_key("u:u1")) == -1


async def test_two_processes_that_get_the_same_event_take_it_once(redis_url, events):
    async with connected(redis_url) as other:
        taken = await asyncio.gather(*(one.append([an_event("e1")]) for one in (events, RedisEvents(other))))

    assert sorted(map(list, taken)) == [[False], [True]]
    assert await events.watermark("u:u1") == 1


# What a sick server may cost.


@contextmanager
def a_server_that_hangs():
    """Accepts connections in the kernel and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


async def test_a_server_that_hangs_costs_an_event_one_timeout_and_no_retries():
    with a_server_that_hangs() as url:
        async with connected(url, event_timeout_ms=20) as client, asyncio.timeout(2):
            with pytest.raises(DependencyError) as failed:
                await RedisEvents(client).watermark("u:u1")

    assert failed.value.loss is Loss.DEADLINE


async def test_a_server_that_hangs_costs_a_slate_no_more_than_its_guard_allows():
    guard, stage = Guard(time.monotonic, new_metrics()), Stage(cap_ms=20, reserve_after_ms=0, grace_ms=0)
    with a_server_that_hangs() as url:
        async with pipelined(url) as pipeline, asyncio.timeout(2):
            slates = RedisSlates(pipeline)
            outcome = await guard.call("c", stage, Deadline(time.monotonic() + 1), lambda s: slates.get("u:1", "f", s))

    assert outcome.loss in (Loss.DEADLINE, Loss.UNAVAILABLE)


async def test_the_client_has_no_retries_and_the_timeouts_of_the_settings():
    section = settings.load(environment={}).redis

    async with redis_client.connect(section) as client:
        built = client.connection_pool.make_connection()

    assert built.retry._retries == 0
    assert built.socket_timeout == section.event_timeout_ms / 1000
    assert built.socket_connect_timeout == section.connect_timeout_ms / 1000


async def test_without_a_free_connection_the_wait_is_short_and_the_loss_has_a_name(redis_url):
    async with connected(redis_url, max_connections=1) as client:
        held = await client.connection_pool.get_connection()
        with pytest.raises(DependencyError) as failed:
            await RedisEvents(client).watermark("u:u1")
        await client.connection_pool.release(held)

        assert failed.value.loss is Loss.UNAVAILABLE
        assert await RedisEvents(client).watermark("u:u1") == 0


# The incident of March 2023: a cancelled read left its answer in the connection for the next caller.
async def test_a_call_that_was_given_up_never_gives_its_answer_to_another(redis_url):
    rng = random.Random(3)
    async with pipelined(redis_url) as pipeline:
        slates = RedisSlates(pipeline)
        for n in range(10):
            await slates.put(f"u:{n}", "f", entry_of(n))
        for _ in range(30):
            abandoned = asyncio.create_task(slates.get(f"u:{rng.randrange(10)}", "f", TIMEOUT_S))
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            abandoned.cancel()
            await asyncio.wait([abandoned])
            n = rng.randrange(10)
            assert await entry_in(slates, f"u:{n}") == entry_of(n)
