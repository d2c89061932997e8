"""
Profiles of the orchestrator and of every service at saturation, all taken at once, as flame graphs and a table.

    python -m loadtests.profile --data DIR [--seconds 20] [--kind home_fresh] [--in-flight 32] [--out docs/results]

Starts a copy of a trained shop, loads it, and samples each Python process from outside with py-spy, a hundred times a
second. Admission is off and budgets are wide, so that everything is computed. A system that runs in DIR already is
taken as it is, and left running. Writes `profile-NAME.svg` for each process and `profile.md`.
Exit code 1 when most answers were not full; 2 when the system did not come up, or py-spy is not there or may not look
into other processes.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from loadtests.faults.__main__ import machine, revision
from loadtests.faults.specials import copied
from loadtests.profile.flame import flame_graph
from loadtests.profile.saturate import Answered, saturate
from loadtests.profile.stacks import Stacks, StacksError, merged, read_stacks, table
from orchestrator.doctor.drill import healing_signals
from orchestrator.doctor.mix import Kind
from orchestrator.doctor.system import FAULT_PROXY, NotRunning, System, started
from orchestrator.supervisor.plan import REDIS
from orchestrator.supervisor.state import holder

EVERYTHING_IS_COMPUTED = """\
[admission]
enabled = false
[budget]
total_ms = 5000
""" + "".join(
    f"[stages.{name}]\ncap_ms = 1000\nreserve_after_ms = 0\n" for name in ("cache", "user", "retrieve", "rerank")
)
"""Nobody is turned away and nobody is late: at saturation the promise of 100 ms is not kept, and what takes its place
would be profiled, not the request."""

LEAST_FULL_SHARE = 0.9
"""Judged: with fewer full answers the profile is one of the fallbacks."""

RATE = 100
"""Samples a second; py-spy's own."""

NOT_PAUSED = "--nonblocking"
"""What is looked at goes on meanwhile. Measured on an idle service, 3 s at 50 a second: paused (py-spy's default) its
threads that wait were taken for working in 184 samples, running in 27, so a profile was mostly waiting. The price is a
stack now and then that is half of one and half of another; and a saturated process is not slowed by the looking."""

WARM_UP_S = 3.0
"""Judged: pools, caches and limits are as they will be."""

LONGER_S = 60
"""Judged: what py-spy may take beyond the seconds, on a machine that is loaded, to find the symbols and to write."""

MAY_NOT = ("permission denied", "operation not permitted", "ptrace")


class CannotSample(Exception):
    """py-spy is not there, or may not; the message says what to do."""


def sampler() -> str:
    """
    The py-spy of this environment.

    Raises:
        CannotSample: none is installed.
    """
    found = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if found is None:
        raise CannotSample("py-spy is not installed; `make setup-dev` does it, or `pip install py-spy`")
    return found


async def sample(py_spy: str, pid: int, seconds: float, folder: Path) -> Stacks:
    """
    Look at process *pid* for *seconds*.

    Raises:
        CannotSample: it may not, or the process ended.
    """
    out = folder / f"{pid}.raw"
    command = [py_spy, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds))), "--rate", str(RATE)]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--format", "raw", "--output", str(out), "--function", NOT_PAUSED),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), seconds + LONGER_S)
    except TimeoutError:
        raise CannotSample(f"py-spy did not end {LONGER_S} s after its time; is process {pid} swapped out?") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    # Without a single sample it ends well and writes nothing, or an empty file.
    if process.returncode:
        raise CannotSample(why_not(said.decode(errors="replace"), pid))
    return read_stacks(out.read_text(encoding="utf-8")) if out.is_file() else Stacks()


def why_not(said: str, pid: int) -> str:
    """What py-spy's complaint means for whoever started this."""
    line = next((line for line in said.splitlines() if line.strip()), "nothing")
    if any(words in said.lower() for words in MAY_NOT):
        return (
            f"py-spy may not look into process {pid} ({line}). It needs the right to trace: run as root, in a "
            "container with --cap-add SYS_PTRACE, or after `sysctl kernel.yama.ptrace_scope=0`"
        )
    return f"py-spy could not sample process {pid}: {line}"


def pids_of(system: System) -> dict[str, list[int]]:
    """Name → its Python processes; Redis is none, and fault proxies are the tests' own."""
    found: dict[str, list[int]] = {}
    for one in system.processes():
        if one.name not in (REDIS, FAULT_PROXY) and one.pid is not None:
            found.setdefault(one.name, []).append(one.pid)
    return found


async def profile(
    system: System, kind: Kind, in_flight: int, seconds: float, py_spy: str
) -> tuple[dict[str, Stacks], Answered]:
    """Load *system*, sample everything at once, end the load."""
    stop, pids = asyncio.Event(), pids_of(system)
    names = [(name, pid) for name, each in pids.items() for pid in each]
    load = asyncio.create_task(saturate(system.host, system.port, system.shop(), kind, in_flight, stop))
    try:
        await asyncio.sleep(WARM_UP_S)
        with tempfile.TemporaryDirectory(prefix="tutti-profile-") as folder:
            looking = [asyncio.create_task(sample(py_spy, pid, seconds, Path(folder))) for _, pid in names]
            try:
                taken = await asyncio.gather(*looking)
            finally:
                for one in looking:
                    one.cancel()
                await asyncio.gather(*looking, return_exceptions=True)
    finally:
        stop.set()
        answered = await load
    by_name = {name: [one for (n, _), one in zip(names, taken, strict=True) if n == name] for name in pids}
    return {name: merged(each) for name, each in by_name.items()}, answered


@contextmanager
def running_in(data: Path) -> Iterator[System]:
    """The system that runs in *data*, or one of our own on a copy, for as long as this lasts."""
    if holder(data / "run") is not None:
        print(f"taking the system that runs in {data}", flush=True)
        yield System(data)
        return
    with copied(data) as copy:
        config = copy.parent / "profile.toml"
        config.write_text(EVERYTHING_IS_COMPUTED, encoding="utf-8")
        with started(copy, config=config) as system:
            yield system


def write(out: Path, profiles: dict[str, Stacks], answered: Answered, asked: argparse.Namespace) -> Path:
    """The flame graphs and the page that links them; gives the page."""
    out.mkdir(parents=True, exist_ok=True)
    for name, stacks in profiles.items():
        (out / f"profile-{name}.svg").write_text(flame_graph(stacks, f"{name}, {asked.kind}"), encoding="utf-8")
    levels = ", ".join(f"{n} {level}" for level, n in answered.levels.most_common()) or "none"
    failed = ", ".join(f"{n}× {why}" for why, n in answered.failed.most_common())
    graphs = " · ".join(f"[{name}](profile-{name}.svg)" for name in profiles)
    head = [
        "# Profiles at saturation",
        "",
        f"`python -m loadtests.profile {' '.join(asked.told)}`, {datetime.now(UTC):%Y-%m-%d}, revision {revision()}.",
        machine(),
        f"{asked.in_flight} `{asked.kind}` requests in flight, closed loop; answers while it ran: {levels}"
        f"{f'; failed: {failed}' if failed else ''}.",
        f"py-spy, {RATE} samples a second for {asked.seconds:g} s of every process at once; idle threads left out. "
        "Time in C counts for the Python function that called it.",
        "",
        f"Flame graphs: {graphs}",
        "",
    ]
    page = out / "profile.md"
    page.write_text("\n".join(head) + "\n" + table(profiles, asked.most), encoding="utf-8")
    return page


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; *told* is what was given."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a trained data directory; it is copied")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kind", choices=[kind.value for kind in Kind], default=Kind.HOME_FRESH.value)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--most", type=int, default=15, help="functions in each table")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    asked = parser.parse_args(argv)
    asked.told = list(argv)
    return asked


def main(argv: Sequence[str] | None = None) -> int:
    """Start, load, sample, write."""
    asked = parse(sys.argv[1:] if argv is None else argv)
    try:
        py_spy = sampler()
        with healing_signals(), running_in(asked.data) as system:
            taken = asyncio.run(profile(system, Kind(asked.kind), asked.in_flight, asked.seconds, py_spy))
    except (NotRunning, CannotSample, StacksError) as error:
        print(error, file=sys.stderr)
        return 2
    profiles, answered = taken
    page = write(asked.out, profiles, answered, asked)
    print(table(profiles, 5))
    print(f"{answered.n} answers; {page}")
    if answered.levels["full"] < LEAST_FULL_SHARE * max(1, answered.n):
        print(f"only {answered.levels['full']} of {answered.n} answers were full: this is a profile of fallbacks")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
