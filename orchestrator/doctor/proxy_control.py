"""
Talking to fault proxies: one connection to each control socket, one JSON line each way.

    CannotInject   a fault could not be made or undone
"""

from __future__ import annotations

import json
import socket
from typing import Any

CONTROL_TIMEOUT_S = 2.0
"""Judged: a proxy answers its control socket in under a millisecond; two seconds means that it is gone."""


class CannotInject(Exception):
    """The fault could not be made, or a part of it; what was made of it is undone by `Injector.heal`."""


class Control:
    """A connection to one proxy's control socket."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), CONTROL_TIMEOUT_S)
        self._lines = self._socket.makefile("rwb")

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """
        Raises:
            CannotInject: the proxy refuses, or is gone.
        """
        self._lines.write(json.dumps(command).encode() + b"\n")
        self._lines.flush()
        reply: dict[str, Any] = json.loads(self._lines.readline() or b'{"ok": false, "error": "it ended"}')
        if not reply["ok"]:
            raise CannotInject(f"fault proxy: {reply['error']}")
        return reply

    def clear(self) -> None:
        """Heal it and let go."""
        try:
            self.ask({"command": "clear"})
        finally:
            self.close()

    def close(self) -> None:
        """Let go; the proxy heals itself of what this connection held."""
        self._lines.close()
        self._socket.close()
