"""
A lean HTTP/1.1 client for measuring: keep-alive connections, one request at a time on each, no surprises.

It does no more than the load needs, so that what is measured is the server: a POST costs about 60 µs here, 1 ms with
httpx. The moment of an answer is taken when its last byte arrived, before anything is parsed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import cast

MAX_IDLE_S = 3.0
"""Derived: the edge closes a connection that was idle for 5 s; one that is about to be closed is not used again."""

CONNECT_TIMEOUT_S = 1.0


LATE_TURNS = 5
"""Turns of the loop after a timer before it counts. Derived: uvloop reads sockets last in a turn and fires timers first
in the next, before whoever waits for what was read; that one is woken in the first turn after, a connection that was
made has been told so by the fifth."""


class Patience:
    """
    `asyncio.timeout`, but what has arrived when time is up is read first.

    A client that is itself late, as one that loads the cores it runs on can be, gave up on answers that lay there.
    """

    __slots__ = ("_loop", "_seconds", "_timeout", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._seconds, self._over, LATE_TURNS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, at)

    def _over(self, turns: int) -> None:
        if turns:
            self._timer = self._loop.call_soon(self._over, turns - 1)
        else:
            self._timeout.reschedule(self._loop.time())


class NoAnswer(Exception):
    """No answer came; *why* is one of `refused`, `reset`, `timeout`, `garbage`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, raw head (lower case), body, and the monotonic moment at which the last byte was there."""

    status: int
    head: bytes
    body: bytes
    at: float

    def header(self, name: str) -> str | None:
        """Value of a header, None without it."""
        found = self.head.find(b"\r\n" + name.encode() + b":")
        if found < 0:
            return None
        value = self.head[found + len(name) + 3 : self.head.find(b"\r\n", found + 2)]
        return value.decode("latin-1").strip()


class Connection(asyncio.Protocol):
    """One connection; `ask` again only after the answer to the last one."""

    def __init__(self) -> None:
        self.used_at = time.monotonic()
        self.n_asked = 0
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Reply] | None = None
        self._is_owed = False  # an answer that nobody waits for any more may still come; then it is not used again

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_free(self) -> bool:
        return not self._is_owed

    async def ask(self, request: bytes) -> Reply:
        """
        Raises:
            NoAnswer: the connection ended first, or what came is not HTTP.
        """
        if self._transport is None or self._transport.is_closing():
            raise NoAnswer("reset")
        self._waiter = asyncio.get_running_loop().create_future()
        self.n_asked += 1
        self._is_owed = True
        self._transport.write(request)
        try:
            return await self._waiter
        finally:
            self._waiter = None
            self.used_at = time.monotonic()

    def close(self) -> None:
        """Without waiting for anything; an answer on its way is lost."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[: end + 2]).lower()
        length = _length(head)
        if length is None:
            self._end(NoAnswer("garbage"))
            self.close()
            return
        if len(self._buffer) < end + 4 + length:
            return
        reply = Reply(int(head[9:12]), head, bytes(self._buffer[end + 4 : end + 4 + length]), at)
        del self._buffer[: end + 4 + length]
        self._is_owed = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(reply)
        if b"\r\nconnection: close" in head and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(NoAnswer("reset"))

    def _end(self, why: NoAnswer) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(why)


class Client:
    """
    Connections to one address.

    Args:
        most: connections at once; a request beyond that fails as `refused`, and is counted by the caller.
    """

    def __init__(self, host: str, port: int, most: int = 2000) -> None:
        self._host, self._port, self._most = host, port, most
        # First in, first out: spreads requests over every connection, and so over every worker behind the port.
        self._idle: deque[Connection] = deque()
        self._n_busy = 0
        self.n_retried = 0

    def __repr__(self) -> str:
        return f"<Client {self._host}:{self._port}, {len(self._idle)} idle, {self._n_busy} busy>"

    async def warm(self, n: int) -> None:
        """Open *n* connections before they are needed; those that cannot be opened are not."""
        for _ in range(n):
            with suppress(NoAnswer):
                self._idle.append(await self._open())

    async def ask(self, request: bytes, timeout_s: float) -> Reply:
        """
        Send a whole request, return the whole answer.

        A connection that was used before and ends without a byte of an answer was closed by the server while the
        request was on its way; it is asked once more on a fresh one, as every browser does, and counted.

        Raises:
            NoAnswer: refused, reset, timeout or garbage.
        """
        if self._n_busy >= self._most:
            raise NoAnswer("refused")
        self._n_busy += 1
        connection: Connection | None = None
        try:
            async with Patience(timeout_s):
                connection = self._take() or await self._open()
                try:
                    reply = await connection.ask(request)
                except NoAnswer as error:
                    if error.why != "reset" or connection.n_asked < 2:
                        raise
                    self.n_retried += 1
                    connection = await self._open()
                    reply = await connection.ask(request)
        except TimeoutError:
            raise NoAnswer("timeout") from None
        finally:
            self._n_busy -= 1
            if connection is not None and connection.is_open:
                if connection.is_free:
                    self._idle.append(connection)
                else:
                    connection.close()
        return reply

    def close(self) -> None:
        """Every idle connection."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.popleft()
            if connection.is_open and time.monotonic() - connection.used_at < MAX_IDLE_S:
                return connection
            connection.close()
        return None

    async def _open(self) -> Connection:
        try:
            async with Patience(CONNECT_TIMEOUT_S):
                _, connection = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        except (OSError, TimeoutError):
            raise NoAnswer("refused") from None
        return connection


def post(host: str, path: str, body: bytes, headers: str = "") -> bytes:
    """A POST of JSON as it goes on the wire; *headers* are whole lines, each ended by CRLF."""
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{headers}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def get(host: str, path: str) -> bytes:
    """A GET as it goes on the wire."""
    return f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()


def _length(head: bytes) -> int | None:
    """Length of the body; None for what is no answer we can delimit (the edge always says its length)."""
    if not head.startswith(b"http/1.1 ") or not head[9:12].isdigit():
        return None
    found = head.find(b"\r\ncontent-length:")
    value = head[found + 17 : head.find(b"\r\n", found + 2)].strip()
    return int(value) if found >= 0 and value.isdigit() else None
