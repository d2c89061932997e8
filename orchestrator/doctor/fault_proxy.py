"""
A TCP proxy that does to one port what networks and sick peers do to it. One process a port, so that its CPU is nobody
else's: `python -m orchestrator.doctor.fault_proxy --listen H:P --upstream H:P --control H:P`.

Without toxics a chunk goes straight from one socket to the other; with them it goes through a queue of due times.
The control socket takes one JSON object a line and answers with one:

    {"command": "set", "toxics": [{"kind": "latency", "ms": 50}], "seed": 7, "hold": true}
    {"command": "clear"}
    {"command": "stats"}

`set` replaces what was set. With `hold` everything is cleared when this control connection ends, so that a doctor
that is killed leaves no fault behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from orchestrator.doctor.flow import Flow, reset
from orchestrator.doctor.toxics import Direction, Kind, Toxic, ToxicError, parse

CONNECT_TIMEOUT_S = 1.0
"""Judged: everything is on loopback; a backlog that is full for a second is as good as a closed port."""

MAX_LINE = 64 * 1024


class End(asyncio.Protocol):
    """One socket of a connection: what it hears goes into *out*, what it is told comes from *into*."""

    def __init__(self, link: Link, out: Flow, into: Flow) -> None:
        self._link, self._out, self._into = link, out, into
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = self._out.source = self._into.target = cast(asyncio.Transport, transport)
        self._link.made(self)

    def data_received(self, data: bytes) -> None:
        self._out.push(data)

    def eof_received(self) -> bool:
        self._out.push(b"")
        return True  # the other direction may still have something to say

    def pause_writing(self) -> None:
        self._into.source_may_go_on(is_writable=False)

    def resume_writing(self) -> None:
        self._into.source_may_go_on(is_writable=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._out.flush_and(end=exc is None)
        self._link.lost()


class Link:
    """One connection through the proxy: the caller's end, the service's end, a flow each way."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self.up, self.down = Flow(proxy, Direction.UP), Flow(proxy, Direction.DOWN)
        self.caller = End(self, self.up, self.down)
        self.service = End(self, self.down, self.up)
        self._open = 0

    def made(self, end: End) -> None:
        self._open += 1
        if end is self.caller:
            self._proxy.links.add(self)
            self._proxy.n_accepted += 1
            if end.transport is not None:
                end.transport.pause_reading()
            self._proxy.spawn(self._connect())

    def lost(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._proxy.links.discard(self)

    def change(self, toxics: Sequence[Toxic]) -> None:
        self.up.change(toxics)
        self.down.change(toxics)

    def reset(self) -> None:
        """RST to both ends."""
        for end in (self.caller, self.service):
            if end.transport is not None and not end.transport.is_closing():
                reset(end.transport)

    def close(self) -> None:
        """Both ends, once what is buffered has left."""
        for end in (self.caller, self.service):
            if end.transport is not None:
                end.transport.close()

    async def _connect(self) -> None:
        host, port = self._proxy.upstream
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._proxy.loop.create_connection(lambda: self.service, host, port)
        except (OSError, TimeoutError):
            if self.caller.transport is not None:
                reset(self.caller.transport)
            return
        if self.caller.transport is None or self.caller.transport.is_closing():
            if self.service.transport is not None:
                self.service.transport.close()
            return
        self.caller.transport.resume_reading()
        self.change(self._proxy.toxics)


class FaultProxy:
    """
    One proxied port.

    Args:
        listen, upstream: (host, port); port 0 takes a free one, see `address`.
        seed: of the chance by which toxics choose what they touch.
    """

    def __init__(self, listen: tuple[str, int], upstream: tuple[str, int], seed: int = 0) -> None:
        self.loop = asyncio.get_running_loop()
        self.upstream = upstream
        self.toxics: tuple[Toxic, ...] = ()
        self.links: set[Link] = set()
        self.rng = random.Random(seed)  # noqa: S311 – replayable, not secret
        self.n_accepted, self.n_reset = 0, 0
        self.passed = {Direction.UP: 0, Direction.DOWN: 0}
        self._listen = listen
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        names = ", ".join(toxic.kind.value for toxic in self.toxics) or "no toxics"
        return f"<FaultProxy {self._listen[1]} → {self.upstream[1]}, {len(self.links)} open, {names}>"

    @property
    def address(self) -> tuple[str, int]:
        return self._listen

    async def start(self) -> None:
        """
        Listen; a port that was 0 is remembered as the one it became.

        Raises:
            OSError: the address is taken.
        """
        self._server = await self.loop.create_server(lambda: Link(self).caller, *self._listen, reuse_address=True)
        self._listen = (self._listen[0], self._server.sockets[0].getsockname()[1])

    async def change(self, toxics: Sequence[Toxic], seed: int | None = None) -> None:
        """
        Replace what is set; with nothing, everything is healed and what waited flows on.

        Raises:
            OSError: the port that was refused cannot be listened on again.
        """
        if seed is not None:
            self.rng.seed(seed)
        self.toxics = tuple(toxics)
        refuses = any(toxic.kind is Kind.REFUSE for toxic in toxics)
        if refuses and self._server is not None:
            self._server.close()
            self._server = None
        elif not refuses and self._server is None:
            await self.start()
        now = [toxic for toxic in toxics if toxic.kind is Kind.RESET and toxic.now]
        for link in list(self.links):
            link.change(toxics)
            if any(toxic.share >= 1.0 or self.rng.random() < toxic.share for toxic in now):
                self.n_reset += 1
                link.reset()

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and what is set."""
        return {
            "connections": len(self.links),
            "accepted": self.n_accepted,
            "reset": self.n_reset,
            "bytes": {direction.value: n for direction, n in self.passed.items()},
            "toxics": [toxic.document() for toxic in self.toxics],
        }

    def reset(self, flow: Flow) -> None:
        """RST the connection that *flow* belongs to."""
        self.n_reset += 1
        for link in list(self.links):
            if flow in (link.up, link.down):
                link.reset()

    def ended(self, flow: Flow) -> None:
        """When both directions have ended nobody else closes the sockets."""
        for link in list(self.links):
            if flow in (link.up, link.down) and link.up.has_ended and link.down.has_ended:
                link.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* behind; kept from the garbage collector until it is done."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            for end in (link.caller, link.service):
                if end.transport is not None:
                    end.transport.abort()
        for task in list(self._tasks):
            task.cancel()


async def serve_control(proxy: FaultProxy, host: str, port: int) -> asyncio.Server:
    """Take commands for *proxy*; see the module's docstring."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        holds = False
        try:
            while line := await reader.readline():
                reply, held = await _obey(proxy, line)
                holds = holds or held
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # ValueError: a line without end; nobody to tell who would understand
        finally:
            if holds:
                await proxy.change(())
            writer.close()

    return await asyncio.start_server(serve, host, port, limit=MAX_LINE)


async def _obey(proxy: FaultProxy, line: bytes) -> tuple[dict[str, Any], bool]:
    """The answer to one command, and whether this connection holds what it set."""
    try:
        asked = json.loads(line)
        command = asked.get("command") if isinstance(asked, dict) else None
        match command:
            case "set":
                await proxy.change(parse(asked.get("toxics")), asked.get("seed"))
                return {"ok": True}, bool(asked.get("hold"))
            case "clear":
                await proxy.change(())
                return {"ok": True}, False
            case "stats":
                return {"ok": True, **proxy.stats()}, False
            case _:
                return {"ok": False, "error": f"no command {command!r:.40}; commands: set, clear, stats"}, False
    except (ToxicError, OSError) as error:
        return {"ok": False, "error": str(error)}, False
    except ValueError as error:
        return {"ok": False, "error": f"not JSON: {error}"}, False


def address_of(text: str) -> tuple[str, int]:
    """`host:port` → (host, port), for the command line."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no host:port")
    return host, int(port)


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    proxy = FaultProxy(arguments.listen, arguments.upstream, arguments.seed)
    await proxy.start()
    control = await serve_control(proxy, *arguments.control)
    print(f"ready: {proxy!r}", flush=True)  # noqa: T201
    await stop.wait()
    control.close()
    await proxy.close()


def main() -> int:
    """Proxy until SIGTERM; 1 when an address is taken."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.doctor.fault_proxy", description="A TCP fault proxy.")
    for name in ("listen", "upstream", "control"):
        parser.add_argument(f"--{name}", type=address_of, required=True, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        _runner(arguments)
    except OSError as error:
        print(f"fault proxy: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _runner(arguments: argparse.Namespace) -> None:
    try:
        from uvloop import new_event_loop
    except ImportError:  # not on Windows
        from asyncio import new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
