"""Ingestion from a Kafka topic: what is committed is in files, what is in files is read again by nobody who matters."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from typer.testing import CliRunner

from protos import redactions
from protos.history import REDACTIONS
from protos.live_features import AGAIN
from services.chassis.telemetry import start_logging
from services.ingestion.broker import Broker
from services.ingestion.consume import DEAD, GROUP, Consumer
from services.ingestion.kafka_lag import TopicWatch
from services.ingestion.kafka_stream import KafkaStream, Topic, ask_topic, committed, ends
from services.ingestion.kafka_tail import KafkaTail
from services.ingestion.lag import look
from services.ingestion.streams import StreamAway, connect
from services.ingestion.verbs import ingest
from services.training import live_views
from services.training import vocabulary as training_vocabulary
from tests.support import kafka
from tests.support.ingestion import QUICK, Died, logged_ids, until
from tests.support.ports import free_port
from tests.support.small_shop import tastes, write_shop
from tests.unit.ingestion.test_known_events import LAST, VIEWS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster():
    with kafka.running() as address:
        yield address


@pytest.fixture
def topic(cluster):
    # The mock lets who comes after somebody wait for as long as a session, however they went.
    return Topic(cluster, kafka.a_topic(), {"session.timeout.ms": "3500"})


def an_event(event_id, user_id="u", **more):
    fields = {"event_id": event_id, "event_type": "view", "timestamp": "2026-03-01T10:00:00Z", "user_id": user_id}
    return json.dumps(fields | {"received_at": datetime.now(UTC).isoformat()} | more).encode()


def an_order(user_id):
    return {"users": user_id, "visitors": "", "until": "0-0", "at_ms": int(time.time() * 1000)}


def put(topic, *values, key=None):
    kafka.put(topic.bootstrap_servers, topic.name, *values, key=key)


def failing_once(command):
    """A command of Redis that is refused at its first time."""
    refusals = iter([RedisConnectionError("connection refused")])

    async def asked(*arguments, **more):
        for refusal in refusals:
            raise refusal
        return await command(*arguments, **more)

    return asked


@asynccontextmanager
async def consuming(redis_url, topic, data, step=lambda _: None, sink=None, redacts=False, rhythm=QUICK, fails=()):
    stop, client, log, broker = asyncio.Event(), connect(redis_url), start_logging("test"), Broker(topic)
    for name in fails:
        setattr(client, name, failing_once(getattr(client, name)))
    stream = broker.stream(client, "one", log, rhythm)
    redactor = broker.redactor(client, data, log) if redacts else None
    consumer = Consumer(client, stream, sink or broker.sink(data), log, rhythm=rhythm, redactor=redactor, step=step)
    task = asyncio.create_task(consumer.run(stop))
    try:
        yield consumer, task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
        await stream.close()
        if redactor is not None:
            await redactor.close()
        await client.aclose()


@pytest.fixture
async def all_is_committed(topic):
    consumer = topic.consumer(GROUP)
    partitions = range(kafka.PARTITIONS)

    def is_it():
        assert ask_topic(consumer, topic.name) == list(partitions)
        there = ends(consumer, topic.name, partitions)
        done = committed(consumer, topic.name, partitions)
        return all(done.get(number, 0) == following for number, (_, following) in there.items())

    yield lambda: asyncio.to_thread(is_it)
    await asyncio.to_thread(consumer.close)


async def test_events_of_before_and_after_the_start_are_written_once_and_committed(
    redis_url, client, topic, tmp_path, all_is_committed
):
    put(topic, an_event("a"), an_event("b"))

    async with consuming(redis_url, topic, tmp_path):
        await until(lambda: logged_ids(tmp_path) == ["a", "b"])
        put(topic, an_event("c"), key=b"u:u")
        await until(lambda: logged_ids(tmp_path) == ["a", "b", "c"])
        await until(all_is_committed)

    async with consuming(redis_url, topic, tmp_path) as (consumer, _):
        put(topic, an_event("d"))
        await until(lambda: logged_ids(tmp_path) == ["a", "b", "c", "d"])
    assert consumer.events_written == 1


async def test_poison_is_parked_with_its_reason_and_holds_nothing_back(
    redis_url, client, topic, tmp_path, all_is_committed
):
    put(topic, an_event("a"), b"{", b"", an_event("b"), key=b"u:u")

    async with consuming(redis_url, topic, tmp_path):
        await until(lambda: logged_ids(tmp_path) == ["a", "b"])
        await until(all_is_committed)

    letters = [fields for _, fields in await client.xrange(DEAD)]
    assert [letter[b"event"] for letter in letters] == [b"{", b""]
    assert all(b"not JSON" in letter[b"reason"] and b":" in letter[b"entry"] for letter in letters)


@pytest.mark.parametrize("name", ["consume.buried", "consume.written"])
async def test_who_dies_before_the_commit_loses_nothing(redis_url, client, topic, tmp_path, name, all_is_committed):
    put(topic, an_event("a"), b"{", an_event("b"), key=b"u:u")

    def die(step):
        if step == name:
            raise Died

    async with consuming(redis_url, topic, tmp_path, die) as (_, task):
        await until(task.done)
        assert isinstance(task.exception(), Died)
    async with consuming(redis_url, topic, tmp_path):
        await until(all_is_committed)

    assert set(logged_ids(tmp_path)) == {"a", "b"}
    entries = {fields[b"entry"] for _, fields in await client.xrange(DEAD)}
    assert len(entries) == 1, "parked twice at most, under the name of one message"


async def test_a_full_disk_commits_nothing_until_it_has_room(redis_url, client, topic, tmp_path, all_is_committed):
    class Full:
        has_room = False

        def write(self, events):
            if not self.has_room:
                raise OSError("no space left on device")
            return Broker(topic).sink(tmp_path).write(events)

    put(topic, an_event("a"))
    disk = Full()
    async with consuming(redis_url, topic, tmp_path, sink=disk) as (consumer, _):
        await until(lambda: consumer._buffer)
        assert not await all_is_committed()
        disk.has_room = True
        await until(all_is_committed)

    assert logged_ids(tmp_path) == ["a"]


async def test_an_erased_person_reaches_no_file_now_or_when_the_topic_is_read_again(
    redis_url, client, topic, tmp_path, all_is_committed
):
    put(topic, an_event("1", "erika"), an_event("2", "anna"), an_event("3", "erika"))
    async with consuming(redis_url, topic, tmp_path, redacts=True):
        await until(all_is_committed)
        await client.xadd(REDACTIONS, an_order("erika"))

        async def is_done():
            return not await client.xlen(REDACTIONS)

        await until(is_done)
    assert logged_ids(tmp_path) == ["2"]
    assert redactions.read(tmp_path).of_users(["erika", "anna"]).keys() == {"erika"}

    # Another group, as after a reset of offsets: all of the topic once more.
    stop, log = asyncio.Event(), start_logging("test")
    stream = KafkaStream(topic, "another", 100)
    consumer = Consumer(client, stream, Broker(topic).sink(tmp_path), log, rhythm=QUICK)
    task = asyncio.create_task(consumer.run(stop))
    await until(lambda: logged_ids(tmp_path) == ["2", "2"])
    await until(lambda: not consumer._buffer)
    stop.set()
    await task
    await stream.close()
    assert logged_ids(tmp_path) == ["2", "2"]


@pytest.fixture
def data_with_features(tmp_path):
    """A data directory whose features are kept."""
    (tmp_path / live_views.FILE).parent.mkdir()
    live_views.save(tmp_path, "tutti", VIEWS)
    return tmp_path


@pytest.mark.parametrize("is_in_hand", [False, True])
async def test_an_item_whose_events_are_erased_before_they_come_into_a_file_is_counted_again(
    redis_url, client, topic, data_with_features, all_is_committed, is_in_hand
):
    # The one who follows features read them from the topic, too, and may die before it hears of the erasure.
    put(topic, an_event("1", "erika", item_id="hers"), an_event("2", "anna", item_id="another"), key=b"u:u")
    rhythm = replace(QUICK, flush_s=30.0) if is_in_hand else QUICK
    if not is_in_hand:
        await client.xadd(REDACTIONS, an_order("erika"))

    async with consuming(redis_url, topic, data_with_features, redacts=True, rhythm=rhythm) as (consumer, _):
        if is_in_hand:
            await until(lambda: len(consumer._buffer) == 2)
            await client.xadd(REDACTIONS, an_order("erika"))
        await until(all_is_committed)

        async def is_done():
            return not await client.xlen(REDACTIONS)

        await until(is_done)

    assert logged_ids(data_with_features) == ["2"]
    assert await client.smembers(AGAIN) == {b"u:erika", b"i:hers"}


@pytest.mark.parametrize("is_poison", [True, False])
async def test_what_was_read_when_redis_went_away_is_dealt_with_when_it_is_back(
    redis_url, client, topic, data_with_features, all_is_committed, is_poison
):
    # The topic gives it once, so who lets go of it would write it after the next start only, and commit nothing.
    put(topic, b"{" if is_poison else an_event("1", "erika", item_id="hers"), an_event("2", "anna"), key=b"u:u")
    await client.xadd(REDACTIONS, an_order("erika"))

    async with consuming(redis_url, topic, data_with_features, redacts=True, fails=["xadd", "sadd"]) as (consumer, _):
        await until(all_is_committed)

    assert logged_ids(data_with_features) == ["2"]
    assert consumer.dead_letters == is_poison
    assert await client.sismember(AGAIN, "i:hers") != is_poison


async def test_an_order_waits_until_what_was_there_is_committed(redis_url, client, topic, tmp_path, all_is_committed):
    put(topic, an_event("1", "erika"), an_event("2", "anna"))
    log = start_logging("test")
    redactor = Broker(topic).redactor(client, tmp_path, log)
    await client.xadd(REDACTIONS, an_order("erika"))
    (order,) = await redactor.orders()
    assert not await redactor.is_consumed(order)
    put(topic, an_event("later", "anna"))

    async with consuming(redis_url, topic, tmp_path):
        await until(all_is_committed)
        assert await redactor.is_consumed((await redactor.orders())[0])
    await redactor.close()


async def test_the_tail_reads_what_is_in_no_file_and_goes_on_from_where_it_was(topic, cluster):
    put(topic, an_event("a"), an_event("b"), key=b"u:u")
    tail = KafkaTail(topic, GROUP)
    assert not await tail.begin(None)
    found = await _all(tail, 2)
    position = tail.position
    await tail.close()
    assert [json.loads(entry.fields[b"event"])["event_id"] for entry in found] == ["a", "b"]

    put(topic, an_event("c"), key=b"u:u")
    later = KafkaTail(topic, GROUP)
    assert await later.begin(position)
    # Nothing is committed, so nothing is in a file: all is read again, and known events change nothing.
    found = await _all(later, 3)
    await later.close()
    assert [json.loads(entry.fields[b"event"])["event_id"] for entry in found] == ["a", "b", "c"]


async def _all(tail, count):
    found = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await tail.read(0.5)
    return found


async def test_lag_says_how_much_waits_and_how_old_it_is(redis_url, client, topic, tmp_path, all_is_committed):
    put(topic, an_event("a"), an_event("b"))
    watch = TopicWatch(topic, GROUP)
    before = await look(client, watch)
    assert (before.broker, before.unread, before.stream, before.features_s) == ("kafka", 2, 2, None)
    assert 0.0 < before.oldest_s < 60.0

    async with consuming(redis_url, topic, tmp_path):
        await until(all_is_committed)
    after = await look(client, watch)
    assert (after.unread, after.oldest_s, after.stream) == (0, 0.0, 2)
    await watch.close()


async def test_a_topic_that_cannot_be_asked_is_one_error_of_the_broker():
    watch = TopicWatch(Topic(f"127.0.0.1:{free_port()}", "events"), GROUP)
    with pytest.raises(StreamAway, match="Kafka"):
        await watch.look(None)
    await watch.close()


@pytest.fixture
def shop(tmp_path):
    """A shop whose features are kept, without a model."""
    data = write_shop(tmp_path / "shop", tastes(users=6, items=8, days=120, each=6))
    training_vocabulary.maintain(data)
    (data / "features").mkdir()
    live_views.save(data, "tutti", VIEWS)
    return data


def where(redis_url, topic, data):
    return ["--data", str(data), "--redis", redis_url, "--kafka", topic.bootstrap_servers, "--topic", topic.name]


def test_tutti_ingest_status_asks_the_topic_that_was_named(redis_url, topic, tmp_path):
    put(topic, an_event("a"), an_event("b"))

    answer = CliRunner().invoke(ingest, ["status", *where(redis_url, topic, tmp_path)])

    assert answer.exit_code == 0, answer.output
    assert "2 to be written; oldest" in answer.output
    assert "2 entries in Kafka" in answer.output


def test_tutti_ingest_replay_reads_the_topic_as_far_as_it_goes(redis_url, topic, shop):
    at = LAST.isoformat()
    put(topic, an_event("a", "u1", item_id="i1", timestamp=at), an_event("b", "new", item_id="i2", timestamp=at))

    answer = CliRunner().invoke(ingest, ["replay", "--from", "2100-01-01", *where(redis_url, topic, shop)])

    assert answer.exit_code == 0, answer.output
    assert "4 rows of features" in answer.output, "of two people and two items"


@pytest.mark.parametrize("verb", [["status"], ["replay", "--from", "2100-01-01"]])
def test_a_broker_that_does_not_answer_is_one_sentence(redis_url, shop, verb):
    absent = Topic(f"127.0.0.1:{free_port()}", "events")

    answer = CliRunner().invoke(ingest, [*verb, *where(redis_url, absent, shop)])

    assert answer.exit_code == 1
    assert "Kafka" in answer.output
    assert "Traceback" not in answer.output


def test_a_broker_without_a_topic_is_refused(redis_url, tmp_path):
    answer = CliRunner().invoke(ingest, ["status", "--redis", redis_url, "--kafka", "127.0.0.1:1"])

    assert answer.exit_code == 1
    assert "--kafka and --topic go together" in answer.output
