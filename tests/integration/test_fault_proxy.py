"""Each toxic as a plain TCP client sees it, through a proxy on loopback before an echoing service."""

import asyncio
import errno
import json
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import pytest

from orchestrator.doctor.fault_proxy import FaultProxy, serve_control
from orchestrator.doctor.toxics import Direction, Kind, Toxic, both_ways
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

SOON_S = 2.0
QUICK_S = 0.1


async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass  # the end of the test
    finally:
        writer.close()


@asynccontextmanager
async def a_proxy(seed=1):
    service = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = FaultProxy(("127.0.0.1", 0), service.sockets[0].getsockname(), seed)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
        service.close()


@asynccontextmanager
async def a_client(proxy):
    reader, writer = await asyncio.open_connection(*proxy.address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def said(client, data, n=None):
    """What comes back for *data*, and after how many seconds."""
    reader, writer = client
    began_at = time.perf_counter()
    writer.write(data)
    async with asyncio.timeout(SOON_S):
        back = await reader.readexactly(len(data) if n is None else n)
    return back, time.perf_counter() - began_at


async def until(claim):
    async with asyncio.timeout(SOON_S):
        while not claim():  # noqa: ASYNC110 – the proxy has no event to wait for
            await asyncio.sleep(0)


async def cut_after(client, limit):
    """How many round trips worked before the connection was reset."""
    for answered in range(limit):
        try:
            await said(client, b"x")
        except ConnectionResetError:
            return answered
    return limit


async def test_without_toxics_every_byte_passes_both_ways_and_so_does_the_end():
    big = bytes(range(256)) * 4096

    async with a_proxy() as proxy, a_client(proxy) as (reader, writer):
        writer.write(big)
        writer.write_eof()
        async with asyncio.timeout(SOON_S):
            back = await reader.read(-1)
        stats = proxy.stats()

    assert len(back) == len(big)
    assert hash(back) == hash(big), "pytest would take minutes to show how a megabyte differs"
    assert stats["bytes"] == {"up": len(big), "down": len(big)}
    assert stats["accepted"] == 1


async def test_a_connection_that_both_sides_ended_is_forgotten():
    async with a_proxy() as proxy, a_client(proxy) as (reader, writer):
        writer.write_eof()
        async with asyncio.timeout(SOON_S):
            assert await reader.read(-1) == b""
        await until(lambda: not proxy.links)


async def test_latency_delays_and_keeps_the_order():
    async with a_proxy() as proxy, a_client(proxy) as client:
        await proxy.change([Toxic(Kind.LATENCY, ms=60, jitter_ms=20)])
        back, took_s = await said(client, b"one")
        client[1].write(b"two")
        again, _ = await said(client, b"three", 8)

    assert back == b"one"
    assert 0.04 <= took_s < 0.3
    assert again == b"twothree"


async def test_latency_touches_only_its_share():
    async with a_proxy(seed=3) as proxy, a_client(proxy) as client:
        await proxy.change([Toxic(Kind.LATENCY, ms=20, share=0.3)])
        slow = sum([(await said(client, b"x"))[1] > 0.015 for _ in range(40)])

    assert 5 <= slow <= 20


async def test_bandwidth_paces_the_bytes():
    async with a_proxy() as proxy, a_client(proxy) as client:
        await proxy.change([Toxic(Kind.BANDWIDTH, bytes_per_s=100_000)])
        _, took_s = await said(client, bytes(20_000))

    assert 0.15 <= took_s < 1.0


@pytest.mark.parametrize("toxics", [[Toxic(Kind.HANG)], [Toxic(Kind.HANG, Direction.UP)], both_ways(Toxic(Kind.HANG))])
async def test_a_hang_keeps_the_connection_and_what_was_said_arrives_after_it(toxics):
    async with a_proxy() as proxy, a_client(proxy) as (reader, writer):
        await proxy.change(toxics)
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(QUICK_S):
                await reader.readexactly(1)
        await proxy.change([])
        async with asyncio.timeout(SOON_S):
            back = await reader.readexactly(5)

    assert back == b"hello"


async def test_refuse_is_a_closed_port_until_it_is_healed():
    async with a_proxy() as proxy, a_client(proxy) as before:
        await proxy.change([Toxic(Kind.REFUSE)])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*proxy.address)
        still, _ = await said(before, b"open ones stay")
        await proxy.change([])
        async with a_client(proxy) as client:
            back, _ = await said(client, b"healed")

    assert still == b"open ones stay"
    assert back == b"healed"


async def test_a_reset_now_cuts_open_connections_with_rst():
    async with a_proxy() as proxy, a_client(proxy) as client:
        await said(client, b"x")
        await proxy.change([Toxic(Kind.RESET, now=True)])
        with pytest.raises(ConnectionResetError):
            await said(client, b"y")

        assert proxy.stats()["reset"] == 1


async def test_a_reset_by_share_cuts_in_the_middle_of_a_stream():
    async with a_proxy(seed=5) as proxy, a_client(proxy) as client:
        await proxy.change([Toxic(Kind.RESET, share=0.2)])
        answered = await cut_after(client, 100)

    assert 0 < answered < 100


async def test_the_slicer_drips():
    async with a_proxy() as proxy, a_client(proxy) as (reader, writer):
        await proxy.change([Toxic(Kind.SLICER, bytes=1, ms=20)])
        writer.write(b"drip")
        parts = []
        async with asyncio.timeout(SOON_S):
            while b"".join(parts) != b"drip":
                parts.append(await reader.read(100))

    assert parts == [b"d", b"r", b"i", b"p"]


async def test_limit_data_ends_the_connection_in_the_middle_of_an_answer():
    async with a_proxy() as proxy, a_client(proxy) as (reader, writer):
        await proxy.change([Toxic(Kind.LIMIT_DATA, bytes=3)])
        writer.write(b"truncated")
        async with asyncio.timeout(SOON_S):
            back = await reader.read(-1)

    assert back == b"tru"


async def test_corrupt_flips_one_byte_of_a_chunk():
    async with a_proxy() as proxy, a_client(proxy) as client:
        await proxy.change([Toxic(Kind.CORRUPT)])
        back, _ = await said(client, bytes(50))

    assert sorted(back) == [0] * 49 + [0xFF]


async def test_half_close_ends_one_direction_while_the_other_still_carries():
    async with a_proxy() as proxy, a_client(proxy) as (reader, writer):
        await said((reader, writer), b"x")
        up_before = proxy.stats()["bytes"]["up"]
        await proxy.change([Toxic(Kind.HALF_CLOSE)])
        async with asyncio.timeout(SOON_S):
            assert await reader.read(-1) == b""
        writer.write(b"into the void")
        await until(lambda: proxy.stats()["bytes"]["up"] == up_before + 13)


async def test_slow_close_holds_the_end_back():
    async with a_proxy() as proxy, a_client(proxy) as (reader, writer):
        await proxy.change([Toxic(Kind.SLOW_CLOSE, ms=80)])
        began_at = time.perf_counter()
        writer.write_eof()
        async with asyncio.timeout(SOON_S):
            assert await reader.read(-1) == b""

    assert time.perf_counter() - began_at >= 0.075


async def test_a_service_that_is_not_there_is_a_reset_and_not_a_silence():
    proxy = FaultProxy(("127.0.0.1", 0), ("127.0.0.1", free_port()))
    await proxy.start()
    try:
        async with a_client(proxy) as (reader, _), asyncio.timeout(SOON_S):
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
    finally:
        await proxy.close()


async def test_what_a_control_connection_holds_is_healed_when_it_ends():
    async with a_proxy() as proxy, a_client(proxy) as client:
        control = await serve_control(proxy, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*control.sockets[0].getsockname())
        writer.write(json.dumps({"command": "set", "toxics": [{"kind": "hang"}], "hold": True}).encode() + b"\n")
        held = json.loads(await reader.readline())
        while_held = proxy.toxics
        writer.close()
        back, _ = await said(client, b"healed")
        control.close()

    assert held == {"ok": True}
    assert while_held == (Toxic(Kind.HANG),)
    assert back == b"healed"


def test_the_process_obeys_its_control_socket_and_ends_on_sigterm():
    listen, control, nobody = free_port(), free_port(), free_port()
    command = [sys.executable, "-m", "orchestrator.doctor.fault_proxy"]
    for name, port in (("listen", listen), ("control", control), ("upstream", nobody)):
        command += [f"--{name}", f"127.0.0.1:{port}"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("ready")
        replies = asyncio.run(
            _commands(control, [{"command": "nonsense"}, {"command": "set", "toxics": [{"kind": "refuse"}]}])
        )
        refused = asyncio.run(_error_of(listen))
        process.terminate()
        code = process.wait(5)

    assert [reply["ok"] for reply in replies] == [False, True]
    assert "set, clear, stats" in replies[0]["error"]
    assert refused == errno.ECONNREFUSED
    assert code == 0


async def _commands(port, commands):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = []
    for command in commands:
        writer.write(json.dumps(command).encode() + b"\n")
        replies.append(json.loads(await reader.readline()))
    writer.close()
    return replies


async def _error_of(port):
    try:
        await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return error.errno
    return None
