"""uvicorn with answers that leave in one write: all else of HTTP/1.1 as uvicorn has it."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import uvicorn

from orchestrator.edge.one_write import OneWrite
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

LARGE = b"x" * 5_000_000


async def app(scope, receive, send):
    """Answers with its path; /large with 5 MB; /late in two pieces, a turn apart; /fails not at all."""
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    if scope["path"] == "/fails":
        raise LookupError
    said = LARGE if scope["path"] == "/large" else scope["path"].encode() + body
    headers = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/late":
        await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": said[:2], "more_body": True})
        await asyncio.sleep(0.01)
        said = said[2:]
    await send({"type": "http.response.body", "body": said})


@asynccontextmanager
async def serving():
    """A server, its port, and what each call of its transports' `write` was given."""
    writes = []

    class Noting(OneWrite):
        def connection_made(self, transport):
            write = transport.write
            noting = type("T", (), {"__getattr__": lambda _, name: getattr(transport, name)})()
            noting.write = lambda data: writes.append(data) or write(data)
            super().connection_made(noting)

    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, http=Noting, lifespan="off", log_level="critical")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 – uvicorn has no event for it
        await asyncio.sleep(0.005)
    try:
        yield server, port, writes
    finally:
        server.should_exit = True
        await serving


async def answer(reader):
    """Head and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    return head, await reader.readexactly(length)


def get(path, *headers, method=b"GET"):
    return b"%b %b HTTP/1.1\r\nhost: shop\r\n%b\r\n" % (method, path, b"".join(line + b"\r\n" for line in headers))


@asynccontextmanager
async def connected(port):
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def test_head_and_body_leave_in_one_write_and_the_connection_is_kept():
    async with serving() as (_, port, writes), connected(port) as (reader, writer):
        for path in (b"/a", b"/b"):
            writer.write(get(path))
            assert (await answer(reader))[1] == path

        assert len(writes) == 2


async def test_requests_sent_together_are_answered_in_their_order():
    async with serving() as (_, port, _), connected(port) as (reader, writer):
        writer.write(b"".join(get(b"/%d" % n) for n in range(20)))

        assert [(await answer(reader))[1] for _ in range(20)] == [b"/%d" % n for n in range(20)]


async def test_what_comes_in_pieces_comes_whole_and_in_order():
    async with serving() as (_, port, _), connected(port) as (reader, writer):
        writer.write(get(b"/late") + get(b"/next"))

        assert [(await answer(reader))[1] for _ in range(2)] == [b"/late", b"/next"]


async def test_an_answer_larger_than_any_buffer_comes_whole_to_who_reads_slowly():
    async with serving() as (_, port, _), connected(port) as (reader, writer):
        writer.write(get(b"/large") + get(b"/next"))
        await asyncio.sleep(0.05)

        assert (await answer(reader))[1] == LARGE
        assert (await answer(reader))[1] == b"/next"


async def test_a_head_without_a_body_is_sent():
    async with serving() as (_, port, _), connected(port) as (reader, writer):
        writer.write(get(b"/a", method=b"HEAD") + get(b"/b"))

        assert b"content-length: 2" in await reader.readuntil(b"\r\n\r\n")
        assert (await answer(reader))[1] == b"/b"


async def test_who_waits_to_be_asked_for_the_body_is_asked():
    async with serving() as (_, port, _), connected(port) as (reader, writer):
        writer.write(get(b"/a", b"expect: 100-continue", b"content-length: 4", method=b"POST"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"body")

        assert (await answer(reader))[1] == b"/abody"


@pytest.mark.parametrize(
    ("sent", "status"),
    [(get(b"/a", b"connection: close"), b"200"), (get(b"/fails"), b"500"), (b"no such thing\r\n\r\n", b"400")],
)
async def test_a_connection_that_ends_with_its_answer_sends_all_of_it_before(sent, status):
    async with serving() as (_, port, _), connected(port) as (reader, writer):
        writer.write(sent)
        received = await reader.read()

    assert received.startswith(b"HTTP/1.1 " + status)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert len(body) == int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


async def test_a_client_that_leaves_in_the_middle_troubles_nobody():
    async with serving() as (_, port, _):
        async with connected(port) as (_, writer):
            writer.write(get(b"/large"))
            await writer.drain()
            writer.transport.abort()
        async with connected(port) as (reader, writer):
            writer.write(get(b"/a"))

            assert (await answer(reader))[1] == b"/a"


async def test_a_server_that_ends_finishes_what_it_answers():
    async with serving() as (server, port, _), connected(port) as (reader, writer):
        writer.write(get(b"/late"))
        head = await reader.readuntil(b"\r\n\r\n")
        server.should_exit = True

        assert b"content-length: 5" in head
        assert await reader.readexactly(5) == b"/late"
