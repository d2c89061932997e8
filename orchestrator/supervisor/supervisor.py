"""
The order of things: Redis, seed, models with ingestion, orchestrators; then watching; then the same backwards.

The edge's listening socket is ours: workers come and go, the queue of connections stays (ADR 0015).

    start fails     every started process is stopped, one sentence says which child failed and how
    crash later     that process alone is restarted, with back-off (process.py)
    SIGINT, SIGTERM the edge first, so that nobody is turned away by a half-stopped system; Redis last
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

from orchestrator.settings import Settings, overlay
from orchestrator.supervisor import control, reaper, redis_server
from orchestrator.supervisor.console import Console, LogFile
from orchestrator.supervisor.errors import CannotRestart, ChildFailed, StartFailed
from orchestrator.supervisor.plan import (
    FAULTS_VARIABLE,
    ORCHESTRATOR,
    REDIS,
    SINGLE,
    Plan,
    Probe,
    ProcessSpec,
    Shape,
    count_ports,
    faults_file,
    make_plan,
    reachable,
    settings_file,
    to_toml,
)
from orchestrator.supervisor.ports import free_ports, listen
from orchestrator.supervisor.process import Child, State
from orchestrator.supervisor.readiness import redis_answers
from orchestrator.supervisor.rolling import roll
from orchestrator.supervisor.state import ProcessStatus, RunLock, write_status

EDGE_GRACE_S, MODELS_GRACE_S, REDIS_GRACE_S = 3.0, 3.0, 2.0
"""Judged: each more than the stage needs to drain (chassis: 2.5 s; the edge's own drain comes on top); together under
the 10 s an operator waits."""

GIVEN_REDIS_WAIT_S = 5.0
"""Judged: a given Redis is expected to run; this forgives one that is just being started beside us."""

OVERRULED = (
    "TUTTI_CONFIG",
    "TUTTI_DATA__PATH",
    "TUTTI_REDIS__URL",
    "TUTTI_EDGE__HOST",
    "TUTTI_EDGE__PORT",
    FAULTS_VARIABLE,
)
"""Variables kept from children: they would overrule what the plan says, in which settings are already honoured."""


class Supervisor:
    """
    One running system in one data directory.

    Args:
        settings: checked settings; addresses of everything but the edge are chosen here.
        data: the data directory.
        redis_url: a Redis that already runs; None starts one.
        console: where lines go.
        shape: how many replicas and workers, and whether they can be disturbed.
        planner: decides the command lines; another one starts other processes in the same order.
    """

    def __init__(
        self,
        settings: Settings,
        data: Path,
        redis_url: str | None,
        console: Console,
        shape: Shape = SINGLE,
        planner: Callable[..., Plan] = make_plan,
    ) -> None:
        self._data = data.resolve()
        self._run = self._data / "run"
        self._given_redis = redis_url
        self._console = console
        self._token = secrets.token_hex(16)
        self._reaper: _Reaper | None = None
        self._children: list[Child] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._settings = settings
        self._shape = shape
        self._planner = planner
        self._listener: socket.socket | None = None
        self._rolling = asyncio.Lock()
        self.plan: Plan | None = None

    async def run(self) -> None:
        """
        Start everything, say where the edge is, keep it alive until SIGINT, SIGTERM or SIGHUP, stop everything.

        Raises:
            SupervisorError: nothing runs any more.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        async with self._listening(), self._holding():
            started = asyncio.create_task(self._start_all())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({started, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not started.done():
                started.cancel()
            await asyncio.gather(started, return_exceptions=True)
            if not started.cancelled():
                started.result()
                async with control.listening(self._run, self._restart):
                    await stopped
            stopped.cancel()
            self._console.say("stopping")
        self._console.say("stopped")

    @asynccontextmanager
    async def backends(self) -> AsyncIterator[Settings]:
        """
        Redis, seed and model services without edge and ingestion; yields the settings that reach them.

        Raises:
            SupervisorError: nothing runs any more.
        """
        async with self._holding():
            await self._start_backends()
            yield self._planned().settings

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        """The edge's socket, until every worker has stopped."""
        edge = self._settings.edge
        with listen(edge.host, edge.port) as self._listener:
            port = self._listener.getsockname()[1]
            edge = edge.model_copy(update={"port": port})
            self._settings = self._settings.model_copy(update={"edge": edge})
            yield

    @asynccontextmanager
    async def _holding(self) -> AsyncIterator[None]:
        """The lock, the reaper and the end of every child, whatever happens inside."""
        with ExitStack() as stack:
            lock = RunLock(self._run)
            lock.acquire()
            stack.callback(lock.release)
            self._reaper = _Reaper(self._token)
            stack.callback(self._reaper.close)
            try:
                yield
            finally:
                await self._stop_all()

    async def _start_all(self) -> None:
        await self._start_backends(self._planned().ingestion)
        await self._start(*self._planned().orchestrators)
        host, port = self._planned().settings.edge.host, self._planned().settings.edge.port
        self._console.say(f"ready at http://{reachable(self._planned().settings.edge)}/ (edge on {host}:{port})")

    async def _start_backends(self, *beside: ProcessSpec) -> None:
        plan = self._planned()
        await self._start_redis(plan)
        effective = settings_file(self._data)
        effective.touch(mode=0o600)  # a given Redis may have its password in the URL
        effective.write_text(to_toml(overlay(plan.settings)), encoding="utf-8")
        self._console.say("bringing the online store up to date")
        await self._finish(ProcessSpec("seed", plan.seed, "", Probe.REDIS))
        if self._shape.faults:
            faults_file(self._data).write_text("{}\n", encoding="utf-8")  # none is left over from last time
            self._console.say(f"faults can be injected: {faults_file(self._data)} and a proxy before every replica")
        await self._start(*plan.models, *beside)
        if plan.proxies:
            await self._start(*plan.proxies)

    async def _start_redis(self, plan: Plan) -> None:
        if plan.redis is not None:
            (self._run / "redis").mkdir(parents=True, exist_ok=True)
            await self._start(plan.redis)
            return
        url = plan.settings.redis.url
        try:
            async with asyncio.timeout(GIVEN_REDIS_WAIT_S):
                while not await redis_answers(url):  # noqa: ASYNC110 – another process cannot set our events
                    await asyncio.sleep(0.2)
        except TimeoutError as error:
            shown = url.rpartition("@")[2]  # never a password
            raise StartFailed(
                f"no Redis answers at {shown}; start it, or unset REDIS_URL to use the embedded one"
            ) from error

    async def _start(self, *specs: ProcessSpec) -> None:
        """Start these together; return when all are ready, fail with the first that fails."""
        self._console.say(f"starting {', '.join(spec.label for spec in specs)}")
        children = [self._child(spec) for spec in specs]
        self._children += children
        try:
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(child.start())
        except* ChildFailed as failures:
            first = next(failure for failure in failures.exceptions if isinstance(failure, ChildFailed))
            raise StartFailed(str(first), first.lines) from first
        self._watchers += [asyncio.create_task(child.keep_alive(), name=child.spec.label) for child in children]

    async def _restart(self, names: Sequence[str], say: Callable[[str], None]) -> int:
        if self._rolling.locked():
            raise CannotRestart("a restart is under way; try again when it is done")
        async with self._rolling:
            return await roll(self._children, names, say, self._grace_s)

    async def _finish(self, spec: ProcessSpec) -> None:
        child = self._child(spec)
        try:
            await child.finish()
        except ChildFailed as failure:
            raise StartFailed(str(failure), failure.lines) from failure
        finally:
            await child.stop(MODELS_GRACE_S)

    async def _stop_all(self) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        edge = [child for child in self._children if child.spec.name == ORCHESTRATOR]
        store = [child for child in self._children if child.spec.name == REDIS]
        others = [child for child in self._children if child not in edge and child not in store]
        for group in (edge, others, store):
            await asyncio.gather(*(child.stop(self._grace_s(child.spec.name)) for child in group))

    def _grace_s(self, name: str) -> float:
        drain_s = self._settings.edge.drain_ms / 1000
        return {ORCHESTRATOR: drain_s + EDGE_GRACE_S, REDIS: REDIS_GRACE_S}.get(name, MODELS_GRACE_S)

    def _child(self, spec: ProcessSpec) -> Child:
        environment = {name: value for name, value in os.environ.items() if name not in OVERRULED}
        environment |= {reaper.TOKEN_VARIABLE: self._token, "PYTHONUNBUFFERED": "1"}
        log = LogFile(self._run / "logs" / f"{spec.label}.log")
        return Child(spec, environment, log, self._console, self._write_status)

    def _write_status(self) -> None:
        statuses = [
            ProcessStatus(
                *(c.spec.name, c.pid, c.spec.address, c.state.value),
                *(c.spec.replica, c.spec.upstream, c.spec.control, c.spec.metrics),
            )
            for c in self._children
        ]
        plan = self._planned()
        if plan.redis is None:
            given = plan.settings.redis.url.rpartition("@")[2].removeprefix("redis://").partition("/")[0]
            statuses.insert(0, ProcessStatus(REDIS, None, given, State.READY.value))
        if self._reaper is not None:
            self._reaper.know(child.pid for child in self._children if child.pid is not None)
        write_status(self._run, reachable(plan.settings.edge), statuses)

    def _planned(self) -> Plan:
        """The plan, made once: ports are looked for as late as possible, so that they are still free."""
        if self.plan is None:
            command: tuple[str, ...] = ()
            if self._given_redis is None:
                command = redis_server.command(redis_server.find_binary(), self._run / "redis")
            self.plan = self._planner(
                self._settings,
                self._data,
                iter(free_ports(count_ports(self._settings, self._shape))),
                redis_url=self._given_redis,
                redis_command=command,
                shape=self._shape,
                edge_fd=-1 if self._listener is None else self._listener.fileno(),
            )
        return self.plan


class _Reaper:
    """A process that ends our children should we be killed; told at every change which there are."""

    def __init__(self, token: str) -> None:
        # -I: it needs nothing of ours, and must start whatever lies in the working directory.
        command = [sys.executable, "-I", reaper.__file__, token]
        self._process = Popen(command, stdin=PIPE, text=True, start_new_session=True)

    def know(self, pids: Iterable[int]) -> None:
        """The leaders of every process group that lives now."""
        self._tell(" ".join(map(str, pids)))

    def close(self) -> None:
        """Everything is stopped: nothing to do."""
        self._tell(reaper.ALL_IS_WELL)
        try:
            self._process.communicate(timeout=2)
        except (TimeoutExpired, OSError):
            self._process.kill()
            self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin is None:
            return
        # Somebody killed it: we go on without, as a supervisor that is not killed does not need it.
        with suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
