"""
Whether a run held: objectives.toml against the ledger, claim by claim, as a table and an exit code.

The rule: pure, and nothing is judged on too few answers: a p99.9 of fifty is their worst, so it is named only.

    ObjectivesError    a file that cannot be read, or with a key that nothing looks at
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from loadtests.shoppers.ledger import Ledger, Row
from loadtests.shoppers.shapes import Asked, Phase

WHOLE_LEVEL = "full"

QUANTILES = {"p50_ms": (0.5, 10), "p99_ms": (0.99, 100), "p999_ms": (0.999, 1000)}
"""Key → share, and the answers it takes: one over 1 − share, so that it is not simply the worst; ten for a median."""

LEAST_LATE = 20
"""Requests that left, before it is judged how late they did."""

IN_A_ROW = 2
"""Steps missed one after the other that make a breaking point. Judged: one alone may be a neighbour's."""


class ObjectivesError(ValueError):
    """See the module's docstring."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What is asked of one request name; None asks nothing."""

    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    full_share: float | None = None


@dataclass(frozen=True, slots=True)
class Objectives:
    """The file. *requests*: request name → what is asked of it; the rest as the comments of objectives.toml say."""

    requests: Mapping[str, Promise]
    available_share: float = 1.0
    refused_share: float = 0.0
    overload_p99_ms: float | None = None
    step_least_rate: float = 0.0
    soak_p99_growth: float | None = None
    late_p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """One objective of one phase: what was wanted, what was found, and whether that holds (None: too few to say)."""

    phase: str
    name: str
    wanted: str
    found: str
    holds: bool | None


_PLACES = {
    ("availability", "share"): "available_share",
    ("refused", "share"): "refused_share",
    ("overload", "p99_ms"): "overload_p99_ms",
    ("step", "least_rate"): "step_least_rate",
    ("soak", "p99_growth"): "soak_p99_growth",
    ("generator", "late_p99_ms"): "late_p99_ms",
}


def read_objectives(path: Path) -> Objectives:
    """
    The file at *path*.

    Raises:
        ObjectivesError: see the module. FileNotFoundError: nothing there.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ObjectivesError(f"{path} is no TOML: {error}") from error
    known = {one.name for one in fields(Promise)}
    requests = {}
    for name, asked in document.pop("requests", {}).items():
        if unknown := set(asked) - known:
            raise ObjectivesError(f"{path}: requests.{name} has {sorted(unknown)}; expected some of {sorted(known)}")
        requests[name] = Promise(
            **{key: _number(path, f"requests.{name}.{key}", value) for key, value in asked.items()}
        )
    found = {}
    for section, keys in document.items():
        for key, value in keys.items() if isinstance(keys, dict) else [("", keys)]:
            if (section, key) not in _PLACES:
                places = ", ".join(".".join(place) for place in _PLACES)
                raise ObjectivesError(f"{path}: nothing looks at {section}.{key}; expected requests.NAME.…, {places}")
            found[_PLACES[section, key]] = _number(path, f"{section}.{key}", value)
    return Objectives(requests, **found)


def _number(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ObjectivesError(f"{path}: {key} is {value!r}; expected a number of 0 or more")
    return float(value)


def judge_phase(objectives: Objectives, number: int, phase: Phase, ledger: Ledger) -> list[Claim]:
    """Every objective that applies to one phase."""
    rows = ledger.phase(number)
    if phase.asked is Asked.NOTHING:
        return []
    claims = list(_floor(objectives, phase, rows))
    late = ledger.late.get(number)
    if objectives.late_p99_ms is not None and late is not None and late.n >= LEAST_LATE:
        claims.append(_at_most(phase.name, "load: late p99", objectives.late_p99_ms, late.quantile(0.99)))
    if phase.asked is Asked.FLOOR:
        for name, row in rows.items():
            if objectives.overload_p99_ms is not None:
                claims.append(_quantile(phase.name, name, "p99_ms", objectives.overload_p99_ms, row))
        return claims
    n, refused = sum(row.n for row in rows.values()), sum(row.refused for row in rows.values())
    share = refused / n if n else 0.0
    claims.append(
        Claim(
            phase.name,
            "refused",
            f"≤ {objectives.refused_share:.1%}",
            f"{share:.2%} of {n}",
            share <= objectives.refused_share,
        )
    )
    for name, row in rows.items():
        promise = objectives.requests.get(name, Promise())
        for key in QUANTILES:
            if (most := getattr(promise, key)) is not None:
                claims.append(_quantile(phase.name, name, key, most, row))
        if promise.full_share is not None and (slates := row.levels.total()):
            full = row.levels[WHOLE_LEVEL] / slates
            found = ", ".join(f"{level} {n / slates:.1%}" for level, n in row.levels.most_common())
            wanted = f"≥ {promise.full_share:.1%}"
            claims.append(Claim(phase.name, f"{name}: full", wanted, found, full >= promise.full_share))
    return claims


def _floor(objectives: Objectives, phase: Phase, rows: Mapping[str, Row]) -> Iterator[Claim]:
    """That whoever was admitted was answered; a phase in which nobody asked for anything holds nothing."""
    admitted = sum(row.n_admitted for row in rows.values())
    failed: Counter[str] = sum((row.failed for row in rows.values()), Counter())
    wanted = f"≥ {objectives.available_share:.2%}"
    if not admitted:
        yield Claim(phase.name, "availability", wanted, "no answer at all", holds=False)
        return
    share = 1 - failed.total() / admitted
    why = "".join(f"; {n}× {what}" for what, n in failed.most_common(3))
    yield Claim(
        phase.name, "availability", wanted, f"{share:.3%} of {admitted}{why}", share >= objectives.available_share
    )


def _quantile(phase: str, name: str, key: str, most: float, row: Row) -> Claim:
    share, least = QUANTILES[key]
    label = f"{name}: {key.removesuffix('_ms').replace('p999', 'p99.9')}"
    if row.latency.n < least:
        return Claim(phase, label, f"≤ {most:g} ms", f"too few ({row.latency.n})", None)
    return _at_most(phase, label, most, row.latency.quantile(share))


def _at_most(phase: str, label: str, most: float, found: float) -> Claim:
    # A bucket is 2 % wide: what may be as little as the promise has kept it.
    return Claim(phase, label, f"≤ {most:g} ms", f"{found:.1f} ms", found <= most * 1.02)


def judge(objectives: Objectives, shape: str, plan: Sequence[Phase], ledger: Ledger) -> list[Claim]:
    """
    Everything that must hold of a whole run.

    Of a step shape that is availability in every step and a breaking point that lies high enough; the other
    objectives say where it lies (`breaking_point`).
    """
    claims = [claim for i, phase in enumerate(plan) for claim in judge_phase(objectives, i, phase, ledger)]
    if shape == "step":
        carried = carried_rate(objectives, plan, ledger)
        always = [claim for claim in claims if claim.name == "availability" and claim.found != "no answer at all"]
        wanted = f"≥ {objectives.step_least_rate:g} page views/s"
        found = f"{carried:.0f} page views/s"
        return [*always, Claim("all", "carried", wanted, found, carried >= objectives.step_least_rate)]
    if shape == "soak" and objectives.soak_p99_growth is not None:
        claims += _drift(objectives.soak_p99_growth, plan, ledger)
    return claims


def _drift(most: float, plan: Sequence[Phase], ledger: Ledger) -> Iterator[Claim]:
    by_name = {phase.name: number for number, phase in enumerate(plan)}
    first, last = ledger.phase(by_name["beginning"]), ledger.phase(by_name["end"])
    _, least = QUANTILES["p99_ms"]
    for name in sorted(first.keys() & last.keys()):
        if min(first[name].latency.n, last[name].latency.n) < least:
            continue
        growth = last[name].latency.quantile(0.99) / first[name].latency.quantile(0.99)
        yield Claim("end", f"{name}: p99 growth", f"≤ {most:g}×", f"{growth:.2f}×", growth <= most)


def missed(objectives: Objectives, number: int, phase: Phase, ledger: Ledger) -> list[Claim]:
    """The claims of one phase that do not hold."""
    return [claim for claim in judge_phase(objectives, number, phase, ledger) if claim.holds is False]


def breaking_point(objectives: Objectives, plan: Sequence[Phase], ledger: Ledger, until: int) -> int | None:
    """Number of the first of IN_A_ROW phases before *until* that all missed something; None while it holds."""
    bad = [
        phase.asked is Asked.WHOLE and bool(missed(objectives, number, phase, ledger))
        for number, phase in enumerate(plan[:until])
    ]
    return next((i for i in range(len(bad) - IN_A_ROW + 1) if all(bad[i : i + IN_A_ROW])), None)


def carried_rate(objectives: Objectives, plan: Sequence[Phase], ledger: Ledger) -> float:
    """
    Page views a second of the last step that held before the breaking point, 0 when none did.

    A run that ended before it broke carried its last step, unless that one missed something.
    """
    played = 1 + max((number for number, _ in ledger.rows), default=-1)
    broke_at = breaking_point(objectives, plan, ledger, played)
    before = plan[: played if broke_at is None else broke_at]
    held = [
        phase.rate
        for number, phase in enumerate(before)
        if phase.asked is Asked.WHOLE and ledger.phase(number) and not missed(objectives, number, phase, ledger)
    ]
    return max(held, default=0.0)


def exit_code(claims: Sequence[Claim]) -> int:
    """0 when something was judged and all of it holds, else 1."""
    judged = [claim for claim in claims if claim.holds is not None]
    return 0 if judged and all(claim.holds for claim in judged) else 1


def table(claims: Sequence[Claim]) -> str:
    """The claims as they are printed, what was missed marked."""
    marks = {True: "holds", False: "MISSED", None: "–"}
    rows = [("phase", "objective", "wanted", "found", "")]
    rows += [(claim.phase, claim.name, claim.wanted, claim.found, marks[claim.holds]) for claim in claims]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join((*(row[i].ljust(widths[i]) for i in range(4)), row[4])).rstrip() for row in rows)


def figures(plan: Sequence[Phase], ledger: Ledger) -> str:
    """What was seen, phase by phase and name by name, for whoever reads the end of a run."""
    rows = [("phase", "views/s", "request", "n", "refused", "failed", "p50", "p99", "p99.9", "full")]
    for number, phase in enumerate(plan):
        for name, row in ledger.phase(number).items():
            slates = row.levels.total()
            full = f"{row.levels[WHOLE_LEVEL] / slates:.1%}" if slates else "–"
            quantiles = (f"{row.latency.quantile(share):.1f}" for share, _ in QUANTILES.values())
            counts = (str(row.n), str(row.refused), str(row.failed.total()))
            rows.append((phase.name, f"{phase.rate:.0f}", name, *counts, *quantiles, full))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
