"""
Starts one stretch of load and takes the CPU of everybody at its begin and end.

The rule: a stretch is bounded in time, and its process ends with the block, whatever happened.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from services.bench import cpu
from services.bench.client import PATIENCE_S, Spec
from services.bench.figures import Round

START_WITHIN_S = 20.0
"""Judged: the client imports for a fifth of a second; a hundred times that is a machine that does not run us."""


class LoadFailed(RuntimeError):
    """The load ended without saying what it counted; the message says why."""


def measure(spec: Spec, processes: Mapping[str, int], bystanders: Mapping[str, int]) -> Round:
    """
    Run *spec*; the CPU seconds are those of *processes* between its `begin` and `end`.

    Raises:
        LoadFailed, cpu.ProcessGone
    """
    with tempfile.TemporaryDirectory(prefix="tutti-bench-") as folder:
        file = Path(folder) / "load.json"
        spec.save(file)
        with subprocess.Popen(
            [sys.executable, "-m", "services.bench.client", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            # However it hangs: the end of its output is the end of our wait.
            last = threading.Timer(START_WITHIN_S + spec.warm_s + spec.seconds + PATIENCE_S, process.kill)
            last.start()
            try:
                return _followed(process, processes, bystanders)
            finally:
                last.cancel()
                process.kill()


def _followed(process: subprocess.Popen[str], processes: Mapping[str, int], bystanders: Mapping[str, int]) -> Round:
    out = _piped(process.stdout)
    everybody = {**processes, **{f"bystander {name}": pid for name, pid in bystanders.items()}}
    _expect(process, out, "begin")
    before = cpu.snapshot(everybody)
    _expect(process, out, "end")
    spent = cpu.between(before, cpu.snapshot(everybody))
    line = out.readline()
    try:
        counted = json.loads(line)
    except ValueError as error:
        raise _failed(process) from error
    own = {name: spent[name] for name in processes}
    return Round(
        counted["seconds"],
        counted["latencies_us"],
        counted["failures"],
        counted["levels"],
        counted["remembered"],
        own,
        counted["client_cpu_s"],
        sum(spent.values()) - sum(own.values()),
    )


def _expect(process: subprocess.Popen[str], out: IO[str], word: str) -> None:
    if out.readline().strip() != word:
        raise _failed(process)


def _failed(process: subprocess.Popen[str]) -> LoadFailed:
    process.kill()
    said = _piped(process.stderr).read().strip().splitlines()
    return LoadFailed(f"the load ended before it had counted: {said[-1] if said else 'it said nothing'}")


def _piped(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise LoadFailed("the load has no output")
    return stream
