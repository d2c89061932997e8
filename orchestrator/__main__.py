"""
`python -m orchestrator [--config FILE]`: the HTTP edge with the pipeline behind it, in one process.

With --fd it is one of several workers: it accepts from a socket that somebody else bound and keeps, and is reached
alone, for /readyz and /metrics, at --admin.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn

from orchestrator import settings as tree
from orchestrator.bootstrap import NotReady, Running, run
from orchestrator.edge.app import create_app
from orchestrator.edge.one_write import OneWrite
from orchestrator.edge.server import DrainingServer
from orchestrator.supervisor.ports import BACKLOG
from orchestrator.telemetry import configure_logging

KEEP_ALIVE_S = 75
"""Borrowed (nginx): above the 60 s or less after which clients and proxies give an idle connection up, so that it is
them who close it. Whoever closes first may cross a request that is on its way."""

IN_FLIGHT_S = 2
"""Derived: the slowest request, a batch of events, gives up after 1 s; twice that for sending its body."""


def main() -> int:
    """Serve until SIGTERM; 1 when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator", description=__doc__)
    parser.add_argument("--config", type=Path, help="TOML laid over orchestrator/defaults.toml")
    parser.add_argument("--fd", type=int, help="a listening socket to take over instead of binding edge.host:edge.port")
    parser.add_argument("--admin", metavar="HOST:PORT", help="with --fd: where this process alone is reached")
    arguments = parser.parse_args()
    if (arguments.fd is None) != (arguments.admin is None):
        parser.error("--fd and --admin go together: over a shared socket nobody can tell which worker answers")
    try:
        settings = tree.load(arguments.config)
    except tree.SettingsError as error:
        print(f"settings: {error}", file=sys.stderr)  # noqa: T201
        return 1
    configure_logging(settings.log.level, settings.log.format)
    alive: list[Running] = []

    def on_drain() -> None:
        for running in alive:
            running.is_draining = True

    # uvicorn reports what a lifespan raised as a page of trace, and swallows it; ours is one sentence, kept here.
    reasons: list[NotReady] = []
    logging.getLogger("uvicorn.error").addFilter(lambda _: not reasons)

    @asynccontextmanager
    async def start(checked: tree.Settings) -> AsyncIterator[Running]:
        try:
            async with run(checked) as running:
                alive.append(running)
                yield running
        except NotReady as error:
            reasons.append(error)
            raise

    config = uvicorn.Config(
        create_app(settings, start),
        host=settings.edge.host,
        port=settings.edge.port,
        backlog=BACKLOG,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=IN_FLIGHT_S,
        server_header=False,
        date_header=False,
        # Nobody here asks who calls or how; the layer that would find it out is left away.
        proxy_headers=False,
        http=OneWrite,
    )
    sockets = None if arguments.fd is None else [socket.socket(fileno=arguments.fd), own_socket(arguments.admin)]
    server = DrainingServer(config, settings.edge.drain_ms / 1000, on_drain, is_shared=sockets is not None)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner, suppress(SystemExit, KeyboardInterrupt):
        # uvicorn exits by itself when start-up fails (the reason is told below), and passes Ctrl-C on when it is done.
        runner.run(server.serve(sockets))
    for reason in reasons:
        print(str(reason), file=sys.stderr)  # noqa: T201
    return 0 if server.started else 1


def own_socket(address: str) -> socket.socket:
    """A listening socket at `host:port` for this process alone."""
    host, _, port = address.rpartition(":")
    return socket.create_server((host, int(port)), backlog=BACKLOG)


if __name__ == "__main__":
    raise SystemExit(main())
