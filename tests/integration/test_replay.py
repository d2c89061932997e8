"""Histories, shown lists and watermarks made anew from base and log: whole, once, and beside what the store has."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import redis
from typer.testing import CliRunner

from protos import redactions, vocabulary
from protos.history import (
    MAX_ENTRIES,
    decode_entries,
    encode_entries,
    history_key,
    identity_key,
    shown_key,
    slates_key,
    watermark_key,
)
from services.ingestion.replay import replay
from services.ingestion.sinks import ParquetLog
from services.ingestion.verbs import ingest
from services.training import live_views
from tests.support.small_shop import START_US, tastes, write_shop
from tests.unit.ingestion.test_known_events import LAST, VIEWS, an_event

pytestmark = pytest.mark.integration

BEGINNING = datetime.fromtimestamp(START_US / 1e6, UTC)


@pytest.fixture
def shop(tmp_path):
    data = write_shop(tmp_path / "shop", tastes(users=4, items=6, days=100, each=6))
    vocabulary.write(data / vocabulary.FILE_NAME, [f"i{n}" for n in range(6)])
    ParquetLog(data / "event_log").write(
        [
            an_event(1, "u1", "i1", "purchase", 1),
            an_event(2, "u1", "i2", "impression", 2),
            an_event(3, "u1", "unknown", "view", 3),
            an_event(4, None, "i3", "view", 4, visitor="browser"),
        ]
    )
    # Delivered twice: once more in another file.
    ParquetLog(data / "event_log").write([an_event(1, "u1", "i1", "purchase", 1)])
    return data


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


def lists(client):
    return {
        key: client.lrange(key, 0, -1) for kind in ("history", "shown") for key in client.scan_iter(f"tutti:{kind}:*")
    }


def test_an_empty_store_gets_back_what_base_and_log_hold(shop, client):
    done = replay(shop, client, BEGINNING)

    history = decode_entries(client.lrange(history_key("u:u1"), 0, -1))
    assert len(history) == 7
    assert history["key"][-1] == 1
    assert list(history["at_us"]) == sorted(history["at_us"])
    assert decode_entries(client.lrange(shown_key("u:u1"), 0, -1))["key"].tolist() == [2]
    assert client.get(watermark_key("u:u1")) == b"9"
    assert client.llen(history_key("v:browser")) == 1
    assert 0 < client.ttl(history_key("v:browser")) <= 30 * 86_400 < client.ttl(history_key("u:u1"))
    assert (done.shoppers, done.changed, done.events) == (5, 5, 4 * 6 + 4)


def test_a_second_run_changes_nothing(shop, client):
    replay(shop, client, BEGINNING)
    before, marks = lists(client), {k: client.get(k) for k in client.scan_iter("tutti:watermark:*")}
    client.hset(slates_key("u:u1"), "home", "cached")

    again = replay(shop, client, BEGINNING)

    assert again.changed == 0
    assert lists(client) == before
    assert {k: client.get(k) for k in client.scan_iter("tutti:watermark:*")} == marks
    assert client.exists(slates_key("u:u1"))


def test_what_only_the_store_has_stays_in_its_place(shop, client):
    at_us = int((LAST + timedelta(minutes=2)).timestamp() * 1e6)
    newer = int((LAST + timedelta(days=1)).timestamp() * 1e6)
    client.lpush(history_key("u:u1"), *encode_entries([5, 5, 4], [1, 1, 1], [at_us, at_us, newer]))
    client.set(watermark_key("u:u1"), 1_000)
    client.hset(slates_key("u:u1"), "home", "cached")

    replay(shop, client, BEGINNING)

    history = decode_entries(client.lrange(history_key("u:u1"), 0, -1))
    assert history["key"][-4:].tolist() == [1, 5, 5, 4]
    assert len(history) == 10
    assert client.get(watermark_key("u:u1")) == b"1000"
    assert not client.exists(slates_key("u:u1"))


def test_only_who_did_something_since_is_looked_at_and_then_wholly(shop, client):
    done = replay(shop, client, LAST)

    assert done.shoppers == 2
    assert client.llen(history_key("u:u1")) == 7
    assert not client.exists(history_key("u:u2"))


def test_a_merged_guests_deeds_are_the_users(shop, client):
    client.set(identity_key("browser"), "u1")

    replay(shop, client, BEGINNING)

    assert not client.exists(history_key("v:browser"))
    assert decode_entries(client.lrange(history_key("u:u1"), 0, -1))["key"].tolist()[-2:] == [1, 3]


def test_erased_people_do_not_come_back(shop, client):
    redactions.add(shop, ["u1"], ["browser"], int((LAST + timedelta(hours=1)).timestamp() * 1e6))

    done = replay(shop, client, BEGINNING)

    assert done.shoppers == 3
    assert not client.exists(history_key("u:u1"), history_key("v:browser"))


def test_a_list_never_outgrows_its_length(shop, client):
    many = [an_event(100 + n, "u1", "i1", "view", 10 + n) for n in range(MAX_ENTRIES + 50)]
    ParquetLog(shop / "event_log").write(many)

    replay(shop, client, BEGINNING)

    history = decode_entries(client.lrange(history_key("u:u1"), 0, -1))
    assert len(history) == MAX_ENTRIES
    assert history["at_us"][-1] == int(many[-1].columns["timestamp"].timestamp() * 1e6)


def test_the_verb_brings_back_lists_and_features_and_says_how_many(shop, client, redis_url):
    (shop / "features").mkdir()
    live_views.save(shop, "tutti", VIEWS)
    (shop / "run").mkdir()
    running = {"processes": [{"name": "redis", "address": redis_url.removeprefix("redis://").removesuffix("/0")}]}
    (shop / "run" / "status.json").write_text(json.dumps(running))

    answer = CliRunner().invoke(ingest, ["replay", "--data", str(shop), "--from", f"{BEGINNING:%Y-%m-%d}"])

    assert answer.exit_code == 0, answer.output
    assert "28 events of 5 shoppers, of whom 5 lacked something" in answer.output
    assert "rows of features" in answer.output
    assert client.llen(history_key("u:u2")) == 6

    said = CliRunner().invoke(ingest, ["status", "--data", str(shop)])

    assert said.exit_code == 0, said.output
    assert "0 unread" in said.output
