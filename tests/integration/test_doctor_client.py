"""The load's HTTP client before servers that behave, close, refuse, hang and talk nonsense."""

import asyncio
import json
import socket
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress

import pytest

from orchestrator.doctor import history
from orchestrator.doctor.http_client import Client, NoAnswer, get, post
from orchestrator.doctor.load import Segment, Spec, run_load
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

USERS, ITEMS = ("u1", "u2"), tuple(f"i{n}" for n in range(40))


def an_answer(status, body, headers=""):
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


A_SLATE = json.dumps(
    {
        "items": [{"id": f"x{n}", "rank": n + 1} for n in range(12)],
        "quality": {"level": "full", "degraded": [], "sources": [], "from_cache": False},
    }
).encode()


@asynccontextmanager
async def a_server(answer):
    """Calls `answer(n, request)` for the n-th request of all: bytes to send, None to close, ... to say nothing."""
    requests = []

    async def serve(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((int(h[15:]) for h in head.split("\r\n") if h.startswith("content-length:")), 0)
                requests.append(head + (await reader.readexactly(length)).decode())
                reply = answer(len(requests), requests[-1])
                if reply is None:
                    return
                if reply is not ...:
                    writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield host, port, requests
    finally:
        server.close()


async def test_one_connection_carries_many_requests():
    async with a_server(lambda n, _: an_answer("200 OK", b"%d" % n, "retry-after: 3\r\n")) as (host, port, requests):
        client = Client(host, port)
        first = await client.ask(post("h", "/p", b"{}", "x-request-priority: bulk\r\n"), 1)
        second = await client.ask(get("h", "/q"), 1)
        client.close()

    assert (first.status, first.body, second.body) == (200, b"1", b"2")
    assert first.header("retry-after") == "3"
    assert first.header("absent") is None
    assert "x-request-priority: bulk" in requests[0]
    assert client.n_retried == 0


async def test_a_connection_closed_while_idle_is_replaced_once_and_counted():
    async with a_server(lambda n, _: None if n == 2 else an_answer("200 OK", b"")) as (host, port, requests):
        client = Client(host, port)
        await client.ask(get("h", "/"), 1)
        reply = await client.ask(get("h", "/"), 1)
        client.close()

    assert reply.status == 200
    assert client.n_retried == 1
    assert len(requests) == 3


async def test_a_fresh_connection_that_is_closed_is_no_answer():
    async with a_server(lambda n, _: None) as (host, port, _):
        with pytest.raises(NoAnswer, match="reset"):
            await Client(host, port).ask(get("h", "/"), 1)


async def test_nobody_listening_is_refused():
    with pytest.raises(NoAnswer, match="refused"):
        await Client("127.0.0.1", free_port()).ask(get("h", "/"), 1)


async def test_silence_is_a_timeout_and_that_connection_is_not_used_again():
    async with a_server(lambda n, _: ... if n == 1 else an_answer("200 OK", b"%d" % n)) as (host, port, _):
        client = Client(host, port)
        with pytest.raises(NoAnswer, match="timeout"):
            await client.ask(get("h", "/"), 0.05)
        reply = await client.ask(get("h", "/"), 1)
        client.close()

    assert reply.body == b"2"


# At ten times the knee the load was a second late now and then, and 72 of 12,747 answers that had come counted as none.
def test_an_answer_that_lies_there_when_a_late_client_would_give_up_is_taken():
    has_asked, stands_still, has_answered = threading.Event(), threading.Event(), threading.Event()

    def serve(listener):
        with listener.accept()[0] as peer:
            peer.recv(65536)
            has_asked.set()
            stands_still.wait(5)
            peer.sendall(an_answer("200 OK", b"in time"))
            has_answered.set()
            with suppress(ConnectionError):
                peer.recv(1)

    def stand_still_once_asked(until):
        if not has_asked.is_set():
            asyncio.get_running_loop().call_soon(stand_still_once_asked, until)
            return
        stands_still.set()
        has_answered.wait(5)
        while time.monotonic() < until:
            time.sleep(0.01)

    async def ask(host, port):
        client = Client(host, port)
        asyncio.get_running_loop().call_soon(stand_still_once_asked, time.monotonic() + 0.4)
        try:
            return await client.ask(get("h", "/"), 0.2)
        finally:
            client.close()

    # The loop of the load's process: it fires timers before it wakes whoever waits for what it has read.
    uvloop = pytest.importorskip("uvloop")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        reply = uvloop.run(ask(*listener.getsockname()))
        server.join(5)

    assert reply.body == b"in time"


async def test_what_is_not_http_is_garbage():
    async with a_server(lambda n, _: b"SSH-2.0\r\n\r\n") as (host, port, _):
        with pytest.raises(NoAnswer, match="garbage"):
            await Client(host, port).ask(get("h", "/"), 1)


async def test_a_load_sends_its_schedule_and_tells_of_every_answer():
    async with a_server(lambda n, _: an_answer("200 OK", A_SLATE)) as (host, port, requests):
        seen = await run_load(
            Spec(host, port, (Segment(200, 0.25),), USERS, ITEMS, schedule="constant", priorities={"bulk": 1.0})
        )

    assert len(seen) == len(requests) == 50
    assert {one.status for one in seen} == {200}
    assert {one.priority for one in seen} == {"bulk"}
    assert all(one.scheduled_at <= one.sent_at <= one.done_at for one in seen)
    assert not any(one.broken for one in seen)


async def test_a_stalled_server_does_not_hold_back_the_schedule_and_is_charged_for_all_of_it():
    async with a_server(lambda n, _: ...) as (host, port, requests):
        load = asyncio.create_task(run_load(Spec(host, port, (Segment(100, 0.2),), USERS, ITEMS, schedule="constant")))
        async with asyncio.timeout(2):
            while len(requests) < 20:  # noqa: ASYNC110 – the server has no event to wait for
                await asyncio.sleep(0.01)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)

    assert len(requests) == 20


async def test_an_impatient_client_asks_again_and_its_time_counts_from_the_first():
    async with a_server(lambda n, _: ... if n < 3 else an_answer("200 OK", A_SLATE)) as (host, port, requests):
        spec = Spec(host, port, (Segment(10, 0.1),), USERS, ITEMS, schedule="constant", impatient_s=0.05, retries=3)
        (seen,) = await run_load(spec)

    assert len(requests) == 3
    assert seen.status == 200
    assert seen.latency_s >= 0.1


async def test_a_load_ends_with_whoever_started_it(tmp_path):
    async with a_server(lambda n, _: an_answer("200 OK", A_SLATE)) as (host, port, requests):
        spec = Spec(host, port, (Segment(50, 60),), USERS, ITEMS)
        (tmp_path / "spec.json").write_bytes(spec.document())
        command = ["-m", "orchestrator.doctor.load", str(tmp_path / "spec.json"), str(tmp_path / "seen.jsonl")]
        load = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--with-parent", stdin=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(10):
            while not requests:  # noqa: ASYNC110 – the server has no event to wait for
                await asyncio.sleep(0.01)
            load.stdin.close()
            code = await load.wait()

    assert code == 0
    assert len(history.read(tmp_path / "seen.jsonl")) == len(requests)
