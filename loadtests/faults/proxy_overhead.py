"""
What the fault proxy adds when it does nothing: round trips of 2 kB up and 8 kB down, direct and proxied in turn.

    python -m loadtests.faults.proxy_overhead [--rounds 5000]
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time

UP, DOWN = 2_000, 8_000
"""About one coalesced retrieval: a query with its history, 300 candidates with scores."""


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readexactly(UP)
            writer.write(bytes(DOWN))
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        writer.close()


async def _measure(rounds: int) -> None:
    service = await asyncio.start_server(_answer, "127.0.0.1", 0)
    port = service.sockets[0].getsockname()[1]
    listen, control = _free(), _free()
    command = [sys.executable, "-m", "orchestrator.doctor.fault_proxy", "--listen", f"127.0.0.1:{listen}"]
    command += ["--upstream", f"127.0.0.1:{port}", "--control", f"127.0.0.1:{control}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: ASYNC220 – nothing else runs yet
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        took: dict[str, list[float]] = {"direct": [], "proxied": []}
        ends = {
            name: await asyncio.open_connection("127.0.0.1", at) for name, at in (("direct", port), ("proxied", listen))
        }
        for _ in range(rounds):
            for name, (reader, writer) in ends.items():
                began_at = time.perf_counter()
                writer.write(bytes(UP))
                await reader.readexactly(DOWN)
                took[name].append((time.perf_counter() - began_at) * 1000)
        for _, writer in ends.values():
            writer.close()
        process.terminate()
    for name, ms in took.items():
        cuts = statistics.quantiles(ms, n=100)
        print(f"{name:8} p50 {cuts[49]:.3f} ms  p99 {cuts[98]:.3f} ms")
    ratio = statistics.median(took["proxied"]) / statistics.median(took["direct"])
    print(f"p50 ratio {ratio:.2f}, {statistics.median(took['proxied']) - statistics.median(took['direct']):+.3f} ms")


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5000)
    asyncio.run(_measure(parser.parse_args().rounds))
