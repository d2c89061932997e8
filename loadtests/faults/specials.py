"""
Rows that need the system to be run in a way of its own: each takes the runner's things and returns report lines.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from loadtests.faults import nemesis as nemesis_of
from loadtests.faults import overload as overload_of
from orchestrator.doctor.checker import Expect, Phases, judge
from orchestrator.doctor.drill import SETTLE_S, Load, Timing, spec_for
from orchestrator.doctor.history import between
from orchestrator.doctor.mix import Shop
from orchestrator.doctor.report import shares, skipped
from orchestrator.doctor.system import System, started

FULL_DISK_KB = 64
"""Derived: a page for each of the ten log files and a little more; full after about a hundred requests."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a special row gets: the running system, its shop, the load, and how long things may take."""

    system: System
    shop: Shop
    knee: float
    rate: float
    timing: Timing
    seed: int
    idle_s: float
    nemesis_s: float
    overload_s: float


Line = tuple[str, ...]
"""As `report.COLUMNS`."""


def overload(stage: Stage) -> list[Line]:
    """Row 34."""
    lines = []
    for times in (2.0, 5.0, 10.0):
        one = overload_of.storm(stage.system, stage.shop, stage.knee, times, stage.overload_s, stage.seed)
        print(one, flush=True)
        good = " / ".join(f"{priority} {share['good']:.0%}" for priority, share in one.shares.items())
        failed = "; ".join(f"{claim.name}: {claim.found}" for claim in one.claims if not claim.holds)
        lines.append(
            (
                *("34", f"overload-{times:g}x", "–"),
                "–" if one.recovery_s is None else f"{one.recovery_s:.1f} s",
                *("–", "–", f"{one.p99_ms:.0f}", "–"),
                f"goodput {one.goodput:.0f}/s of knee {stage.knee:.0f}/s; in time: {good}",
                failed or "holds",
            )
        )
    return lines


def nemesis(stage: Stage) -> list[Line]:
    """Row 44."""
    faults = nemesis_of.playable(stage.system)
    acts = nemesis_of.schedule(list(faults.values()), stage.nemesis_s, stage.seed)
    played = nemesis_of.play(stage.system, stage.shop, faults, acts, stage.nemesis_s, stage.rate, stage.seed)
    figures = played.figures
    failed = "; ".join(f"{claim.name}: {claim.found}" for claim in played.claims if not claim.holds)
    heal = "–" if played.heal_s is None else f"{played.heal_s:.1f} s"
    name = f"nemesis, seed {stage.seed}, {len(acts)} acts"
    latencies = (f"{figures.p50_ms:.0f}", f"{figures.p99_ms:.0f}", f"{figures.p999_ms:.0f}")
    return [("44", name, "–", heal, "–", *latencies, shares(figures), failed or "holds")]


def idle(stage: Stage) -> list[Line]:
    """Row 41: nobody asks for a long while; the first who does must not pay for it."""
    time.sleep(stage.idle_s)
    return [_healthy_load(stage, "41", f"idle-{stage.idle_s:g}s")]


def full_disk(stage: Stage) -> list[Line]:
    """Row 39: a system of its own, on a copy, whose logs lie on a small disk that is full within seconds."""
    if os.geteuid() != 0:
        return [skipped(39, "log-disk-full", "skipped: mounting a small disk for the logs needs root")]
    with copied(stage.system.data) as data:
        logs = data / "run" / "logs"
        logs.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK_KB}k", "none", str(logs)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return [skipped(39, "log-disk-full", f"skipped: no small disk: {done.stderr.strip()}")]
        try:
            with started(data) as system:
                line = _healthy_load(replace(stage, system=system), "39", "log-disk-full")
                left = os.statvfs(logs)
        finally:
            subprocess.run(["umount", "-l", str(logs)], check=False)
    full = left.f_bavail == 0
    return [(*line[:-1], line[-1] if full else f"the disk was not full ({left.f_bavail} blocks left); {line[-1]}")]


@contextmanager
def copied(data: Path) -> Iterator[Path]:
    """A copy of a data directory without what a running system wrote there; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="tutti-faults-") as folder:
        copy = Path(folder) / "shop"
        shutil.copytree(data, copy, ignore=shutil.ignore_patterns("run", "event_log", "evaluation"))
        yield copy


def _healthy_load(stage: Stage, row: str, name: str) -> Line:
    """Load without a fault, where none may be seen: the fault is what came before, or what lies underneath."""
    timing = stage.timing
    with Load(spec_for(stage.system, stage.shop, stage.rate, 3600, stage.seed)) as load:
        time.sleep(SETTLE_S)
        begins_at = time.monotonic()
        time.sleep(timing.before_s + timing.fault_s + timing.after_s)
        ends_at = time.monotonic()
        seen = list(between(load.finish(), begins_at, ends_at))
    marks = (begins_at, begins_at + timing.before_s, begins_at + timing.before_s + timing.fault_s)
    phases = Phases(marks[0], marks[1], marks[1], marks[2], marks[2], ends_at)
    verdict = judge(seen, phases, Expect(least_clean_share=0.99), stage.system.names.sources)
    first_ms = seen[0].latency_s * 1000 if seen else float("nan")
    failed = [f"{claim.name}: {claim.found}" for claim in verdict.claims if not claim.holds]
    if not first_ms <= 100:
        failed.append(f"first request {first_ms:.0f} ms")
    during = verdict.during
    latencies = (f"{during.p50_ms:.0f}", f"{during.p99_ms:.0f}", f"{during.p999_ms:.0f}")
    return (
        row,
        name,
        "–",
        "–",
        "–",
        *latencies,
        shares(during),
        "; ".join(failed) or f"holds; first {first_ms:.0f} ms",
    )


SPECIALS: Mapping[str, Callable[[Stage], list[Line]]] = {
    "overload": overload,
    "nemesis": nemesis,
    "idle": idle,
    "full_disk": full_disk,
}
