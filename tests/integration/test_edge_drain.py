"""Workers behind one listening socket: none of their ends costs a client a request."""

import asyncio
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from orchestrator.supervisor.ports import listen
from tests.support.open_loop import Client, under_load
from tests.support.ports import free_port

pytestmark = pytest.mark.integration


CLIENT_PATIENCE_S = 60
"""
What is proven is that nothing is refused or reset. How long a request waits for the only worker is how long a process
takes to start: seconds, and more than ten on a machine with eight other things to do, where a patience of 10 s failed.
"""


class Worker:
    def __init__(self, listener, drain_s=1.0):
        self.own = f"127.0.0.1:{free_port()}"
        fd = listener.fileno()
        command = [
            sys.executable,
            "-m",
            "tests.support.fake_service",
            "http",
            self.own,
            "--fd",
            str(fd),
            "--drain",
            f"{drain_s}",
        ]
        self.process = subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE)

    def readyz(self):
        """Its status by itself; None when nobody listens there."""
        try:
            with urllib.request.urlopen(f"http://{self.own}/readyz", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    async def ready(self):
        async with asyncio.timeout(30):
            while await asyncio.to_thread(self.readyz) != 200:  # noqa: ASYNC110 – another process
                await asyncio.sleep(0.05)

    async def ended(self):
        return await asyncio.to_thread(self.process.wait, 10)


@contextmanager
def workers(count, drain_s=1.0):
    with listen("127.0.0.1", 0) as listener:
        started = [Worker(listener, drain_s) for _ in range(count)]

        def one_more():
            started.append(Worker(listener, drain_s))
            return started[-1]

        try:
            yield started[:], Client(*listener.getsockname(), timeout_s=CLIENT_PATIENCE_S), one_more
        finally:
            for worker in started:
                worker.process.kill()
                worker.process.communicate()


async def test_one_of_two_workers_ends_under_load_and_no_request_is_lost():
    with workers(2) as ((first, second), client, _):
        await first.ready()
        await second.ready()

        async with under_load(client, rate=100):
            await asyncio.sleep(1)
            first.process.send_signal(signal.SIGTERM)
            code = await first.ended()
            await asyncio.sleep(0.5)

    outcome = client.outcome
    assert outcome.failures == []
    assert code == 0
    assert len(outcome.answers) > 150
    assert outcome.bodies <= {str(worker.process.pid).encode() for worker in (first, second)}
    assert str(second.process.pid).encode() in outcome.bodies


async def test_the_only_worker_is_replaced_under_load_and_requests_are_late_but_not_lost():
    with workers(1) as ((old,), client, one_more):
        await old.ready()

        async with under_load(client, rate=5):  # a slow start must not fill the queue of 128
            await asyncio.sleep(1)
            old.process.send_signal(signal.SIGTERM)
            code = await old.ended()
            new = one_more()
            await new.ready()
            await asyncio.sleep(0.5)

    outcome = client.outcome
    assert outcome.failures == []
    assert code == 0
    assert outcome.bodies == {str(old.process.pid).encode(), str(new.process.pid).encode()}
    assert outcome.closes_announced > 0


async def test_a_draining_worker_says_so_at_its_own_address_while_open_connections_are_served():
    with workers(1) as ((worker,), client, _):
        await worker.ready()
        reader, writer = await asyncio.open_connection(*client._address)

        async def ask():
            writer.write(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            return head.lower(), await reader.readexactly(len(str(worker.process.pid)))

        before, _ = await ask()
        worker.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)  # a client may be silent that long
        readyz = await asyncio.to_thread(worker.readyz)
        during, body = await ask()
        rest = await reader.read()
        writer.close()
        code = await worker.ended()

    assert b"connection: close" not in before
    assert readyz == 503
    assert during.startswith(b"http/1.1 200")
    assert during.count(b"connection: close") == 1
    assert (body, rest, code) == (str(worker.process.pid).encode(), b"", 0)


async def test_a_worker_that_nobody_is_connected_to_ends_without_waiting():
    with workers(1, drain_s=60) as ((worker,), _, _):
        await worker.ready()
        worker.process.send_signal(signal.SIGTERM)

        assert await worker.ended() == 0
