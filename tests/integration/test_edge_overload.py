"""A refusal on a real connection: its sender gets the answer, and the connection carries the next request."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn

from orchestrator import settings as tree
from orchestrator.core.lag import Lag
from orchestrator.edge.admission import Admission
from orchestrator.edge.app import create_app
from orchestrator.telemetry import new_metrics
from tests.unit.edge.conftest import LogTwin, LoopTwin, PipelineTwin, RunningTwin, ShopTwin

pytestmark = pytest.mark.integration

BODY = b'{"placement":"home","count":1}'


@pytest.fixture
async def served(tmp_path):
    """(port, running): the application behind uvicorn, on twins."""
    settings = tree.load(None, {"TUTTI_DATA__PATH": str(tmp_path)})
    running = RunningTwin(settings, PipelineTwin(), ShopTwin(), LogTwin(), {}, True, loop=LoopTwin())

    @asynccontextmanager
    async def start(_):
        yield running

    admission = Admission(settings, new_metrics())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            create_app(settings, start, admission), log_level="error", http="httptools", lifespan="on"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        yield listener.getsockname()[1], running
        assert admission.limiter.in_flight == 0
        server.should_exit = True
        async with asyncio.timeout(10):
            await serving


@asynccontextmanager
async def connection(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


def head(*headers):
    return "\r\n".join(["POST /v1/recommendations HTTP/1.1", "Host: shop", *headers, "", ""]).encode()


TYPE, LENGTH = "Content-Type: application/json", f"Content-Length: {len(BODY)}"


async def answer(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers


@pytest.mark.parametrize("encoding", [LENGTH, "Transfer-Encoding: chunked"])
async def test_a_refused_connection_carries_the_next_request(served, encoding):
    port, running = served
    body = BODY if encoding == LENGTH else b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    running.loop.lag = Lag(0.1)

    async with connection(port) as (reader, writer):
        # The body comes after the answer: nobody waited for it.
        writer.write(head(TYPE, encoding))
        refused, headers = await answer(reader)
        running.loop.lag = Lag(0.0)
        writer.write(body + head(TYPE, encoding) + body)
        accepted, _ = await answer(reader)

    assert (refused, accepted) == (503, 200)
    assert "connection" not in headers
    assert len(running.pipeline.queries) == 1


async def test_a_body_that_waits_to_be_asked_for_is_not_asked_for_and_the_connection_ends(served):
    port, running = served
    running.loop.lag = Lag(0.1)

    async with connection(port) as (reader, writer):
        writer.write(head(TYPE, LENGTH, "Expect: 100-continue"))
        status, headers = await answer(reader)
        rest = await reader.read()

    assert (status, headers["connection"], rest) == (503, "close", b"")


async def test_a_draining_process_closes_behind_its_answer(served):
    port, running = served
    running.is_draining = True

    async with connection(port) as (reader, writer):
        writer.write(head(TYPE, LENGTH) + BODY)
        status, headers = await answer(reader)
        rest = await reader.read()

    assert (status, headers["connection"], rest) == (200, "close", b"")


# case 10: client_disconnect
async def test_a_caller_who_hangs_up_leaves_no_place_taken_and_no_error(served, caplog):
    port, running = served
    asked, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def meanwhile(_floor):
        asked.set()
        await go.wait()
        done.set()

    running.pipeline.meanwhile = meanwhile
    async with connection(port) as (_, writer):
        writer.write(head(TYPE, LENGTH) + BODY)
        await asked.wait()

    go.set()
    async with asyncio.timeout(10):
        await done.wait()
    running.pipeline.meanwhile = None
    async with connection(port) as (reader, writer):
        writer.write(head(TYPE, LENGTH) + BODY)
        assert (await answer(reader))[0] == 200
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
