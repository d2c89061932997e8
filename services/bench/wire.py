"""
HTTP/1.1 as far as a load needs it: bytes out as they are, of an answer the status line, its length and three words.

The rule: as little CPU as possible, since the load shares the machine with what it measures. Nothing is decoded; what
an answer says of itself is found in its bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

_END_OF_HEAD, _LENGTH, _CLOSE = b"\r\n\r\n", b"content-length:", b"connection: close"
_LEVEL, _REMEMBERED, _NOTHING = b'"level":"', b'"from_cache":true', b'"items":[]'


class NotAnswerable(ValueError):
    """Bytes that are no answer with a length: another protocol, or another server."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One answer.

    levels      `quality.level` of each slate in it
    remembered  slates that came from the cache
    is_empty    a slate without one item is in it, or no slate at all
    """

    status: int
    levels: tuple[str, ...]
    remembered: int
    is_empty: bool


def request(path: str, body: bytes) -> bytes:
    """A POST, whole."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def split(received: bytes | bytearray) -> tuple[int, int, bool] | None:
    """
    (status, length of the whole answer, whether the server will close) when its head has arrived, else None.

    Raises:
        NotAnswerable: a head that is not HTTP/1.x, or without content-length.
    """
    end = received.find(_END_OF_HEAD)
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    if not head.startswith(b"http/1."):
        raise NotAnswerable(f"expected an HTTP/1.1 answer, found {head[:40]!r}")
    at = head.find(_LENGTH)
    if at < 0:
        raise NotAnswerable(f"expected an answer with content-length, found {head[:200]!r}")
    length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
    return int(head[9:12]), end + len(_END_OF_HEAD) + length, _CLOSE in head


def read(status: int, answer: bytes) -> Answer:
    """What *answer*, head and body, says of itself."""
    levels = []
    at = answer.find(_LEVEL)
    while at >= 0:
        at += len(_LEVEL)
        end = answer.find(b'"', at)
        levels.append(answer[at:end].decode("ascii", "replace"))
        at = answer.find(_LEVEL, end)
    remembered = answer.count(_REMEMBERED) if levels else 0
    return Answer(status, tuple(levels), remembered, not levels or _NOTHING in answer)


class Connection(asyncio.Protocol):
    """
    One kept connection with one request on it at a time.

    Args:
        done: called with the answer; None when the connection was lost before it was whole.
    """

    def __init__(self, done: Callable[[Connection, Answer | None], None]) -> None:
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._is_asked = False
        self._tag: object = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def tag(self) -> object:
        """What was given with the request that is or was last on its way."""
        return self._tag

    def send(self, message: bytes, tag: object = None) -> None:
        """Put *message* on its way; `done` follows exactly once."""
        self._is_asked, self._tag = True, tag
        if self._transport is None or self._transport.is_closing():
            self._finish(None)
            return
        self._transport.write(message)

    def close(self) -> None:
        """No more requests."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        # Not an instance of it with uvloop.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._received += data
        if (found := split(self._received)) is None:
            return
        status, length, will_close = found
        if len(self._received) < length:
            return
        answer = bytes(self._received)
        self._received.clear()
        if will_close:
            self.close()
        self._finish(read(status, answer))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._transport = None
        self._received.clear()
        if self._is_asked:
            self._finish(None)

    def _finish(self, answer: Answer | None) -> None:
        self._is_asked = False
        self._done(self, answer)
