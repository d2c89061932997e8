"""
The system under test, seen from outside: its status file, its settings file, its processes, its shoppers.

    NotRunning   there is nothing to look at, or it did not come up; one sentence says what to do
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from orchestrator import settings as tree
from orchestrator.doctor.mix import RERANK, Shop
from orchestrator.supervisor.plan import HOST, ORCHESTRATOR, REDIS, settings_file
from orchestrator.supervisor.state import holder, read_status

FAULT_PROXY = "fault_proxy"

START_WITHIN_S, STOP_WITHIN_S = 120.0, 20.0
"""Judged: two replicas of everything on two busy cores start in about half a minute; a stop takes under 10 s."""

READY_WITHIN_S = 45.0
"""Derived: the supervisor's longest back-off is 30 s, and a model service needs a few seconds to load."""

MOST_USERS, MOST_ITEMS = 2_000, 5_000
"""Judged: enough that few fresh requests repeat, few enough that a load's specification stays small."""


class NotRunning(Exception):
    """See the module's docstring."""


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the status file; *upstream* and *control* only for a fault proxy."""

    name: str
    pid: int | None
    address: str
    state: str
    replica: int = 0
    upstream: str = ""
    control: str = ""

    def pids(self) -> list[int]:
        """Its own and its descendants': an orchestrator with several workers is a tree."""
        if self.pid is None:
            return []
        try:
            children = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [self.pid, *(child.pid for child in children)]


@dataclass(frozen=True, slots=True)
class Names:
    """What the settings call the parts; in `degraded` a lost re-ranker is always `rerank`."""

    sources: tuple[str, ...]
    reranker: str

    @property
    def models(self) -> tuple[str, ...]:
        return (*self.sources, self.reranker)

    def stage(self, service: str) -> str:
        """The word of `degraded` for a lost model service."""
        return RERANK if service == self.reranker else service


class System:
    """A running tutti in a data directory."""

    def __init__(self, data: Path) -> None:
        """
        Raises:
            NotRunning: nothing runs in *data*.
        """
        self.data = data
        status = read_status(data / "run")
        if status is None:
            raise NotRunning(f"nothing runs in {data}; start it with: tutti up --data {data}")
        self.host, _, port = str(status["edge"]).rpartition(":")
        self.port = int(port)
        settings = tree.load(settings_file(data), {})
        self.names = Names(tuple(source.name for source in settings.sources), settings.reranker.name)

    def __repr__(self) -> str:
        return f"<System {self.data}, edge {self.host}:{self.port}, {len(self.processes())} processes>"

    def processes(self) -> list[Process]:
        """
        Every process as it is now.

        Raises:
            NotRunning: the supervisor ended.
        """
        status = read_status(self.data / "run")
        if status is None:
            raise NotRunning(f"the system in {self.data} ended")
        known = Process.__dataclass_fields__
        return [
            Process(**{k: v for k, v in one.items() if k in known and v is not None} | {"pid": one["pid"]})
            for one in status["processes"]
        ]

    def of(self, name: str) -> list[Process]:
        """Every replica of *name*, by number."""
        return sorted((one for one in self.processes() if one.name == name), key=lambda one: one.replica)

    def proxies_of(self, upstream: str) -> list[Process]:
        """The fault proxies in front of *upstream*, by replica."""
        found = (one for one in self.processes() if one.name == FAULT_PROXY and one.upstream == upstream)
        return sorted(found, key=lambda one: one.replica)

    def has_own_redis(self) -> bool:
        """Whether the Redis was started by this system; a given one is somebody else's and is left alone."""
        return any(one.pid is not None for one in self.of(REDIS))

    def is_ready(self, without: Collection[int] = ()) -> bool:
        """Whether every process is ready, and none of them is one of *without*."""
        return all(one.state == "ready" and one.pid not in without for one in self.processes())

    def wait_ready(self, within_s: float = READY_WITHIN_S, without: Collection[int] = ()) -> None:
        """
        Wait until every process is ready; processes that are ending (*without*) are not taken for it.

        Raises:
            NotRunning: some still are not; the message names them.
        """
        if not until(lambda: self.is_ready(without), within_s):
            late = ", ".join(f"{one.name} {one.state}" for one in self.processes() if one.state != "ready")
            raise NotRunning(f"not ready after {within_s:g} s: {late}")

    def shop(self) -> Shop:
        """Known shoppers, those of the demo page first, and items of the data directory."""
        users: dict[str, None] = {}
        listed = self.data / "shoppers.json"
        if listed.is_file():
            users = dict.fromkeys(str(row["user_id"]) for row in json.loads(listed.read_text(encoding="utf-8")))
        for batch in pq.ParquetFile(self.data / "events.parquet").iter_batches(columns=["user_id"]):
            users |= dict.fromkeys(one for one in batch.column(0).unique().to_pylist() if one is not None)
            if len(users) >= MOST_USERS:
                break
        items = pq.read_table(self.data / "items.parquet", columns=["item_id"]).column(0).slice(0, MOST_ITEMS)
        return Shop(tuple(users)[:MOST_USERS], tuple(items.to_pylist()))

    def orchestrators(self) -> list[Process]:
        """The edge's processes; more than one where every worker is a child of the supervisor."""
        return self.of(ORCHESTRATOR)


@contextmanager
def attached_or_started(data: Path, say: Callable[[str], None]) -> Iterator[System]:
    """
    The system that runs in *data*, left running; or one of our own with everything a doctor wants, stopped at the end.

    Raises:
        NotRunning: it does not come up; the message holds its last lines.
    """
    if holder(data / "run") is not None:
        say(f"attaching to the system that runs in {data}")
        system = System(data)
        system.wait_ready()
        yield system
        return
    if not data.is_dir():
        raise NotRunning(f"no data directory {data}; make one with `tutti demo`, or `tutti data import`")
    say(f"nothing runs in {data}: starting two replicas of everything behind fault proxies")
    with started(data, ("--replicas", "2", "--workers", "2", "--faults")) as system:
        yield system


@contextmanager
def started(data: Path, options: Sequence[str] = (), config: Path | None = None) -> Iterator[System]:
    """`tutti up` on *data* with *options*, until everything is ready; stopped at the end, whatever happens."""
    (data / "run").mkdir(parents=True, exist_ok=True)
    log = data / "run" / "doctor-up.log"
    command = [sys.executable, "-m", "orchestrator.cli", "up", "--data", str(data), "--port", str(_free_port()), "-q"]
    command += [*options, *(("--config", str(config)) if config else ())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        until(lambda: process.poll() is not None or _is_up(data), START_WITHIN_S)
        if process.poll() is not None or not _is_up(data):
            said = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
            raise NotRunning(f"`tutti up` did not come up; its last lines:\n{said}")
        yield System(data)
    finally:
        children = _alive(one["pid"] for one in (read_status(data / "run") or {}).get("processes", []))
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        left = end_left_behind(children)
    if left:
        raise NotRunning(
            f"`tutti up` ended and left {len(left)} processes behind: {', '.join(left)}; they are ended now"
        )


def end_left_behind(processes: Sequence[psutil.Process]) -> list[str]:
    """
    Kill those of *processes* that still live once their supervisor has ended, and name them.

    A number that was given to somebody else meanwhile is not touched: psutil compares the moment of the start.
    """
    names = []
    for one in psutil.wait_procs(processes, timeout=1.0)[1]:
        with suppress(psutil.NoSuchProcess):
            names.append(" ".join(one.cmdline()[1:4]) or str(one.pid))
            one.kill()
    return names


def until(holds: Callable[[], bool], within_s: float, every_s: float = 0.05) -> bool:
    """Look again and again until *holds()*; False when it did not within *within_s*."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(every_s)
    return True


def _alive(pids: Iterable[int | None]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if pid is not None:
                found.append(psutil.Process(pid))
    return found


def _is_up(data: Path) -> bool:
    status = read_status(data / "run")
    processes = (status or {}).get("processes", [])
    names = {one["name"] for one in processes}
    return ORCHESTRATOR in names and all(one["state"] == "ready" for one in processes)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])
