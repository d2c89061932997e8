"""
uvicorn's HTTP protocol with one write for an answer: head and body leave together, in the turn in which they were made.

uvicorn hands its transport the head and the body apart, and uvloop sends what it is handed at once: two calls of the
system and two segments for each answer. The rule: bytes leave in their order, and none is kept beyond its turn of the
loop, so that flow control, drain and keep-alive stay uvicorn's.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OneWrite(HttpToolsProtocol):
    """What `uvicorn.Config` takes as `http`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """asyncio's."""
        super().connection_made(cast(asyncio.Transport, Gathering(transport, asyncio.get_running_loop())))


class Gathering:
    """A transport that writes once a turn; all else is *transport*'s own."""

    __slots__ = ("_loop", "_transport", "_unsent")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._unsent: list[bytes] = []

    def write(self, data: bytes) -> None:
        """At the end of this turn."""
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(data)

    def close(self) -> None:
        """What was written before is sent first."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def __repr__(self) -> str:
        return f"<Gathering {len(self._unsent)} unsent, {self._transport!r}>"
