"""
One pipelined Redis connection shared by every request of this process; replies come in the order of commands.

The rule that keeps it safe: a command that was written is waited for by the connection, never by the caller alone.
A caller that is cancelled leaves its place in the queue, and its replies are read and thrown away, so nobody ever
gets somebody else's. What cannot be matched any more (protocol error, hung server) ends the connection and all that
wait.

    ConnectionError          not connected, lost, hung, or too many waiting; another attempt is under way
    hiredis.ReplyError       Redis refused this one command
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from orchestrator.adapters.ending import ended

T = TypeVar("T")

CONNECT_TIMEOUT_S = 1.0
"""Borrowed from common client defaults for one data centre. Happens in the background, so no request waits for it."""

HUNG_AFTER_S = 1.0
"""Oldest unanswered command that we still believe in. Derived: ten times the whole budget of a request; a half-open
connection would otherwise swallow every read until TCP gives up, minutes later."""

MAX_PENDING = 1024
"""Reads waiting for an answer. Derived: at 0.06 ms of Redis a read these are 60 ms of work; a read behind them would
come too late for its request."""

STEADY_AFTER_S = 0.2
"""A connection that lived this long is opened again at once. Derived: four times the first pause, so that a server that
closes whatever it accepts is asked five times a second and no more. Redis closing every connection twice a second cost
each time the reads of the first pause: a fifth of them, and in one run of three the breaker opened besides."""

BACKOFF_FIRST_S, BACKOFF_LAST_S = 0.05, 1.0
"""Pause before a new attempt to connect, doubled each time. Derived: the breaker in front of this reader probes no more
often than once a second."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is and how to introduce oneself; `repr` shows no password."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Address:
        """
        Read `redis://[[user]:password@]host[:port][/db]`, `rediss://…` (TLS) or `unix:///path[?db=n]`.

        Raises:
            ValueError: another scheme, a port or database that is no number, or no path.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f"Redis URL of scheme {parts.scheme!r}; expected redis://, rediss:// or unix://")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if parts.scheme == "unix":
            if not parts.path:
                raise ValueError("a unix:// Redis URL needs a path: unix:///run/redis.sock")
            database = int(parse_qs(parts.query).get("db", ["0"])[0])
            return cls(path=unquote(parts.path), database=database, username=username, password=password)
        database = int(parts.path.strip("/") or parse_qs(parts.query).get("db", ["0"])[0])
        host, is_tls = parts.hostname or "localhost", parts.scheme == "rediss"
        return cls(host, parts.port or 6379, None, database, username, password, is_tls)

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def command(*arguments: bytes) -> bytes:
    """One command in RESP."""
    return b"*%d\r\n" % len(arguments) + b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in arguments])


Read = Callable[[list[Any] | ConnectionError], T]
"""What is made of replies, or of the reason why there are none."""


def as_they_came(replies: list[Any] | ConnectionError) -> list[Any]:
    """
    The replies.

    Raises:
        ConnectionError, hiredis.ReplyError: there are none, or Redis refused one of the commands.
    """
    if isinstance(replies, ConnectionError):
        raise replies
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise reply
    return replies


class RedisPipeline:
    """Keeps one connection up, from `start` to `close`, and asks over it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._last_error = "start() was not called"

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_open

    async def start(self) -> None:
        """Connect, and keep connecting in the background. A Redis that is not there is no error here."""
        if self._keeper is not None:
            return
        await self._try_connect()
        self._keeper = asyncio.create_task(self._keep(), name="redis-pipeline")

    async def close(self) -> None:
        """Give up the connection; whoever still waits gets ConnectionError."""
        if self._keeper is not None:
            await ended(self._keeper)
            self._keeper = None
        if self._connection is not None:
            self._connection.abort("the reader was closed")
        self._connection, self._last_error = None, "the reader was closed"

    async def ask(self, commands: bytes, n_replies: int) -> list[Any]:
        """
        Write *commands* (one or more in RESP) and return their replies. Set your own timeout around it.

        Raises:
            ConnectionError, hiredis.ReplyError: see the module.
        """
        return await self.asked(commands, n_replies, as_they_came)

    def asked(self, commands: bytes, n_replies: int, read: Read[T]) -> asyncio.Future[T]:
        """
        The same as a future of what *read* makes of the replies, for whoever cannot afford a coroutine.

        read: is called as soon as they are there; what it raises, the future does. If they never will be, it is handed
            the reason.

        Raises:
            ConnectionError: no connection, or too many wait; nothing was written.
        """
        connection = self._connection
        if connection is None or not connection.is_open:
            raise ConnectionError(f"no connection to Redis at {self._address}: {self._last_error}")
        return connection.asked(commands, n_replies, read)

    async def _keep(self) -> None:
        pause = BACKOFF_FIRST_S
        while True:
            if self._connection is not None:
                self._last_error = await asyncio.shield(self._connection.lost)
                was_steady = self._connection.age_s >= STEADY_AFTER_S
                self._connection = None
                pause = BACKOFF_FIRST_S
                if was_steady:
                    await self._try_connect()
                    continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF_LAST_S)
            await self._try_connect()

    async def _try_connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._connection = await _connect(self._address)
        except TimeoutError:
            self._last_error = f"no answer within {CONNECT_TIMEOUT_S:g} s"
        except (OSError, hiredis.HiredisError) as error:
            self._last_error = str(error) or type(error).__name__

    def __repr__(self) -> str:
        waiting = self._connection.n_pending if self._connection is not None else 0
        state = f"{waiting} waiting" if self.is_connected else f"not connected: {self._last_error}"
        return f"<RedisPipeline {self._address}, {state}>"


class _Pending:
    """A place in the queue."""

    __slots__ = ("answer", "asked_at", "n_replies", "read", "replies")

    def __init__(self, n_replies: int, read: Read[Any], answer: asyncio.Future[Any], asked_at: float) -> None:
        self.n_replies, self.read, self.answer, self.asked_at = n_replies, read, answer, asked_at
        self.replies: list[Any] = []

    def settle(self, found: list[Any] | ConnectionError) -> None:
        """Tell whoever still waits."""
        answer = self.answer
        if answer.done():
            return
        try:
            answer.set_result(self.read(found))
        except Exception as error:
            answer.set_exception(error)


class _Connection(asyncio.Protocol):
    """Commands out, replies in, a queue between."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._loop = loop
        self._now = loop.time
        self._began_at = loop.time()
        self._parser = hiredis.Reader()
        self._pending: deque[_Pending] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self.lost.done()

    @property
    def age_s(self) -> float:
        """Seconds since it was made."""
        return self._now() - self._began_at

    @property
    def n_pending(self) -> int:
        return len(self._pending)

    def asked(self, commands: bytes, n_replies: int, read: Read[T]) -> asyncio.Future[T]:
        now = self._now()
        if self._pending:
            waited = now - self._pending[0].asked_at
            if waited > HUNG_AFTER_S:
                self.abort(f"Redis has not answered for {waited:.1f} s")
            elif len(self._pending) >= MAX_PENDING:
                raise ConnectionError(f"{MAX_PENDING} reads already wait for Redis")
        if self._transport is None or self.lost.done():
            raise ConnectionError(self.lost.result() if self.lost.done() else "not connected")
        answer: asyncio.Future[T] = self._loop.create_future()
        self._pending.append(_Pending(n_replies, read, answer, now))
        # What is asked in one turn of the loop leaves in one write: the write is a third of what asking costs.
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(commands)
        return answer

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self.lost.done():
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def abort(self, reason: str) -> None:
        """End it at once; everybody who waits gets ConnectionError(*reason*)."""
        if not self.lost.done():
            self.lost.set_result(reason)
        if self._transport is not None:
            self._transport.abort()
        while self._pending:
            self._pending.popleft().settle(ConnectionError(reason))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is no asyncio.Transport by class, only by what it can do.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            while self._pending:
                pending = self._pending[0]
                replies = pending.replies
                while len(replies) < pending.n_replies:
                    reply = self._parser.gets()
                    if reply is False:
                        return
                    replies.append(reply)
                self._pending.popleft()
                pending.settle(replies)
        except hiredis.ProtocolError as error:
            self.abort(f"what came is not Redis: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(f"Redis closed the connection{f': {exc}' if exc else ''}")


async def _connect(address: Address) -> _Connection:
    """
    A connection that is authenticated and on its database.

    Raises:
        OSError: nobody there. hiredis.ReplyError: wrong password or database.
    """
    loop = asyncio.get_running_loop()
    if address.path is not None:
        _, connection = await loop.create_unix_connection(_Connection, address.path)
    else:
        context = ssl.create_default_context() if address.is_tls else None
        _, connection = await loop.create_connection(_Connection, address.host, address.port, ssl=context)
    greetings = _greetings(address)
    try:
        if greetings:
            await connection.asked(b"".join(greetings), len(greetings), as_they_came)
    except BaseException:
        connection.abort("could not log in")
        raise
    return connection


def _greetings(address: Address) -> Sequence[bytes]:
    greetings = []
    if address.password is not None:
        who = (address.username.encode(),) if address.username else ()
        greetings.append(command(b"AUTH", *who, address.password.encode()))
    if address.database:
        greetings.append(command(b"SELECT", b"%d" % address.database))
    return greetings
