"""What tests of ingestion share: a client of the run's Redis, emptied before each of them."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the real, empty Redis."""
    client = redis.asyncio.Redis.from_url(redis_url)
    yield client
    await client.aclose()
