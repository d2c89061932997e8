"""
Doing faults and undoing them. Every step knows its own undoing before it is done, and `heal` never gives up half way.

Only what the running system itself started is touched: processes of its status file, its fault proxies, its own
Redis, files under its `run` folder, and control groups made here and removed again.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from orchestrator.doctor.kernel import (
    CGROUP,
    QUOTA_PERIOD_US,
    drop_rules,
    home_group,
    in_own_network,
    iptables,
    send,
    write,
)
from orchestrator.doctor.proxy_control import CONTROL_TIMEOUT_S, CannotInject, Control
from orchestrator.doctor.steps import (
    Again,
    Configure,
    Drop,
    FewFiles,
    ForgetSlates,
    Freeze,
    InTurn,
    Misbehave,
    Poison,
    Signal,
    Starve,
    Step,
    Target,
    Tell,
)
from orchestrator.doctor.system import READY_WITHIN_S, Process, System, until
from orchestrator.doctor.toxics import Toxic
from orchestrator.supervisor.plan import REDIS
from orchestrator.supervisor.rolling import SETTLE_S

Undo = list[Callable[[], object]]
"""What is to be called, the last first."""


class Injector:
    """
    Makes faults in *system*; as a context manager it heals at the end, whatever happens.

    seed: of the chance by which proxies choose what they touch.
    """

    def __init__(self, system: System, seed: int = 0) -> None:
        self._system, self._seed = system, seed
        self._undo: Undo = []
        self._threads: list[tuple[threading.Thread, threading.Event]] = []
        self._turns: list[threading.Thread] = []
        self._ended: set[int] = set()

    def __repr__(self) -> str:
        return f"<Injector of {self._system.data}, {len(self._undo)} things to undo>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.heal(wait=False)

    def inject(self, steps: Sequence[Step]) -> None:
        """
        Do every step, in order.

        Raises:
            CannotInject: one cannot be done; those before it stay until `heal`.
        """
        for step in steps:
            self._do(step, self._undo)

    def wait_turns(self, within_s: float) -> None:
        """Wait until everyone of `InTurn` has had its turn, at most *within_s*."""
        end = time.monotonic() + within_s
        for thread in self._turns:
            thread.join(max(0.0, end - time.monotonic()))
        self._turns.clear()

    def heal(self, *, wait: bool = True) -> None:
        """
        Undo everything, the last first, and with *wait* return when every process is ready again.

        An undoing that fails does not stop the others; the first failure is raised at the end.

        Raises:
            CannotInject: something could not be undone; it names what.
            NotRunning: a process did not come back.
        """
        for thread, stop in self._threads:
            stop.set()
            thread.join()
        self._threads.clear()
        failures = _undone(self._undo)
        ended, self._ended = self._ended, set()
        if failures:
            raise CannotInject(f"could not be undone: {failures[0]}") from failures[0]
        if wait and ended:
            self._system.wait_ready(without=ended)

    def _do(self, step: Step, undo: Undo) -> None:  # noqa: PLR0912 – one arm for each kind of step
        try:
            match step:
                case Signal(target, number):
                    self._signal(target, number, undo)
                case Poison(target, toxics):
                    self._poison(target, toxics, undo)
                case Tell(command, back):
                    if back:
                        undo.append(lambda: self._tell(back))
                    self._tell(command)
                case Configure(key, value):
                    was = self._tell(("CONFIG", "GET", key))
                    old = was[key] if isinstance(was, dict) else was[1]
                    undo.append(lambda: self._tell(("CONFIG", "SET", key, old)))
                    self._tell(("CONFIG", "SET", key, value))
                case ForgetSlates():
                    self._forget_slates()
                case Misbehave(wishes):
                    undo.append(lambda: self._wish({}))
                    self._wish({name: dict(what) for name, what in wishes})
                case Freeze(target):
                    self._freeze(target, undo)
                case Starve(target, share):
                    self._starve(target, share, undo)
                case FewFiles(target, most):
                    for pid in (pid for process in self._processes(target) for pid in process.pids()):
                        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                        undo.append(partial(resource.prlimit, pid, resource.RLIMIT_NOFILE, (soft, hard)))
                        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
                case Drop(target, share):
                    if not in_own_network():
                        raise CannotInject("packets are only dropped in a network namespace of our own")
                    for rule in drop_rules([process.address for process in self._processes(target)], share):
                        undo.append(partial(iptables, "-D", rule))
                        iptables("-A", rule)
                case Again():
                    self._again(step)
                case InTurn():
                    self._in_turn(step)
        except (OSError, redis.RedisError) as error:
            raise CannotInject(f"{step}: {error}") from error

    def _signal(self, target: Target, number: signal.Signals, undo: Undo) -> None:
        processes = self._processes(target)
        pids = [pid for process in processes for pid in process.pids()]
        if not pids:
            raise CannotInject(f"no process of {target} is alive")
        if number is signal.SIGSTOP:
            undo.append(lambda: send(pids, signal.SIGCONT))
        else:
            # Its status is "ready" until the supervisor has noticed: whoever waits, waits for other processes.
            pids = [process.pid for process in processes if process.pid] if number is signal.SIGTERM else pids
            self._ended.update(pids)
        send(pids, number)

    def _poison(self, target: Target, toxics: tuple[Toxic, ...], undo: Undo) -> None:
        proxies = [
            proxy
            for name in target.names
            for proxy in self._system.proxies_of(name)
            if target.replica in (None, proxy.replica)
        ]
        if not proxies:
            raise CannotInject(f"no fault proxy in front of {target}; start the system with: tutti up --faults")
        for proxy in proxies:
            control = Control(proxy.control)
            undo.append(control.clear)
            # Held: should we be killed, the proxy heals itself when this connection ends.
            control.ask({"command": "set", "toxics": [t.document() for t in toxics], "seed": self._seed, "hold": True})

    def _tell(self, command: Sequence[str | int]) -> Any:
        with self._redis() as client:
            return client.execute_command(*command)

    def _forget_slates(self) -> None:
        with self._redis() as client:
            for key in client.scan_iter("tutti:slates:*", 1000):
                client.unlink(key)

    def _wish(self, wishes: dict[str, dict[str, Any]]) -> None:
        path = self._system.data / "run" / "faults.json"
        written = path.with_suffix(".partial")
        written.write_text(json.dumps(wishes), encoding="utf-8")
        written.replace(path)
        time.sleep(FAULT_FILE_S)

    def _freeze(self, target: Target, undo: Undo) -> None:
        group = self._group("freezer", target, undo)
        undo.append(lambda: write(group / "freezer.state", "THAWED"))
        write(group / "freezer.state", "FROZEN")

    def _starve(self, target: Target, share: float, undo: Undo) -> None:
        group = self._group("cpu", target, undo)
        write(group / "cpu.cfs_period_us", str(QUOTA_PERIOD_US))
        write(group / "cpu.cfs_quota_us", str(max(1000, round(share * QUOTA_PERIOD_US))))

    def _group(self, controller: str, target: Target, undo: Undo) -> Path:
        """A control group of our own with the processes of *target* in it; undone by sending them home again."""
        group = CGROUP / controller / f"tutti-doctor-{os.getpid()}"
        group.mkdir()
        pids = [pid for process in self._processes(target) for pid in process.pids()]
        home = CGROUP / controller / home_group(controller).lstrip("/")

        def back() -> None:
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    write(home / "cgroup.procs", pid)
            group.rmdir()

        undo.append(back)
        for pid in pids:
            write(group / "cgroup.procs", str(pid))
        return group

    def _again(self, step: Again) -> None:
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                undo: Undo = []
                with suppress(CannotInject):  # it may just be restarting; next time
                    self._do(step.step, undo)
                if step.undo_after_s is not None:
                    stop.wait(step.undo_after_s)
                    _undone(undo)
                else:
                    self._undo += undo
                stop.wait(step.every_s)

        self._begin(work, stop)

    def _in_turn(self, step: InTurn) -> None:
        stop = threading.Event()

        def work() -> None:
            for process in self._processes(step.target):
                if stop.is_set() or process.pid is None:
                    return
                self._ended.add(process.pid)
                send([process.pid], step.number)
                until(lambda: stop.is_set() or self._system.is_ready(self._ended), READY_WITHIN_S)
                # What `tutti restart` leaves, so that clients have found it again before its sibling goes.
                stop.wait(SETTLE_S)

        self._turns.append(self._begin(work, stop))

    def _begin(self, work: Callable[[], None], stop: threading.Event) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append((thread, stop))
        thread.start()
        return thread

    def _processes(self, target: Target) -> list[Process]:
        return [
            process
            for name in target.names
            for process in self._system.of(name)
            if target.replica in (None, process.replica)
        ]

    def _redis(self) -> redis.Redis:
        if not self._system.has_own_redis():
            raise CannotInject("the Redis in use was not started by tutti and is left alone")
        host, _, port = self._system.of(REDIS)[0].address.rpartition(":")
        return redis.Redis(host, int(port), socket_timeout=CONTROL_TIMEOUT_S, decode_responses=True)


FAULT_FILE_S = 0.3
"""Derived: the services look at the fault file every 0.1 s; three looks later all have seen it."""


def _undone(undo: Undo) -> list[Exception]:
    """Call and forget every one of *undo*, the last first; what failed."""
    failures: list[Exception] = []
    while undo:
        try:
            undo.pop()()
        except (OSError, redis.RedisError, CannotInject, ValueError) as error:
            failures.append(error)
    return failures
