"""
What a doctor tells: a table for people, JSON for machines, Markdown for docs/results. Pure but for the table's console.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from orchestrator.doctor.checker import Figures, Verdict
from orchestrator.doctor.drill import Outcome

LEVELS = ("full", "partial", "stale", "popular")

COLUMNS = (
    "row",
    "fault",
    "detect",
    "heal",
    "load",
    "p50",
    "p99",
    "p99.9",
    "full / partial / stale / popular",
    "verdict",
)


def row_of(outcome: Outcome) -> tuple[str, ...]:
    """One line, as in `COLUMNS`."""
    verdict, during = outcome.verdict, outcome.verdict.during
    return (
        str(outcome.fault.row),
        outcome.fault.name,
        _seconds(verdict.detect_s),
        _seconds(verdict.heal_s),
        "–" if verdict.extra_load is None else f"{verdict.extra_load:.0%}",
        *(_ms(value) for value in (during.p50_ms, during.p99_ms, during.p999_ms)),
        shares(during),
        "holds" if verdict.holds else "; ".join(f"{c.name}: {c.found}" for c in verdict.claims if not c.holds),
    )


def shares(figures: Figures) -> str:
    """Share of answers by level, and of those shed."""
    n = max(1, figures.n)
    levels = " / ".join(f"{figures.levels.get(level, 0) / n:.0%}" for level in LEVELS)
    return levels + (f", {figures.n_shed / n:.0%} shed" if figures.n_shed else "")


def skipped(row: int, name: str, why: str) -> tuple[str, ...]:
    """The line of a fault that was not made, or not to its end."""
    return (str(row), name, *["–"] * (len(COLUMNS) - 3), why)


def table(rows: Sequence[tuple[str, ...]]) -> Table:
    """For the terminal."""
    made = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        right = name in ("row", "detect", "heal", "load", "p50", "p99", "p99.9")
        made.add_column(name, justify="right" if right else "left", no_wrap=right or name == "fault")
    for row in rows:
        made.add_row(*row, style="" if row[-1] == "holds" else "yellow" if row[-1].startswith("skipped") else "red")
    return made


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """The same for a page."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def document(outcome: Outcome) -> dict[str, Any]:
    """The whole verdict, for machines; NaN becomes null."""
    verdict: Verdict = outcome.verdict
    body = {
        "fault": outcome.fault.name,
        "row": outcome.fault.row,
        "says": outcome.fault.says,
        "holds": verdict.holds,
        "detect_s": verdict.detect_s,
        "heal_s": verdict.heal_s,
        "extra_load": verdict.extra_load,
        **{phase: asdict(getattr(verdict, phase)) for phase in ("before", "during", "after")},
        "claims": [asdict(claim) for claim in verdict.claims],
    }
    cleaned: dict[str, Any] = _finite(body)
    return cleaned


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _ms(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}"
