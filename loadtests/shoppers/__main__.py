"""
A load test from nothing: a copy of a trained shop, `tutti up` on free ports of loopback, Locust; all of it ended again.

    python -m loadtests.shoppers --data DIR [--shape step] [--minutes 2] [--rate 20] [--report load.html]
    python -m loadtests.shoppers --data DIR --host http://10.0.0.7:8000     a system that runs elsewhere

Whatever follows `--` goes to Locust as it stands. Exit code 0 when every objective held, 1 when one was missed, 2 when
the system did not come up or Locust did not run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtests.faults.specials import copied
from loadtests.shoppers.shapes import SHAPES
from orchestrator.doctor.drill import healing_signals
from orchestrator.doctor.load import take_precedence
from orchestrator.doctor.system import NotRunning, started

LOCUSTFILE = Path(__file__).parents[1] / "locustfile.py"

LONGER_S = 120
"""Judged: what a run may take beyond its minutes, for Locust's start and the last answers, before it is ended."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.shoppers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a trained data directory; it is copied")
    parser.add_argument("--host", help="a running system that serves the same data; none is started then")
    parser.add_argument("--shape", choices=SHAPES, default="step")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=20.0, help="page views a second; of steps, the first")
    parser.add_argument("--growth", type=float, default=1.3, help="from one step to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="orchestrator processes")
    parser.add_argument("--objectives", type=Path, default=LOCUSTFILE.with_name("objectives.toml"))
    parser.add_argument("--report", type=Path, help="HTML to write; the figures go beside it as JSON")
    parser.add_argument("locust", nargs="*", help="more arguments for Locust, after --")
    return parser.parse_args(argv)


def locust_command(asked: argparse.Namespace, host: str) -> list[str]:
    """Locust on *host* as *asked*."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", host]
    command += ["--only-summary", "--data", str(asked.data.resolve()), "--objectives", str(asked.objectives.resolve())]
    command += [f"--{name}={getattr(asked, name)}" for name in ("shape", "minutes", "rate", "growth", "seed")]
    if asked.report:
        command += ["--html", str(asked.report), "--figures", str(asked.report.with_suffix(".json"))]
    return [*command, *asked.locust]


@contextmanager
def host_of(asked: argparse.Namespace) -> Iterator[str]:
    """Where the load goes: to the given host, or to a system of our own for as long as this lasts."""
    if asked.host:
        yield asked.host
        return
    with healing_signals(), copied(asked.data) as data, started(data, ("--workers", str(asked.workers))) as system:
        yield f"http://{system.host}:{system.port}"


def main(argv: Sequence[str] | None = None) -> int:
    """Start, load, judge, end."""
    asked = parse(sys.argv[1:] if argv is None else argv)
    if asked.report:
        asked.report.parent.mkdir(parents=True, exist_ok=True)
    try:
        with host_of(asked) as host:
            print(f"{asked.shape} on {host} for {asked.minutes:g} minutes", flush=True)
            done = subprocess.run(
                locust_command(asked, host),
                check=False,
                timeout=asked.minutes * 60 + LONGER_S,
                start_new_session=True,
                preexec_fn=take_precedence,
            )
    except (NotRunning, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 2
    return done.returncode if done.returncode in (0, 1) else 2


if __name__ == "__main__":
    raise SystemExit(main())
