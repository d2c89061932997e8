"""
Starts the system under test, finds out which process is who, and ends it with the block, whatever happened.

The rule: nothing here knows what the processes are; their names come from the supervisor's own status file.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from services.bench.variants import Variant

START_WITHIN_S = 600.0
"""Derived: a model service may take 90 s (supervisor), seeding 20,000 shoppers was seen to take one minute on a busy
machine; a million takes no more than the rest of it."""

STOP_WITHIN_S = 20.0
"""Derived: twice what an orderly stop may take (supervisor)."""

SUPERVISOR, ORCHESTRATOR = "supervisor", "orchestrator"

_POLL_S = 0.2


class SystemFailed(RuntimeError):
    """The system did not come up or ended by itself; the message is the last it said."""


@dataclass(frozen=True, slots=True)
class System:
    """
    A running system.

    ports       variant → port of its orchestrator;  orchestrators  variant → pid
    processes   name → pid of everything that all variants share
    settings    the file that reaches it
    """

    ports: Mapping[str, int]
    orchestrators: Mapping[str, int]
    processes: Mapping[str, int]
    settings: Path

    def under(self, variant: str) -> dict[str, int]:
        """Name → pid of who takes part in answering *variant*'s requests, the orchestrator first."""
        return {ORCHESTRATOR: self.orchestrators[variant], **self.processes}

    def beside(self, variant: str) -> dict[str, int]:
        """Name → pid of the orchestrators of other variants, which are idle meanwhile."""
        return {name: pid for name, pid in self.orchestrators.items() if name != variant}

    def post(self, variant: str, path: str, body: str) -> tuple[int, dict[str, Any]]:
        """Status and body of one request outside every measurement."""
        url = f"http://127.0.0.1:{self.ports[variant]}{path}"
        request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, {}


@contextmanager
def running(data: Path, variants: Sequence[Variant]) -> Iterator[System]:
    """
    The system on *data*, an orchestrator for each of *variants*, until the block ends.

    Raises:
        SystemFailed: it did not come up; nothing of it is left.
    """
    (data / "run").mkdir(parents=True, exist_ok=True)
    file = data / "run" / "variants.json"
    file.write_text(json.dumps([[one.name, dict(one.environment)] for one in variants]), encoding="utf-8")
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, "-m", "services.bench.orchestra", "--data", str(data), "--variants", str(file)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            # Ctrl-C is for us; we end it in order.
            start_new_session=True,
        ) as process,
    ):
        try:
            yield _ready(process, data, variants, said)
        finally:
            _stop(process)


def _ready(process: subprocess.Popen[bytes], data: Path, variants: Sequence[Variant], said: IO[str]) -> System:
    gives_up = time.monotonic() + START_WITHIN_S
    while True:
        if process.poll() is not None:
            raise SystemFailed(f"the system did not come up: {_last_lines(said)}")
        status = _status(data)
        if (system := of_status(status, process.pid, data, variants)) is not None:
            return system
        if time.monotonic() > gives_up:
            raise SystemFailed(f"the system was not ready within {START_WITHIN_S:g} s: {_last_lines(said)}")
        time.sleep(_POLL_S)


def of_status(status: Mapping[str, Any], supervisor: int, data: Path, variants: Sequence[Variant]) -> System | None:
    """What the supervisor's *status* says; None while not everything is ready."""
    entries = status.get("processes", [])
    if status.get("supervisor") != supervisor or any(entry["state"] != "ready" for entry in entries if entry["pid"]):
        return None
    orchestrators = {entry["replica"]: entry for entry in entries if entry["name"] == ORCHESTRATOR}
    if len(orchestrators) < len(variants):
        return None
    of = {variant.name: orchestrators[number] for number, variant in enumerate(variants)}
    shared = {entry["name"]: entry["pid"] for entry in entries if entry["name"] != ORCHESTRATOR and entry["pid"]}
    return System(
        {name: int(entry["address"].rpartition(":")[2]) for name, entry in of.items()},
        {name: entry["pid"] for name, entry in of.items()},
        {**shared, SUPERVISOR: supervisor},
        data / "run" / "settings.toml",
    )


def _status(data: Path) -> dict[str, Any]:
    try:
        found = json.loads((data / "run" / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """In order if it can, by force if it must; its own reaper ends what a forced end leaves behind."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _last_lines(said: IO[str]) -> str:
    said.seek(0)
    return " · ".join(said.read().strip().splitlines()[-4:]) or "it said nothing"
