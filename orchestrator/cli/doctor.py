"""
`tutti doctor`: is it healthy under faults? Makes them on this machine, under load, and says whether the promise held.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from orchestrator import settings as tree
from orchestrator.cli.status import checks_of, doubts
from orchestrator.cli.up import default_data
from orchestrator.doctor import report
from orchestrator.doctor.catalogue import catalogue
from orchestrator.doctor.checker import PROMISE_S
from orchestrator.doctor.drill import Outcome, Timing, chosen, drill, healing_signals, measure_knee, overall
from orchestrator.doctor.faults import Fault, missing
from orchestrator.doctor.proxy_control import CannotInject
from orchestrator.doctor.system import NotRunning, System, attached_or_started

TIMING, QUICK = Timing(5.0, 10.0, 8.0), Timing(3.0, 5.0, 6.0)
"""Judged: the heal limit is 5 s, so that what follows must be longer; half a minute a fault is what people wait for."""

KNEE_STEP_S, QUICK_KNEE_STEP_S = 3.0, 1.5


def doctor(
    data: Annotated[Path | None, typer.Option(help="Data directory, trained. Default: $TUTTI_HOME/shop.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=1, max=5000, help="Requests a second. Default: a quarter of the measured knee.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two minutes: the worst faults, shorter.")] = False,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the verdicts here; - for stdout.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this fault; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of the load and of every fault's chance.")] = 1,
) -> None:
    """
    Break things on purpose, under load, and judge what a shopper would have seen.

    Works on the system that runs in DATA; when none runs, starts two replicas of everything behind fault proxies
    and stops them afterwards. Only what tutti itself started is touched, and everything is healed at the end, also
    on Ctrl-C. Not for a system that serves customers.

    Exit code 0 only when every fault held, 1 when one did not, 2 when nothing could be judged.

    Example: tutti doctor --data .tutti/shop --quick
    """
    console = Console(stderr=as_json == Path("-"))
    try:
        with healing_signals(), attached_or_started(data or default_data(), console.print) as system:
            code = _examine(system, console, rate, QUICK if quick else TIMING, quick, only or [], seed, as_json)
    except (NotRunning, CannotInject, tree.SettingsError, ValueError, OSError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        console.print("interrupted; everything is healed")
        raise typer.Exit(130) from None
    raise typer.Exit(code)


def _examine(
    system: System,
    console: Console,
    rate: float | None,
    timing: Timing,
    quick: bool,
    only: Sequence[str],
    seed: int,
    as_json: Path | None,
) -> int:
    faults = [fault for fault in catalogue(system.names) if fault.by_doctor]
    picked = [fault for fault in chosen(faults, only) if only or fault.quick or not quick]
    shop = system.shop()
    # A drill judges what it breaks itself; what is broken before it begins is said first.
    for line in doubts(checks_of(f"{system.host}:{system.port}")):
        console.print(f"before any fault, {line}")
    if rate is None:
        knee = measure_knee(system, shop, QUICK_KNEE_STEP_S if quick else KNEE_STEP_S, seed)
        rate = knee.load
        console.print(f"knee at about {knee.rate:.0f} requests/s; drills at {rate:.0f}")
    outcomes: list[Outcome] = []
    skipped: list[tuple[Fault, str]] = []
    for fault in picked:
        if lacks := missing(fault.needs, system):
            skipped.append((fault, f"needs {lacks[0].value}"))
            continue
        with console.status(f"{fault.name}: {fault.says}"):
            outcomes.append(drill(system, shop, fault, timing, rate, seed, lambda _: None))
        shown = outcomes[-1].verdict
        console.print(f"{'✓' if shown.holds else '✗'} {fault.name}: {fault.says}")
    return _tell(console, outcomes, skipped, rate, seed, as_json)


def _tell(
    console: Console,
    outcomes: Sequence[Outcome],
    skipped: Sequence[tuple[Fault, str]],
    rate: float,
    seed: int,
    as_json: Path | None,
) -> int:
    n, available, p999_ms = overall(outcomes)
    holds = bool(outcomes) and all(one.verdict.holds for one in outcomes)
    meets = available == 1.0 and p999_ms <= PROMISE_S * 1000
    rows = [report.row_of(one) for one in outcomes]
    rows += [report.skipped(fault.row, fault.name, f"skipped: {why}") for fault, why in skipped]
    console.print(report.table(rows))
    console.print(
        f"{sum(o.verdict.holds for o in outcomes)} of {len(outcomes)} faults held, {len(skipped)} skipped; "
        f"{n} answers during faults: {available:.2%} available, p99.9 {p999_ms:.0f} ms "
        f"(objective: 100 %, {PROMISE_S * 1000:.0f} ms) at {rate:.0f} requests/s"
    )
    if as_json is not None:
        document: dict[str, Any] = {
            "holds": holds and meets,
            "rate": round(rate, 1),
            "seed": seed,
            "answers": n,
            "availability": available,
            "p999_ms": None if math.isnan(p999_ms) else round(p999_ms, 3),
            "faults": [report.document(one) for one in outcomes],
            "skipped": [{"fault": fault.name, "row": fault.row, "why": why} for fault, why in skipped],
        }
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        if as_json == Path("-"):
            sys.stdout.write(text)
        else:
            as_json.write_text(text, encoding="utf-8")
    if not outcomes:
        console.print("nothing could be judged")
        return 2
    return 0 if holds and meets else 1
