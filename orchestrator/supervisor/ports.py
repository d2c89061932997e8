"""Ports of this machine: which are free, and whether one is taken."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from orchestrator.supervisor.errors import PortTaken
from orchestrator.supervisor.plan import HOST

LAST_PORT = 65_535

BACKLOG = 2048
"""Connections that may wait to be accepted. Not 128 as in the resilience specification, §1.6: a worker takes all of
them in each turn of its loop, so they wait for one turn however many they are, and one too many costs its client a
second (docs/adr/0020-connections-wait-for-one-turn.md)."""


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago, all different: each is held until the last is found."""
    with ExitStack() as stack:
        held = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind((HOST, 0))
            held.append(int(listener.getsockname()[1]))
        return held


def check_free(host: str, port: int) -> None:
    """
    Raises:
        PortTaken: nobody could listen there now.
    """
    _bound(host, port).close()


def listen(host: str, port: int) -> socket.socket:
    """
    A listening socket for others to take over; connections wait in it until somebody does.

    Raises:
        PortTaken: nobody could listen there now.
    """
    listener = _bound(host, port)
    listener.listen(BACKLOG)
    return listener


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # As servers do: a port whose last connections are still closing is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except socket.gaierror as error:
        raise PortTaken(f"{host!r} is no address of this machine; try --host 127.0.0.1") from error
    except OSError as error:
        other = port + 123 if port + 123 <= LAST_PORT else 8123
        raise PortTaken(
            f"port {port} is already in use on {host} ({error.strerror}); try PORT={other} with make demo, "
            f"or --port {other}"
        ) from error
    return listener
