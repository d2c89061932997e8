"""
uvicorn's server with a drain in front of its shutdown, so that a restart costs no client a request.

    SIGTERM    `on_drain` is called at once: /readyz says 503 from here on
    drain      the shared socket is left to the other workers; connections that are open go on being served, and
               every answer tells its client to open another one next time (`Connection: close`)
    shutdown   uvicorn's own: idle connections are closed, requests in flight are waited for, then the lifespan ends

What is left: a client that was silent for the whole drain and speaks in the moment its connection is closed.
HTTP/1.1 gives a server no way to tell it; clients send again, as they must whenever a kept connection was closed.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

POLL_S = 0.02
"""Judged: a fiftieth of the default drain, and nothing to a process that is about to end."""


class DrainingServer(uvicorn.Server):
    """
    Args:
        drain_s: how long open connections are served after SIGTERM; over sooner when none is left.
        on_drain: called once, before anything else changes; in a signal handler, so it may only set flags.
        is_shared: the first socket served belongs to others too. One that is ours alone goes on accepting until the
            drain is over, since nobody else would: time for whoever balances load to read /readyz.
    """

    def __init__(
        self, config: uvicorn.Config, drain_s: float, on_drain: Callable[[], None], *, is_shared: bool
    ) -> None:
        super().__init__(config)
        self._drain_s = drain_s
        self._on_drain = on_drain
        self._is_shared = is_shared

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """
        Begin the drain; a second Ctrl-C cuts it short.

        Unlike uvicorn's, it does not keep the signal in order to raise it again at the end: an orderly end is exit
        code 0, and what surrounds us is cleaned up.
        """
        if self.should_exit:
            self.force_exit = self.force_exit or sig == signal.SIGINT
            return
        self._on_drain()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then shut down."""
        if self._is_shared:
            self.servers[0].close()
        # In place: requests that are being answered hold this very list.
        self.server_state.default_headers.append((b"connection", b"close"))
        ends_at = time.monotonic() + self._drain_s
        while time.monotonic() < ends_at and not self._is_done():  # noqa: ASYNC110 – protocols come and go without an event
            await asyncio.sleep(POLL_S)
        await super().shutdown(sockets)

    def _is_done(self) -> bool:
        return self.force_exit or (self._is_shared and not self.server_state.connections)
