"""
How a running supervisor is asked for something: a Unix socket in its data directory, for its owner alone.

    DIR/run/control   mode 0600; one JSON object a line
    → {"restart": ["content_based", "orchestrator:1"]}      [] for everything but Redis
    ← {"say": "content_based is ready again"} …             while it goes on
    ← {"done": 3} or {"error": "there is no process …"}     last

Bound and reached by its name alone, from inside the directory: the path of a socket may have about 100 bytes, that
of a data directory has no such limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from orchestrator.supervisor.errors import SupervisorError

NAME = "control"

Say = Callable[[str], None]
Restart = Callable[[Sequence[str], Say], Awaitable[int]]


@asynccontextmanager
async def listening(run: Path, restart: Restart) -> AsyncIterator[None]:
    """
    Answer requests for as long as the block lasts; one that is being served then is dropped.

    restart: does it, saying what it does, and returns how many; a SupervisorError becomes the answer's error.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(**message: object) -> None:
            # Whoever asked may have left; what was begun is finished.
            if not writer.is_closing():
                writer.write(json.dumps(message).encode() + b"\n")

        try:
            names = _names(await reader.readline())
            done = await restart(names, lambda line: tell(say=line))
            tell(done=done)
        except (SupervisorError, ValueError) as error:
            tell(error=str(error))
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    served: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        served.add(task)
        task.add_done_callback(served.discard)

    with _bound(run) as listener:
        server = await asyncio.start_unix_server(begin, sock=listener)
        try:
            yield
        finally:
            server.close()
            for task in served:
                task.cancel()
            await asyncio.gather(*served, return_exceptions=True)
            (run / NAME).unlink(missing_ok=True)


def ask(run: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """
    The supervisor's messages, one by one, until the last.

    Raises:
        OSError: no supervisor listens there.
    """
    with socket.socket(socket.AF_UNIX) as client:
        with contextlib.chdir(run):
            client.connect(NAME)
        client.sendall(json.dumps({"restart": list(names)}).encode() + b"\n")
        with client.makefile() as lines:
            for line in lines:
                yield json.loads(line)


@contextlib.contextmanager
def _bound(run: Path) -> Iterator[socket.socket]:
    (run / NAME).unlink(missing_ok=True)  # of one that was killed; the run lock says nobody lives
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        with contextlib.chdir(run):
            listener.bind(NAME)
    finally:
        os.umask(mask)
    with listener:
        yield listener


def _names(line: bytes) -> list[str]:
    """
    Raises:
        ValueError: not a request.
    """
    try:
        request = json.loads(line)
        names = request["restart"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError('expected {"restart": [NAME, …]}') from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError('expected {"restart": [NAME, …]}')
    return names
