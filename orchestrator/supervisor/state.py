"""
What others can know about a running system: a lock that the kernel frees, and a status file that is only true
while the lock is held.

    DIR/run/lock          flock, held by the supervisor for as long as it lives; its pid inside
    DIR/run/status.json   processes, replaced in one step at every change
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.supervisor.errors import AlreadyRunning


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """
    One line of `tutti status`.

    pid       None for a process that is not ours (a given Redis) or not alive
    upstream  of a fault proxy: the name of what is behind it; None, and left out of the file, for all others
    control   of a fault proxy: where it is told what to do; the same
    metrics   where Prometheus reads `/metrics` of the process; the same for those that have none beside their address
    """

    name: str
    pid: int | None
    address: str
    state: str
    replica: int = 0
    upstream: str | None = None
    control: str | None = None
    metrics: str | None = None

    def document(self) -> dict[str, Any]:
        """As it stands in the file."""
        whole = asdict(self)
        return {key: value for key, value in whole.items() if value is not None or key == "pid"}


ACQUIRE_ATTEMPTS = 5
"""Derived: whoever only looks (`holder`) has the lock for microseconds; five looks 20 ms apart do not all meet one."""


class RunLock:
    """The right to run a system in one data directory; given back by `release` or by the end of the process."""

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._path = run / "lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """
        Raises:
            AlreadyRunning: with the pid of the one that runs.
        """
        file = self._path.open("a+")
        if not _locked(file, fcntl.LOCK_EX, ACQUIRE_ATTEMPTS):
            file.seek(0)
            pid = file.read().strip()
            file.close()
            raise AlreadyRunning(
                f"{self._path.parent.parent} is already in use by process {pid or '(unknown)'}; "
                f"run `tutti down --data {self._path.parent.parent}` or choose another --data"
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give it back; the file stays, since removing it would let two hold a lock of one name."""
        if self._file is not None:
            self._file.close()
            self._file = None


def holder(run: Path) -> int | None:
    """Pid of the supervisor that runs in this data directory; None when there is none, whatever files it left."""
    try:
        with (run / "lock").open() as file:
            return None if _locked(file, fcntl.LOCK_SH, 1) else int(file.read().strip() or 0) or None
    except FileNotFoundError:
        return None


def write_status(run: Path, address: str, processes: Sequence[ProcessStatus]) -> None:
    """Replace `status.json` in one step."""
    content = {"supervisor": os.getpid(), "edge": address, "processes": [process.document() for process in processes]}
    partial = run / "status.json.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(run / "status.json")


def read_status(run: Path) -> dict[str, Any] | None:
    """What the running supervisor wrote; None when none runs here: a file left behind says nothing."""
    if holder(run) is None:
        return None
    try:
        content = json.loads((run / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _locked(file: IO[str], kind: int, attempts: int) -> bool:
    for attempt in range(attempts):
        if attempt:
            time.sleep(0.02)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            continue
        return True
    return False
