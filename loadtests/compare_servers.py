"""
Which HTTP server costs least around the same application: cached slates, one process each, in alternation.

    tutti up --data DIR &                                    # Redis, model services, a running shop
    python -m loadtests.compare_servers --data DIR           # needs granian and hypercorn besides tutti's own packages

Prints CPU per request of each server as a ratio to the first one's. The rule: every server gets the same requests from
the same client, in turns, and what is compared is the median of the turns; absolute numbers are this machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httptools
import psutil
import uvloop

SERVERS = ("uvicorn", "granian", "hypercorn", "bare")
START_WITHIN_S = 300
PATIENT = {
    # A busy machine must not make the slates late: what is compared is a hit.
    "TUTTI_BUDGET__TOTAL_MS": "5000",
    "TUTTI_STAGES__CACHE__CAP_MS": "1000",
    "TUTTI_STAGES__USER__CAP_MS": "1000",
    "TUTTI_STAGES__RETRIEVE__CAP_MS": "1000",
    "TUTTI_STAGES__RERANK__CAP_MS": "1000",
    "TUTTI_SLATE_CACHE__FRESH_S": "7200",
    "TUTTI_ADMISSION__CRITICAL__CHEAP_LAG_MS": "900",
    "TUTTI_ADMISSION__CRITICAL__SHED_LAG_MS": "1000",
    "TUTTI_LOG__SLATES_SHARE": "0",
}


def application():
    """The orchestrator's, by the settings of TUTTI_CONFIG; granian imports it by this name."""
    from orchestrator import settings as tree
    from orchestrator.edge.app import create_app
    from orchestrator.telemetry import configure_logging

    settings = tree.load()
    configure_logging(settings.log.level, settings.log.format)
    return create_app(settings)


class Bare(asyncio.Protocol):
    """The least that could be called an HTTP/1.1 server: no limits, no pipelining, no drain, no time-outs."""

    def __init__(self, app, loop) -> None:
        self.app, self.loop = app, loop

    def connection_made(self, transport) -> None:
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.headers, self.body = [], b""

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        path = self.url.decode()
        scope = {"type": "http", "method": self.parser.get_method().decode(), "path": path, "headers": self.headers}
        scope |= {"query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http"}
        self.loop.create_task(self.app(scope, self.receive, self.send))

    async def receive(self) -> dict:
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message: dict) -> None:
        if message["type"] == "http.response.start":
            lines = [b"%b: %b\r\n" % header for header in message["headers"]]
            self.head = b"HTTP/1.1 %d OK\r\n%b\r\n" % (message["status"], b"".join(lines))
        else:
            self.transport.write(self.head + message["body"])


def serve(name: str, port: int) -> None:
    """Run *name* on *port* until it is ended."""
    match name:
        case "uvicorn":
            import uvicorn

            uvicorn.run(
                application(),
                port=port,
                access_log=False,
                log_level="warning",
                server_header=False,
                date_header=False,
                proxy_headers=False,
            )
        case "granian":
            from granian import Granian
            from granian.constants import Interfaces, Loops

            target = "loadtests.compare_servers:application"
            Granian(
                target,
                "127.0.0.1",
                port,
                interface=Interfaces.ASGI,
                loop=Loops.uvloop,
                factory=True,
                log_access=False,
                log_enabled=False,
            ).serve()
        case "hypercorn":
            from hypercorn.asyncio import serve as hypercorn_serve
            from hypercorn.config import Config

            config = Config()
            config.bind, config.include_server_header, config.include_date_header = [f"127.0.0.1:{port}"], False, False
            config.keep_alive_max_requests = 10**9
            uvloop.run(hypercorn_serve(application(), config))
        case _:
            uvloop.run(_bare(port))


async def _bare(port: int) -> None:
    app, loop = application(), asyncio.get_running_loop()
    async with app.router.lifespan_context(app):
        server = await loop.create_server(lambda: Bare(app, loop), "127.0.0.1", port)
        await server.serve_forever()


class Client(asyncio.Protocol):
    """Asks, reads the whole answer, asks again, on one connection."""

    def __init__(self, requests: Sequence[bytes], left: list[int], is_done: asyncio.Event) -> None:
        self.requests, self.left, self.is_done = requests, left, is_done
        self.read, self.whole, self.hits = b"", 0, 0

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        if self.left[0] <= 0:
            self.is_done.set()
            return
        self.left[0] -= 1
        self.transport.write(self.requests[self.left[0] % len(self.requests)])

    def data_received(self, data: bytes) -> None:
        self.read += data
        if not self.whole:
            head, separator, _ = self.read.partition(b"\r\n\r\n")
            if not separator:
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.whole = len(head) + 4 + int(length)
        if len(self.read) >= self.whole:
            self.hits += b'"from_cache":true' in self.read
            self.read, self.whole = b"", 0
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_done.set()


async def ask(port: int, requests: Sequence[bytes], n: int, in_flight: int) -> int:
    """Make *n* requests over *in_flight* connections; how many were answered from the cache."""
    loop, left = asyncio.get_running_loop(), [n]
    clients = []
    for _ in range(in_flight):
        done = asyncio.Event()
        _, client = await loop.create_connection(lambda done=done: Client(requests, left, done), "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.is_done.wait() for client in clients))
    for client in clients:
        client.transport.abort()
    return sum(client.hits for client in clients)


def cpu_s(process: psutil.Process) -> float:
    """Of the process and its children."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def requests_of(data: Path) -> list[bytes]:
    """One request for each sample shopper."""
    found = []
    for shopper in json.loads((data / "shoppers.json").read_text()):
        body = json.dumps({"placement": "home", "user_id": shopper["user_id"], "count": 20}).encode()
        head = b"POST /v1/recommendations HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n"
        found.append(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    return found


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        return int(here.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody listens on *port*."""
    until = time.monotonic() + START_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def main() -> None:
    """Compare, or be one of those that are compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data directory of a running `tutti up`")
    parser.add_argument("--requests", type=int, default=2000, help="in each turn")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--servers", nargs="+", default=SERVERS, choices=SERVERS)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.port)
        return
    environment = {**os.environ, **PATIENT, "TUTTI_CONFIG": str(arguments.data / "run" / "settings.toml")}
    requests, running = requests_of(arguments.data), {}
    try:
        for name in arguments.servers:
            port = free_port()
            command = [sys.executable, "-m", "loadtests.compare_servers", "--serve", name, "--port", str(port)]
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            running[name] = (process, psutil.Process(process.pid), port)
        for _, _, port in running.values():
            wait_for(port)
            uvloop.run(ask(port, requests, 30 * len(requests), 4))
        spent: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(arguments.turns):
            for name, (_, process, port) in running.items():
                before = cpu_s(process)
                hits = uvloop.run(ask(port, requests, arguments.requests, arguments.in_flight))
                if hits < 0.99 * arguments.requests:
                    print(f"{name}: only {hits} of {arguments.requests} from the cache", file=sys.stderr)
                spent[name].append((cpu_s(process) - before) / arguments.requests * 1e6)
        first = statistics.median(spent[arguments.servers[0]])
        for name, each in spent.items():
            middle = statistics.median(each)
            print(f"{name:10} {middle / first:5.2f}   {middle:5.0f} µs ({min(each):.0f} to {max(each):.0f})")
    finally:
        # Without asking: granian was seen to go on for nine minutes after SIGTERM, and nothing is lost here.
        for process, watched, _ in running.values():
            for one in (*watched.children(recursive=True), watched):
                one.kill()
            process.wait()


if __name__ == "__main__":
    main()
