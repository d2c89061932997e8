"""
An open-loop HTTP client: requests leave when they are due, whatever became of those before.

It keeps connections as HTTP/1.1 clients do: one that is idle is used again, one that the server announced to close
or has closed is not. It never sends a request twice, so that every loss is seen.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What became of every request: bodies of the 200s with their seconds since due, everything else as text."""

    answers: list[tuple[float, bytes]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    closes_announced: int = 0

    @property
    def bodies(self) -> set[bytes]:
        return {body for _, body in self.answers}

    @property
    def slowest_s(self) -> float:
        return max(seconds for seconds, _ in self.answers)


class Client:
    """Sends GETs to one address."""

    def __init__(self, host, port, path="/", timeout_s=10.0):
        self.outcome = Outcome()
        self._address, self._path, self._timeout_s = (host, port), path, timeout_s
        self._idle = []

    async def run(self, rate, until: asyncio.Event):
        """Send *rate* requests a second until the event; returns when the last is answered."""
        began_at, sent, tasks = time.monotonic(), 0, []
        while not until.is_set():
            due_at = began_at + sent / rate
            await asyncio.sleep(max(due_at - time.monotonic(), 0))
            tasks.append(asyncio.create_task(self._request(due_at)))
            sent += 1
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()
        assert len(self.outcome.answers) + len(self.outcome.failures) == sent
        return self.outcome

    async def _request(self, due_at):
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._exchange()
        except (OSError, EOFError, TimeoutError) as error:
            self.outcome.failures.append(repr(error))
            return
        if status == 200:
            self.outcome.answers.append((time.monotonic() - due_at, body))
        else:
            self.outcome.failures.append(f"status {status}")

    async def _exchange(self):
        reader, writer = await self._connection()
        try:
            writer.write(f"GET {self._path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            body = await reader.readexactly(int(headers[b"content-length"]))
        except BaseException:
            writer.close()
            raise
        if headers.get(b"connection") == b"close":
            self.outcome.closes_announced += 1
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split()[1]), body

    async def _connection(self):
        while self._idle:
            reader, writer = self._idle.pop(0)  # the longest idle first, so that every connection stays in use
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._address)


@contextlib.asynccontextmanager
async def under_load(client, rate):
    """Requests flow while the block runs; `client.outcome` is complete afterwards."""
    stop = asyncio.Event()
    load = asyncio.create_task(client.run(rate, stop))
    try:
        yield
    finally:
        stop.set()
        await load
