"""
The fault matrix on real processes: two replicas of every model service and two orchestrators behind fault proxies,
open-loop load at a quarter of the knee measured first, every answer judged.

    python -m loadtests.faults --data DIR [--rows 1,2,9-12] [--phase 10] [--minutes 10] [--report FILE.md]

Works on a copy of DIR, since some rows destroy what they touch. What this machine cannot do is skipped by name, with
what is missing. Exit code 0 only when every row that ran held, 2 when the system did not come up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadtests.faults.rows import ROWS, Row, parse_rows, within
from loadtests.faults.specials import SPECIALS, Line, Stage, copied
from orchestrator.doctor import report
from orchestrator.doctor.catalogue import catalogue
from orchestrator.doctor.drill import Outcome, Timing, drill, healing_signals, measure_knee, overall
from orchestrator.doctor.faults import Fault, missing
from orchestrator.doctor.proxy_control import CannotInject
from orchestrator.doctor.system import NotRunning, System, started
from orchestrator.supervisor.plan import REDIS

SHAPE = ("--replicas", "2", "--workers", "2", "--faults")

OVERHEAD_S = 4.0
"""Of a drill beside its phases: load's start and end, waiting until what was killed is ready. Measured 2 to 8 s."""

KNEE_STEP_S = 3.0


class Matrix:
    """One run: rows in their order, the system started again when a row has ended it."""

    def __init__(self, data: Path, arguments: argparse.Namespace) -> None:
        self._data, self._arguments = data, arguments
        self.lines: list[Line] = []
        self.outcomes: list[Outcome] = []
        self.knee = self.rate = 0.0
        phase = arguments.phase
        # Healing may take 5 s, so what follows is never shorter than that and a little.
        self._timing = Timing(phase, phase, max(phase, 6.0))

    def run(self) -> None:
        """Everything that was asked for."""
        rows = [ROWS[number - 1] for number in self._arguments.rows]
        faults: list[Fault] | None = None
        while faults is None or faults:
            with started(self._data, SHAPE) as system:
                if faults is None:
                    faults = self._first(system, rows)
                faults = self._drills(system, faults)
                if not faults:
                    self._specials(system, rows)

    def _first(self, system: System, rows: Sequence[Row]) -> list[Fault]:
        """Measure the load, say what is skipped, choose the faults."""
        shop, arguments = system.shop(), self._arguments
        knee = measure_knee(system, shop, KNEE_STEP_S, arguments.seed)
        self.knee, self.rate = knee.rate, arguments.rate or knee.load
        print(f"knee {self.knee:.0f} requests/s ({knee.tried}); drills at {self.rate:.0f}", flush=True)
        self.lines += [report.skipped(row.number, row.name, f"skipped: {row.cannot}") for row in rows if row.cannot]
        numbers = {row.number for row in rows}
        asked = [fault for fault in catalogue(system.names) if fault.row in numbers]
        for fault in asked:
            if lacks := missing(fault.needs, system):
                self._skip(fault, f"needs {lacks[0].value}")
        able = [fault for fault in asked if not missing(fault.needs, system)]
        if arguments.minutes:
            each_s = self._timing.before_s + self._timing.fault_s + self._timing.after_s + OVERHEAD_S
            able, rest = within(able, each_s, arguments.minutes * 60)
            for fault in rest:
                self._skip(fault, f"not in the {arguments.minutes:g} minutes")
        return able

    def _drills(self, system: System, faults: Sequence[Fault]) -> list[Fault]:
        """Run *faults*; what is left when one of them ended the system."""
        shop = system.shop()
        for n, fault in enumerate(faults):
            try:
                outcome = drill(system, shop, fault, self._timing, self.rate, self._arguments.seed, lambda _: None)
                if fault.name == "flush-redis":
                    reseed(system)
            except (NotRunning, CannotInject) as error:
                self._add(report.skipped(fault.row, fault.name, f"failed: {error}"))
                return list(faults[n + 1 :])
            self.outcomes.append(outcome)
            self._add(report.row_of(outcome))
        return []

    def _specials(self, system: System, rows: Sequence[Row]) -> None:
        arguments = self._arguments
        stage = Stage(
            system,
            system.shop(),
            self.knee,
            self.rate,
            self._timing,
            arguments.seed,
            arguments.idle,
            arguments.nemesis,
            arguments.overload,
        )
        for row in rows:
            if not row.special:
                continue
            if arguments.minutes:
                self._add(report.skipped(row.number, row.name, f"skipped: not in the {arguments.minutes:g} minutes"))
                continue
            try:
                for line in SPECIALS[row.special](stage):
                    self._add(line)
                system.wait_ready()
            except (NotRunning, CannotInject, RuntimeError) as error:
                self._add(report.skipped(row.number, row.name, f"failed: {error}"))
                return

    def _skip(self, fault: Fault, why: str) -> None:
        self._add(report.skipped(fault.row, fault.name, f"skipped: {why}"))

    def _add(self, line: Line) -> None:
        print(" │ ".join(line), flush=True)
        self.lines.append(line)

    @property
    def failed(self) -> list[Line]:
        """Lines of rows that ran and did not hold."""
        return [line for line in self.lines if not line[-1].startswith(("holds", "skipped"))]


def reseed(system: System) -> None:
    """Features, histories and vocabulary again, after they were flushed: what `tutti up` does at its start."""
    url = f"redis://{system.of(REDIS)[0].address}/0"
    command = [sys.executable, "-m", "services.ingestion.seed", "--data", str(system.data.resolve()), "--redis", url]
    subprocess.run(command, check=True, capture_output=True)


def page(matrix: Matrix, arguments: argparse.Namespace, took_s: float) -> str:
    """The report as Markdown."""
    lines = sorted(matrix.lines, key=lambda line: int(line[0]))
    ran = [line for line in lines if not line[-1].startswith("skipped")]
    n, available, p999_ms = overall(matrix.outcomes)
    skipped = [line for line in lines if line[-1].startswith("skipped")]
    command = "python -m loadtests.faults " + " ".join(arguments.told)
    return "\n".join(
        [
            "# The fault matrix",
            "",
            f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {took_s / 60:.0f} minutes, seed {arguments.seed}.",
            f"{machine()}",
            f"Revision {revision()}; two replicas of every model service, two orchestrators, behind fault proxies.",
            f"Knee {matrix.knee:.0f} requests/s; load {matrix.rate:.0f} requests/s, open loop; phases of "
            f"{arguments.phase:g} s; latencies in milliseconds from the scheduled moment, during the fault.",
            "",
            f"**{len(ran) - len(matrix.failed)} of {len(ran)} held, {len(skipped)} skipped.** "
            f"{n} answers during faults: {available:.3%} available, p99.9 {p999_ms:.0f} ms.",
            "",
            report.markdown(ran),
            "## Skipped",
            "",
            *(f"- row {line[0]}, {line[1]}: {line[-1].removeprefix('skipped: ')}" for line in skipped),
            "",
        ]
    )


def machine() -> str:
    """What it ran on, in a sentence."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}."


def revision() -> str:
    """The commit that ran, with a mark when files differ from it."""
    if not shutil.which("git"):
        return "unknown"
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; *told* is what was given."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a trained data directory; it is copied")
    parser.add_argument("--rows", type=parse_rows, default=[row.number for row in ROWS], help="for example 1,2,9-12")
    parser.add_argument("--phase", type=float, default=10.0, help="seconds before, during and after each fault")
    parser.add_argument("--rate", type=float, help="requests a second; a quarter of the measured knee when absent")
    parser.add_argument("--minutes", type=float, default=0.0, help="as much as fits, the worst faults first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of silence in row 41")
    parser.add_argument("--nemesis", type=float, default=600.0, help="seconds of row 44")
    parser.add_argument("--overload", type=float, default=60.0, help="seconds of each storm of row 34")
    parser.add_argument("--report", type=Path, help="Markdown to write; the verdicts go beside it as JSON")
    parser.add_argument("--netns", action="store_true", help="in a network namespace of its own, for rows 15 and 18")
    arguments = parser.parse_args(argv)
    arguments.told = list(argv)
    return arguments


def in_namespace(argv: Sequence[str]) -> int:
    """This command again in a network namespace of its own, whose only link is its loopback."""
    again = [sys.executable, "-m", "loadtests.faults", *(one for one in argv if one != "--netns")]
    inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *again]
    return subprocess.run(["unshare", "--net", *inside], check=False).returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Run the matrix, write the report."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    if arguments.netns:
        return in_namespace(argv)
    began_at = time.monotonic()
    with healing_signals(), copied(arguments.data) as data:
        matrix = Matrix(data, arguments)
        try:
            matrix.run()
        except NotRunning as error:
            print(error, file=sys.stderr)
            return 2
        finally:
            if arguments.report and matrix.lines:
                arguments.report.parent.mkdir(parents=True, exist_ok=True)
                arguments.report.write_text(page(matrix, arguments, time.monotonic() - began_at), encoding="utf-8")
                verdicts = [report.document(one) for one in matrix.outcomes]
                beside = arguments.report.with_suffix(".json")
                beside.write_text(json.dumps(verdicts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    ran = [line for line in matrix.lines if not line[-1].startswith("skipped")]
    print(f"{len(ran) - len(matrix.failed)} of {len(ran)} held, {len(matrix.lines) - len(ran)} skipped")
    for line in matrix.failed:
        print(f"  row {line[0]}, {line[1]}: {line[-1]}")
    return 1 if matrix.failed or not ran else 0


if __name__ == "__main__":
    raise SystemExit(main())
