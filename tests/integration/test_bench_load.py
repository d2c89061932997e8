"""The load against a server of ours: what is counted, and what is never lost; and whose CPU is read."""

import asyncio
import subprocess
import sys

import pytest

from services.bench import cpu
from services.bench.client import Load, Spec
from services.bench.wire import Connection

pytestmark = pytest.mark.integration

SLATE = b'{"items":[{"id":"a"}],"quality":{"level":"full","from_cache":false}}'
PAIR = [[["/a", "{}"], ["/b", "{}"]]]
"""One unit of two requests: a page on an edge without pages."""


def an_answer(body=SLATE, status="200 OK"):
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Edge:
    """A server that answers 200 with a slate, but what *turns* says: number of the request → what happens instead."""

    def __init__(self, turns=None):
        self.turns, self.asked, self.connections = turns or {}, 0, 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                assert b"content-length: 2" in head
                self.asked += 1
                turn = self.turns.get(self.asked, self.turns.get("all"))
                if turn == "hangs":
                    await asyncio.Event().wait()
                if turn == "closes":
                    break
                if turn == "waits":
                    await asyncio.sleep(0.1)
                    turn = None
                status, body = turn or (200, SLATE)
                writer.write(an_answer(body, f"{status} x"))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def counted(edge, *, concurrency=None, rate=None, units=(((("/a", "{}")),),), seconds=0.2, warm_s=0.0):
    server = await asyncio.start_server(edge.serve, "127.0.0.1", 0)
    async with server:
        spec = Spec(server.sockets[0].getsockname()[1], units, 0, concurrency, rate, warm_s, seconds, seed=1)
        load = Load(spec, asyncio.get_running_loop())
        await load.run()
        server.close()
        return load


async def test_a_closed_loop_keeps_so_many_under_way_and_counts_what_ends_meanwhile(capsys):
    edge = Edge()

    load = await counted(edge, concurrency=3)

    assert edge.connections == 3
    assert capsys.readouterr().out.split() == ["begin", "end"]
    assert not load.failures
    assert load.levels == {"full": len(load.latencies_us)}
    # At most the three that were under way when counting began or ended are not in it.
    assert edge.asked - 6 <= len(load.latencies_us) <= edge.asked


async def test_a_stretch_shorter_than_an_answer_lasts_until_there_is_one():
    load = await counted(Edge({1: "waits"}), concurrency=1, seconds=0.001)

    assert load.latencies_us
    assert load.latencies_us[0] >= 100_000
    assert load.to_json()["seconds"] * 1e6 >= load.latencies_us[0] - 10_000


async def test_a_unit_of_two_is_answered_when_both_are():
    edge = Edge()

    load = await counted(edge, concurrency=2, units=PAIR)

    assert edge.connections == 4
    assert load.levels == {"full": 2 * len(load.latencies_us)}


async def test_what_is_refused_empty_or_lost_is_counted_by_its_name():
    edge = Edge({5: (503, b"{}"), 6: (200, SLATE.replace(b'[{"id":"a"}]', b"[]")), 7: "closes"})

    load = await counted(edge, concurrency=1)

    assert load.failures == {"503": 1, "empty": 1, "disconnected": 1}
    # It went on, on a new connection.
    assert edge.connections == 2
    assert edge.asked > 7


async def test_an_open_loop_sends_what_is_due_whatever_became_of_those_before(monkeypatch):
    monkeypatch.setattr("services.bench.client.PATIENCE_S", 0.5)
    edge = Edge({"all": "hangs"})

    load = await counted(edge, rate=200, seconds=0.5)

    # 200 a second for half a second, by chance: a hundred, give or take three times ten.
    assert 60 < load.failures["unanswered"] < 140
    # A closed loop would have sent one. A busy machine may not have taken all of them yet.
    assert 1 < edge.asked <= load.failures["unanswered"]
    assert load.latencies_us == []


async def test_an_open_loop_times_from_when_a_request_was_due():
    load = await counted(Edge(), rate=100, seconds=0.5)

    assert 25 < len(load.latencies_us) < 80
    assert min(load.latencies_us) > 0
    assert not load.failures


async def test_a_server_that_is_not_there_is_failures_and_an_end():
    spec = Spec(1, PAIR, 0, None, 50.0, 0.0, 0.2, seed=1)
    load = Load(spec, asyncio.get_running_loop())

    await load.run()

    assert set(load.failures) == {"disconnected"}
    assert load.latencies_us == []


async def served(*answers):
    """What a connection makes of a server that sends *answers*, one a request, in pieces of seven bytes."""

    async def serve(reader, writer):
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            for start in range(0, len(answer), 7):
                writer.write(answer[start : start + 7])
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    ended = asyncio.Queue()
    async with server:
        loop = asyncio.get_running_loop()
        port = server.sockets[0].getsockname()[1]
        _, connection = await loop.create_connection(
            lambda: Connection(lambda one, answer: ended.put_nowait((one.tag, answer))), "127.0.0.1", port
        )
        found = []
        for number in range(len(answers) + 1):
            connection.send(b"GET / HTTP/1.1\r\n\r\n", number)
            found.append(await ended.get())
    return found


async def test_each_request_ends_exactly_once_also_when_the_connection_is_lost():
    found = await served(an_answer(), an_answer(b"{}", "404 Not Found"))

    assert [tag for tag, _ in found] == [0, 1, 2]
    assert [None if answer is None else answer.status for _, answer in found] == [200, 404, None]


def test_a_process_that_has_ended_is_named():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    with pytest.raises(cpu.ProcessGone, match=r"redis .* ended while it was measured"):
        cpu.snapshot({"redis": process.pid})
