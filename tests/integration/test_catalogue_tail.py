"""A model service follows the catalogue: all there was, what comes, and through every trouble of Redis."""

from contextlib import contextmanager

import pytest
import redis

from protos.catalogue import ITEMS, STREAM, VERSION
from services.chassis.catalogue_tail import CatalogueTail
from tests.support.ports import free_port
from tests.support.redis_server import running
from tests.support.system import wait_until

pytestmark = pytest.mark.integration


class Heard:
    """What the tail handed over."""

    def __init__(self) -> None:
        self.states, self.anew = {}, 0

    def take(self, states) -> None:
        for state in states:
            self.states[state.item_id] = (state.version, state.document)

    def begin_anew(self) -> None:
        self.states, self.anew = {}, self.anew + 1


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def heard():
    return Heard()


@contextmanager
def tailing(url, heard):
    tail = CatalogueTail(url, heard.take, heard.begin_anew)
    tail.start()
    try:
        yield tail
    finally:
        tail.stop()


def change(client, item_id, document="{}"):
    item = f"{int(client.get(VERSION) or 0) + 1} 1 {document}"
    with client.pipeline(transaction=True) as pipe:
        pipe.incr(VERSION)
        pipe.hset(ITEMS, item_id, item)
        pipe.xadd(STREAM, {"op": "put", "id": item_id, "item": item})
        pipe.execute()


def test_what_was_changed_before_and_what_changes_now(redis_url, client, heard):
    change(client, "before")

    with tailing(redis_url, heard):
        wait_until(lambda: "before" in heard.states, 10)
        change(client, "after", '{"title": "A"}')
        wait_until(lambda: heard.states.get("after") == (2, {"title": "A"}), 10)

    assert heard.anew == 0


def test_a_gap_and_a_redis_that_forgot_are_read_anew(redis_url, client, heard):
    with tailing(redis_url, heard):
        change(client, "one")
        wait_until(lambda: "one" in heard.states, 10)
        client.incr(VERSION)
        change(client, "two")
        wait_until(lambda: len(heard.states) == 2, 10)
        assert heard.anew == 0, "what was only missed is no reason to be without everything else meanwhile"
        client.flushall()
        change(client, "three")
        wait_until(lambda: heard.anew == 1 and set(heard.states) == {"three"}, 10)


def test_it_outlives_a_redis_that_is_not_there_and_one_that_hangs_up(heard):
    with tailing(f"redis://127.0.0.1:{free_port()}/0", heard):
        pass  # it ends when it is told to, whether or not anybody ever answered
    with running() as url, redis.Redis.from_url(url) as client, tailing(url, heard):
        change(client, "one")
        wait_until(lambda: "one" in heard.states, 10)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        change(client, "two")
        wait_until(lambda: "two" in heard.states, 10)


def test_a_change_that_breaks_the_model_does_not_end_the_following(redis_url, client, heard):
    def fragile(states):
        if any(state.item_id == "bad" for state in states):
            raise ZeroDivisionError
        heard.take(states)

    tail = CatalogueTail(redis_url, fragile, heard.begin_anew)
    tail.start()
    change(client, "bad")
    wait_until(lambda: client.xlen(STREAM) == 1, 10)
    change(client, "good")
    wait_until(lambda: "good" in heard.states, 20)
    tail.stop()
