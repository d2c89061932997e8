"""The shared connection: nobody ever gets somebody else's reply, and Redis may come and go."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import hiredis
import pytest
import redis

from orchestrator.adapters import redis_pipeline
from orchestrator.adapters.feast_reader import FeastRedisReader
from orchestrator.adapters.redis_pipeline import Address, RedisPipeline, command
from protos.history import encode_entries, history_key, watermark_key

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def a_server(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[tuple[asyncio.Server, str]]:
    """A server that answers what it is told to; None hangs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if (reply := answer(data)) is not None:
                    writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is watched has no event to wait for
            await asyncio.sleep(0.005)


async def test_without_a_plan_history_and_watermark_are_read(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(history_key("v:x"), *encode_entries([3], [1], [5]))
        client.set(watermark_key("v:x"), 4)
    reader = FeastRedisReader(None, redis_url)
    await reader.start()

    row = await reader.read("v:x", "nobody", 0.0)
    await reader.close()

    assert (row.history_keys.tolist(), row.watermark, row.found) == ([3], 4, False)
    assert (row.numeric.shape, row.categorical) == ((0,), ())


async def test_cancelled_reads_never_shift_the_replies_of_others(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        for i in range(300):
            client.set(watermark_key(f"u:{i}"), i)
    reader = FeastRedisReader(None, redis_url)
    await reader.start()

    async def read(i: int) -> int:
        # Every third gives up at once, after its command was written.
        async with asyncio.timeout(0 if i % 3 == 0 else 5):
            return (await reader.read(f"u:{i}", None, 0.0)).watermark

    answers = await asyncio.gather(*(read(i) for i in range(300)), return_exceptions=True)
    await reader.close()

    assert [a for i, a in enumerate(answers) if i % 3] == [i for i in range(300) if i % 3]
    assert all(isinstance(a, TimeoutError) for i, a in enumerate(answers) if i % 3 == 0)


async def test_a_refused_command_costs_its_own_read_only(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(history_key("u:wrong"), "no list")
        client.set(watermark_key("u:right"), 7)
    reader = FeastRedisReader(None, redis_url)
    await reader.start()

    wrong, right = await asyncio.gather(
        reader.read("u:wrong", None, 0.0), reader.read("u:right", None, 0.0), return_exceptions=True
    )
    await reader.close()

    assert isinstance(wrong, hiredis.ReplyError)
    assert right.watermark == 7


async def test_start_without_redis_is_no_error_and_a_read_says_where_it_looked() -> None:
    reader = FeastRedisReader(None, "redis://127.0.0.1:1/0")
    await reader.start()

    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1"):
        await reader.read("u:a", None, 0.0)
    await reader.close()
    with pytest.raises(ConnectionError, match="closed"):
        await reader.read("u:a", None, 0.0)


def others(client: redis.Redis) -> set[str]:
    """Ids of all connections but the asking one's."""
    return {one["id"] for one in client.client_list(_type="normal")} - {str(client.client_id())}


async def test_the_connection_comes_back_by_itself(redis_url: str) -> None:
    reader = FeastRedisReader(None, redis_url)
    await reader.start()

    with redis.Redis.from_url(redis_url) as client:
        killed = others(client)
        for number in killed:
            client.client_kill_filter(_id=number)
        await until(lambda: bool(others(client) - killed) and reader.is_connected)

    assert (await reader.read("u:a", None, 0.0)).watermark == 0
    await reader.close()


async def test_a_steady_connection_comes_back_without_a_pause(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_pipeline, "STEADY_AFTER_S", 0.0)
    monkeypatch.setattr(redis_pipeline, "BACKOFF_FIRST_S", 3600.0)
    reader = FeastRedisReader(None, redis_url)
    await reader.start()

    with redis.Redis.from_url(redis_url) as client:
        for _ in range(3):
            (killed,) = others(client)
            client.client_kill_filter(_id=killed)
            await until(lambda killed=killed: bool(others(client) - {killed}) and reader.is_connected)

    assert (await reader.read("u:a", None, 0.0)).watermark == 0
    await reader.close()


async def test_a_server_that_closes_what_it_accepts_is_not_besieged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_pipeline, "BACKOFF_FIRST_S", 3600.0)
    accepted = []

    async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(1)
        writer.close()

    server = await asyncio.start_server(close_at_once, "127.0.0.1", 0)
    pipeline = RedisPipeline(Address.parse(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"))
    await pipeline.start()
    await until(lambda: not pipeline.is_connected)
    for _ in range(20):
        await asyncio.sleep(0)

    assert len(accepted) == 1
    await pipeline.close()
    server.close()


async def test_who_waits_when_the_connection_breaks_is_told() -> None:
    async with a_server(lambda data: None) as (_, url):
        pipeline = RedisPipeline(Address.parse(url))
        await pipeline.start()
        waiting = asyncio.create_task(pipeline.ask(command(b"PING"), 1))
        await asyncio.sleep(0)

        await pipeline.close()

        with pytest.raises(ConnectionError, match="closed"):
            await waiting


async def test_a_hung_server_is_given_up_and_too_many_waiting_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_pipeline, "MAX_PENDING", 2)
    async with a_server(lambda data: None) as (_, url):
        pipeline = RedisPipeline(Address.parse(url))
        await pipeline.start()
        waiting = [asyncio.create_task(pipeline.ask(command(b"PING"), 1)) for _ in range(2)]
        await asyncio.sleep(0)

        with pytest.raises(ConnectionError, match="2 reads already wait"):
            await pipeline.ask(command(b"PING"), 1)
        monkeypatch.setattr(redis_pipeline, "HUNG_AFTER_S", 0.0)
        with pytest.raises(ConnectionError, match="has not answered"):
            await pipeline.ask(command(b"PING"), 1)

        assert all(isinstance(e, ConnectionError) for e in await asyncio.gather(*waiting, return_exceptions=True))
        await pipeline.close()


async def test_what_is_not_redis_ends_the_connection() -> None:
    async with a_server(lambda data: b"HTTP/1.1 400 Bad Request\r\n\r\n") as (_, url):
        pipeline = RedisPipeline(Address.parse(url))
        await pipeline.start()

        with pytest.raises(ConnectionError, match="not Redis"):
            await pipeline.ask(command(b"PING"), 1)
        await pipeline.close()


async def test_password_and_database_of_the_url_are_used(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, redis.Redis.from_url(redis_url[:-1] + "3") as other:
        other.set(watermark_key("u:a"), 9)
        client.acl_setuser(
            "reader", enabled=True, passwords=["+p@ss, wörd"], keys=["*"], commands=["+@all"], reset=True
        )
        try:
            host = redis_url.removeprefix("redis://").split("/")[0]
            right = FeastRedisReader(None, f"redis://reader:p%40ss%2C%20w%C3%B6rd@{host}/3")
            wrong = FeastRedisReader(None, f"redis://reader:wrong@{host}/3")
            await right.start()
            await wrong.start()

            assert (await right.read("u:a", None, 0.0)).watermark == 9
            with pytest.raises(ConnectionError, match=r"(?i)WRONGPASS|invalid username-password"):
                await wrong.read("u:a", None, 0.0)
            assert "wrong@" not in repr(wrong)
            await right.close()
            await wrong.close()
        finally:
            client.acl_deluser("reader")


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "unix://", "redis://localhost/db"])
def test_an_impossible_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the kinds differ: scheme, path, number
        FeastRedisReader(None, url)
