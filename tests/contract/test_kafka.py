"""The event log on Kafka: its port's contract, and what two stores can do wrong that one cannot."""

import asyncio
import socket
import struct
import time

import pytest

from orchestrator import settings
from orchestrator.adapters import redis_client
from orchestrator.adapters.kafka_events import KafkaEvents
from orchestrator.adapters.kafka_producer import KafkaProducer
from orchestrator.adapters.redis_events import STREAM
from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from protos.event_topic import TopicUnusable
from protos.history import history_key, shown_key
from tests.contract.event_log import EventLogContract
from tests.support import kafka
from tests.support.builders import an_event
from tests.support.ports import free_port
from tests.support.stores import an_event_log

pytestmark = pytest.mark.integration

PATIENT_S = 10.0
"""A busy machine must not fail these tests; what a sick broker may cost is tested on its own below."""


@pytest.fixture(scope="module")
def cluster():
    with kafka.running() as address:
        yield address


@pytest.fixture
async def client(redis_url):
    patient = {"url": redis_url, "event_timeout_ms": 5_000, "connect_timeout_ms": 5_000}
    section = settings.load(environment={}).redis.model_copy(update=patient)
    async with redis_client.connect(section) as client:
        yield client


@pytest.fixture
def topic():
    return kafka.a_topic()


@pytest.fixture
async def producer(cluster, topic):
    producer = KafkaProducer(cluster, topic, "all", PATIENT_S, {})
    yield producer
    await producer.close()


@pytest.fixture
def events(producer, client):
    return KafkaEvents(producer, an_event_log(client, is_log=False), "all")


@pytest.fixture
def logged(cluster, topic):
    async def logged():
        return [value for _, value in await asyncio.to_thread(kafka.messages, cluster, topic)]

    return logged


class TestKafkaEvents(EventLogContract):
    @pytest.fixture
    def history(self, client):
        async def history(subject):
            return [struct.unpack("<iBq", entry) for entry in await client.lrange(history_key(subject), 0, -1)]

        return history

    @pytest.fixture
    def impressions(self, client):
        async def impressions(subject):
            return [struct.unpack("<iBq", entry) for entry in await client.lrange(shown_key(subject), 0, -1)]

        return impressions

    @pytest.fixture
    def fail(self, client):
        async def fail():
            """From now on Redis refuses connections; a Kafka that is away is tested below."""
            url = f"redis://127.0.0.1:{free_port()}/0"
            absent = settings.load(environment={}).redis.model_copy(update={"url": url})
            client.connection_pool = redis_client.connect(absent).connection_pool

        return fail


async def test_the_topic_is_the_log_and_the_stream_is_not(events, client, logged):
    await events.append([an_event("e1", body=b"{}")])

    assert await logged() == [b"{}"]
    assert not await client.exists(STREAM)


async def test_one_shoppers_events_stay_in_one_partition(events, cluster, topic):
    await events.append([an_event(f"e{n}", subject=f"u:{n % 3}") for n in range(30)])
    await events.append([an_event("nobodys", subject=None)])

    keys = [key for key, _ in await asyncio.to_thread(kafka.messages, cluster, topic)]
    assert set(keys) == {b"u:0", b"u:1", b"u:2", None}
    # Sorted by partition, so one key's messages stand together, but for others of the same partition in between.
    assert sorted(key for key in keys if key) == [b"u:0"] * 10 + [b"u:1"] * 10 + [b"u:2"] * 10


async def test_who_dies_between_topic_and_redis_has_told_nobody_and_a_retry_counts_once(
    events, producer, client, logged
):
    event = an_event("e1", body=b"{}")
    await producer.send([(b"u:u1", event.body)])  # and the process is gone

    assert await events.watermark("u:u1") == 0
    assert list(await events.append([event])) == [True]
    assert list(await events.append([event])) == [False]

    assert await events.watermark("u:u1") == 1
    assert await client.llen(history_key("u:u1")) == 1
    # Twice under one event_id, which readers of the log take once; never not at all.
    assert await logged() == [b"{}", b"{}"]


async def test_two_processes_that_get_the_same_event_take_it_once(events, logged):
    taken = await asyncio.gather(*(events.append([an_event("e1", body=b"{}")]) for _ in range(2)))

    assert sorted(map(list, taken)) == [[False], [True]]
    assert await events.watermark("u:u1") == 1
    assert set(await logged()) == {b"{}"}


async def test_events_of_many_callers_at_once_all_find_their_end(events, logged):
    batches = [[an_event(f"{n}-{m}", subject=f"u:{n}") for m in range(20)] for n in range(20)]

    taken = await asyncio.gather(*map(events.append, batches))

    assert [list(one) for one in taken] == [[True] * 20] * 20
    assert len(await logged()) == 400


async def test_a_caller_that_is_cancelled_costs_the_others_nothing(events, logged):
    leaving = asyncio.create_task(events.append([an_event("e1")]))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    assert list(await events.append([an_event("e2"), an_event("e1")])) in ([True, True], [True, False])
    assert await events.watermark("u:u1") == 2


# What a sick broker may cost.


@pytest.fixture
async def towards(client):
    """An event log whose broker is at an address, and which waits 0.3 s."""
    producers = []

    def towards(address):
        producers.append(KafkaProducer(address, "events", "all", 0.3, {}))
        return KafkaEvents(producers[-1], an_event_log(client, is_log=False), "all")

    yield towards
    for producer in producers:
        await producer.close()


async def assert_it_costs_one_timeout_and_nothing_is_half_taken(events, client):
    began_at = time.monotonic()
    with pytest.raises(DependencyError) as failed:
        await events.append([an_event("e1")])

    assert failed.value.loss in (Loss.DEADLINE, Loss.UNAVAILABLE)
    assert time.monotonic() - began_at < 1.5
    assert await events.watermark("u:u1") == 0
    assert await client.keys("tutti:*") == []


async def test_an_absent_broker_costs_one_timeout_and_changes_nothing(towards, client):
    await assert_it_costs_one_timeout_and_nothing_is_half_taken(towards(f"127.0.0.1:{free_port()}"), client)


async def test_a_broker_that_hangs_costs_one_timeout_and_changes_nothing(towards, client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        await assert_it_costs_one_timeout_and_nothing_is_half_taken(towards(address), client)


async def test_what_is_known_already_is_answered_without_the_broker(towards, events):
    await events.append([an_event("e1")])

    assert list(await towards(f"127.0.0.1:{free_port()}").append([an_event("e1")])) == [False]


async def test_an_absent_broker_is_told_of_within_the_time_of_a_probe(towards):
    began_at = time.monotonic()
    with pytest.raises(DependencyError, match="Kafka"):
        await towards(f"127.0.0.1:{free_port()}").durability()

    assert time.monotonic() - began_at < 1.0


# How durable.


async def test_a_partition_with_one_replica_is_told_of(events):
    assert "4 of 4 partitions have one replica" in await events.durability()


async def test_acknowledgement_by_the_leader_alone_is_told_of(producer, client):
    events = KafkaEvents(producer, an_event_log(client, is_log=False), "leader")

    assert "leader" in await events.durability()


async def test_replicas_in_sync_are_durable(client):
    class Replicated:
        async def topic(self):
            return {0: (3, 2), 1: (3, 3)}

    assert await KafkaEvents(Replicated(), an_event_log(client, is_log=False), "all").durability() == "ok"


def test_a_property_that_librdkafka_does_not_know_is_named():
    with pytest.raises(TopicUnusable, match="securty"):
        KafkaProducer("127.0.0.1:1", "events", "all", 1.0, {"securty.protocol": "SSL"})
