"""The item store on a real Redis and its twin, held to one contract; and what only Redis can do wrong."""

import pytest

from orchestrator import settings
from orchestrator.adapters import redis_client
from orchestrator.adapters.memory import MemoryItems
from orchestrator.adapters.redis_items import RedisItems
from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from protos.catalogue import ITEMS, STREAM, VERSION, Wish, read_entry
from tests.contract.item_store import MUG, ItemStoreContract
from tests.support.ports import free_port

PATIENT = {"event_timeout_ms": 5_000, "connect_timeout_ms": 5_000}
"""A busy machine must not fail these tests."""


def connected(url):
    return redis_client.connect(settings.load(environment={}).redis.model_copy(update={"url": url} | PATIENT))


class TestMemoryItems(ItemStoreContract):
    @pytest.fixture
    def items(self):
        return MemoryItems()

    @pytest.fixture
    def told(self, items):
        async def told():
            return [(state.item_id, state.version, state.document) for state in items.entries]

        return told

    @pytest.fixture
    def fail(self, items):
        async def fail():
            items.fail_with = Loss.UNAVAILABLE

        return fail


@pytest.mark.integration
class TestRedisItems(ItemStoreContract):
    @pytest.fixture
    async def client(self, redis_url):
        async with connected(redis_url) as client:
            yield client

    @pytest.fixture
    def items(self, client):
        return RedisItems(client)

    @pytest.fixture
    def told(self, client):
        async def told():
            states = [read_entry(fields).state for _, fields in await client.xrange(STREAM)]
            return [(state.item_id, state.version, state.document) for state in states]

        return told

    @pytest.fixture
    def fail(self, client):
        async def fail():
            client.connection_pool = connected(f"redis://127.0.0.1:{free_port()}/0").connection_pool

        return fail

    async def test_hash_stream_and_counter_say_the_same(self, items, client):
        await items.change([Wish("mug", MUG, key=3), Wish("mug", None)])

        newest = (await client.xrevrange(STREAM, count=1))[0][1]
        assert newest[b"op"] == b"delete"
        assert newest[b"item"] == await client.hget(ITEMS, "mug") == b"2 3 "
        assert await client.get(VERSION) == b"2"

    async def test_what_somebody_else_wrote_is_an_invalid_reply_and_not_taken_for_an_item(self, items, client):
        await client.hset(ITEMS, "mug", "not ours")

        with pytest.raises(DependencyError) as lost:
            await items.read("mug")

        assert lost.value.loss is Loss.INVALID_REPLY
