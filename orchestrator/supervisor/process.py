"""
One child: started in a process group of its own, asked until it is ready, restarted when it dies, stopped.

    starting → ready → restarting → ready …        a crash, with exponential back-off
    ready → restarting → ready …                   asked for: ended with its grace, started again at once
    starting → failed                              the first start did not work; the supervisor gives up
    any → stopping → stopped                       asked by SIGTERM, after the grace forced by SIGKILL
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from functools import partial
from typing import Any

from orchestrator.supervisor.confinement import confine, release
from orchestrator.supervisor.console import Console, LogFile
from orchestrator.supervisor.errors import ChildFailed
from orchestrator.supervisor.plan import ProcessSpec
from orchestrator.supervisor.readiness import until_ready

START_TIMEOUT_S = 90.0
"""Judged: a model service on a busy laptop needs a few seconds; a minute and a half means it is stuck."""

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
"""Judged: half a second hides a single crash; doubling to 30 s keeps a crashing process from eating the machine."""

HEALTHY_AFTER_S = 60.0
"""A process that lived this long starts its back-off anew. Twice `BACKOFF_MAX_S`."""

LAST_LINES = 8
"""Shown when a child fails: the end of a Python traceback and the error before it."""

MAX_LINE_BYTES = 64 * 1024


class State(Enum):
    """What `tutti status` says of a process."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Child:
    """
    One supervised process.

    Args:
        environment: for the child, whole; the specification's own variables are laid over it.
        on_change: called after every change of `state` or `pid`.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        environment: Mapping[str, str],
        log: LogFile,
        console: Console,
        on_change: Callable[[], None] = lambda: None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.spec = spec
        self.state = State.STARTING
        self.pid: int | None = None
        self._environment = {**environment, **spec.environment}
        self._log, self._console, self._on_change = log, console, on_change
        self._start_timeout_s = start_timeout_s
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._asking = asyncio.Event()
        self._asked: asyncio.Future[None] | None = None
        self._grace_s = 0.0

    def __repr__(self) -> str:
        return f"<Child {self.spec.label} {self.state.value}, pid {self.pid}>"

    async def start(self, *, beside_others: bool = False) -> None:
        """
        Start, and return when it is ready. *beside_others*: the system serves already, so it keeps to one core.

        Raises:
            ChildFailed: it cannot be started, ended before it was ready, or took longer than the limit.
        """
        process = await self._launch()
        if beside_others:
            confine(process.pid)
        # Not later: clients are served by it from then on.
        ready = asyncio.create_task(until_ready(self.spec, partial(release, process.pid)))
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({ready, ended}, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                await self._drain()
                raise self._failed(f"ended with {_how(ended.result())} before it was ready")
            if not ready.done():
                raise self._failed(f"was not ready after {self._start_timeout_s:g} s")
            ready.result()
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)
        self._change(State.READY)

    async def finish(self) -> None:
        """
        For a child that is to do one thing and end: start it and wait for its end.

        Raises:
            ChildFailed: its exit code is not 0.
        """
        process = await self._launch()
        code = await process.wait()
        await self._drain()
        if code != 0:
            raise self._failed(f"ended with {_how(code)}")
        self._change(State.STOPPED)

    async def keep_alive(self) -> None:
        """Restart it whenever it ends, for ever; to be called after `start`, cancelled by whoever stops it."""
        wait_s = BACKOFF_FIRST_S
        while self._process is not None:
            await _first_of(self._process.wait(), self._asking.wait())
            if not self._asking.is_set():
                await self._drain()
                if time.monotonic() - self._started_at >= HEALTHY_AFTER_S:
                    wait_s = BACKOFF_FIRST_S
                self.pid = None
                self._change(State.RESTARTING)
                how = _how(self._process.returncode or 0)
                self._console.say(f"{self.spec.label} ended with {how}; starting it again in {wait_s:g} s")
                await _first_of(asyncio.sleep(wait_s), self._asking.wait())
                wait_s = min(wait_s * 2, BACKOFF_MAX_S)
            if asked := self._asking.is_set():
                wait_s = BACKOFF_FIRST_S
                self._asking.clear()
                self._change(State.RESTARTING)
                await self._end(self._process, self._grace_s)
                self.pid = None
            await self._start_again(self._asked if asked else None)

    async def restart(self, grace_s: float) -> None:
        """
        Have the running `keep_alive` end it, by SIGKILL after *grace_s*, and start it again; return when it is ready.

        A child that waits for its next start is started now.

        Raises:
            ChildFailed: it did not become ready; `keep_alive` goes on trying.
        """
        self._grace_s = grace_s
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_future()
        self._asking.set()
        await asyncio.shield(self._asked)

    async def _start_again(self, asked: asyncio.Future[None] | None) -> None:
        try:
            await self.start(beside_others=True)
        except ChildFailed as failure:
            self._console.say(str(failure))
            if self._process is not None:
                await self._end(self._process, 0)
            if asked is not None and not asked.done():
                asked.set_exception(failure)
        else:
            self._console.say(f"{self.spec.label} is ready again")
            if asked is not None and not asked.done():
                asked.set_result(None)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then after *grace_s* SIGKILL to its whole group. Never raises; a child that is gone is stopped."""
        if self._process is not None:
            self._change(State.STOPPING)
            await self._end(self._process, grace_s)
        self.pid = None
        self._change(State.STOPPED)
        self._log.close()

    async def _launch(self) -> asyncio.subprocess.Process:
        self._last.clear()
        self._started_at = time.monotonic()
        try:
            process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                # Out of the terminal's foreground group: Ctrl-C reaches the supervisor, which stops in order.
                process_group=0,
                pass_fds=self.spec.inherits,
            )
        except OSError as error:
            raise self._failed(f"cannot be started: {error}") from error
        self._process, self.pid = process, process.pid
        if process.stdout is not None:
            self._pump = asyncio.create_task(self._read(process.stdout))
        self._on_change()
        return process

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stdout.read(MAX_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._line(line)
            if len(rest) > MAX_LINE_BYTES:
                self._line(rest)
                rest = b""
        if rest:
            self._line(rest)

    def _line(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip("\r")
        self._last.append(line)
        with contextlib.suppress(OSError, ValueError):  # a full disk must not stop the child; the console still shows
            self._log.write(line)
        self._console.echo(self.spec.label, line)

    async def _drain(self) -> None:
        """Read what an ended child has still said; a grandchild that holds the pipe open is not waited for."""
        if self._pump is not None:
            await asyncio.wait({self._pump}, timeout=0.5)
            self._pump.cancel()

    async def _end(self, process: asyncio.subprocess.Process, grace_s: float) -> None:
        if process.returncode is None and grace_s > 0:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace_s)
        # The group may outlive its leader; it is ended either way.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await self._drain()

    def _failed(self, how: str) -> ChildFailed:
        self._change(State.FAILED)
        return ChildFailed(f"{self.spec.label} {how}; its log is {self._log.path}", tuple(self._last))

    def _change(self, state: State) -> None:
        self.state = state
        self._on_change()


async def _first_of(*claims: Coroutine[Any, Any, object]) -> None:
    """Return when one is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(claim) for claim in claims]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
