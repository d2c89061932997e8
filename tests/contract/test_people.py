"""People on a real Redis: nothing of an erased person in any key or value, and numbers that never go back."""

import asyncio
import time

import pytest

from orchestrator.adapters.feast_reader import FeastRedisReader
from orchestrator.adapters.redis_client import connect
from orchestrator.adapters.redis_pipeline import Address, RedisPipeline
from orchestrator.adapters.redis_slates import RedisSlates
from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan
from protos.history import REDACTIONS, history_key, identity_key, visitors_key, watermark_key
from protos.tutti.v1.feast_value_pb2 import FeastTimestamp, FeastValue
from tests.contract.candidate_source import TIMEOUT_S
from tests.contract.people import FEATURES, PeopleContract
from tests.contract.slate_cache import entry_of
from tests.support.builders import an_event
from tests.support.ports import free_port
from tests.support.stores import DEFAULTS, an_event_log, people_of

pytestmark = pytest.mark.integration

COLUMNS = (("a", "FLOAT"), ("b", "DOUBLE"), ("c", "STRING"))
PLAN = ReadPlan(
    "reranking_v1",
    EntityPlan("tutti", "user_id", "STRING", (ViewPlan("taste", 3600.0, COLUMNS),)),
    EntityPlan("tutti", "item_id", "STRING", ()),
)


def connected(url):
    patient = {"url": url, "event_timeout_ms": 5_000, "connect_timeout_ms": 5_000}
    return connect(DEFAULTS.redis.model_copy(update=patient))


@pytest.fixture
async def client(redis_url):
    async with connected(redis_url) as client:
        yield client


@pytest.fixture
async def pipeline(redis_url):
    pipeline = RedisPipeline(Address.parse(redis_url))
    await pipeline.start()
    yield pipeline
    await pipeline.close()


@pytest.fixture
def events(client):
    return an_event_log(client)


@pytest.fixture
def slates(pipeline):
    return RedisSlates(pipeline)


@pytest.fixture
def people(client):
    return people_of(client, PLAN)


@pytest.fixture
def know(client):
    async def know(user_id, features):
        cells = [FeastValue(float_val=features["taste__a"]).SerializeToString(), None]
        cells.append(FeastValue(string_val=features["taste__c"]).SerializeToString())
        cells.append(FeastTimestamp(seconds=int(time.time()) - 999_999).SerializeToString())
        fields = {name: cell for name, cell in zip(PLAN.user.fields, cells, strict=True) if cell is not None}
        await client.hset(PLAN.user.redis_key(user_id), mapping=fields)

    return know


async def everything(client):
    """Every key and every value, as one text."""
    found = []
    readers = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    async for key in client.scan_iter():
        if key != REDACTIONS:
            found.append((key, await readers[await client.type(key)](key)))
    return repr(found)


class TestRedisPeople(PeopleContract):
    @pytest.fixture
    def redactions(self, client):
        async def redactions():
            found = []
            for _, fields in await client.xrange(REDACTIONS):
                visitors = fields[b"visitors"].decode().split("\n")
                found.append((fields[b"users"].decode(), tuple(filter(None, visitors))))
            return found

        return redactions

    @pytest.fixture
    def everywhere(self, client):
        return lambda: everything(client)

    @pytest.fixture
    def fail(self, client):
        async def fail():
            client.connection_pool = connected(f"redis://127.0.0.1:{free_port()}/0").connection_pool

        return fail


async def test_a_redaction_says_up_to_which_event_and_when(people, events, client):
    await events.append([an_event("e1"), an_event("e2")])
    last = (await client.xrevrange(b"tutti:events", count=1))[0][0]

    await people.erase("u:u1")

    [(_, redaction)] = await client.xrange(REDACTIONS)
    assert redaction[b"until"] == last
    assert abs(int(redaction[b"at_ms"]) / 1000 - (await client.time())[0]) <= 2


async def test_a_redaction_of_an_empty_stream_waits_for_nothing(people, client):
    await people.erase("v:v1")

    [(_, redaction)] = await client.xrange(REDACTIONS)
    assert redaction[b"until"] == b"0-0"


async def test_features_are_shown_though_they_have_expired(people, know):
    await know("u1", FEATURES)

    assert dict((await people.held("u:u1")).features) == FEATURES


async def test_keys_of_identities_end_as_the_settings_say(people, events, client):
    await people.merge("v1", "u1")
    await events.append([an_event("e1", subject="v:v1")])

    assert 0 < await client.ttl(identity_key("v1")) <= DEFAULTS.retention.visitor_s
    for key in (visitors_key("u1"), history_key("u:u1"), watermark_key("u:u1")):
        assert DEFAULTS.retention.user_s - 60 < await client.ttl(key) <= DEFAULTS.retention.user_s


async def test_without_a_plan_nobody_has_features_and_everything_else_is_erased(client, events):
    people = people_of(client)
    await events.append([an_event("e1")])

    assert (await people.erase("u:u1")).history == 1
    assert dict((await people.held("u:u1")).features) == {}


async def test_a_number_never_goes_back_for_whoever_reads_beside_writers_and_merges(redis_url):
    """Two edges write and merge, two read by both of their ways; one Redis."""
    done = asyncio.Event()
    async with connected(redis_url) as one, connected(redis_url) as two:
        logs, people = (an_event_log(one), an_event_log(two)), people_of(two)
        slates, reader = RedisPipeline(Address.parse(redis_url)), FeastRedisReader(None, redis_url)
        await slates.start()
        await reader.start()

        async def write(events, who):
            for n in range(60):
                subject = ("v:v1", "u:u1")[n % 2]
                await events.append([an_event(f"{who}-{n}", subject=subject, at_us=n)])

        async def watch(subject, read):
            seen = [0]
            while not done.is_set():
                seen.append(await read(subject))
            return seen

        async def by_row(subject):
            return (await reader.read(subject, None, 0.0)).watermark

        async def by_slate(subject):
            return (await RedisSlates(slates).get(subject, "f", TIMEOUT_S)).watermark

        watching = [
            asyncio.create_task(watch(subject, read)) for subject in ("u:u1", "v:v1") for read in (by_row, by_slate)
        ]
        async with asyncio.timeout(60):
            writing = asyncio.gather(*(write(events, n) for n, events in enumerate(logs)))
            for _ in range(5):
                await people.merge("v1", "u1")
            await writing
            done.set()
            seen = await asyncio.gather(*watching)
        last = {subject: await logs[0].watermark(subject) for subject in ("u:u1", "v:v1")}
        await slates.close()
        await reader.close()

    for numbers in seen:
        assert numbers == sorted(numbers)
        assert len(numbers) > 2
    assert last["u:u1"] >= 120, "all were counted for the user"
    assert last["u:u1"] >= last["v:v1"]


async def test_a_202_promises_the_next_slate_on_the_other_edge(redis_url):
    async with connected(redis_url) as client:
        slates = RedisPipeline(Address.parse(redis_url))
        await slates.start()
        for n in range(50):
            found = await RedisSlates(slates).get("u:u1", "f", TIMEOUT_S)
            await RedisSlates(slates).put("u:u1", "f", entry_of(1, watermark=found.watermark))
            await an_event_log(client).append([an_event(f"e{n}")])
            accepted = await an_event_log(client).watermark("u:u1")

            found = await RedisSlates(slates).get("u:u1", "f", TIMEOUT_S)

            assert (found.entry, found.watermark) == (None, accepted)
        await slates.close()
