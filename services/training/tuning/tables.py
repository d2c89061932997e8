"""
What was tried and kept, as cells of text, for the console and for Markdown alike.

The rule: made from the report as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.training.evaluation.tables import Table, signed
from services.training.tuning.space import Space

COLUMNS = ("stage", "trials (cut short)", "defaults → best, choosing", "gain, confirming (95 %)", "kept")


def of_stages(report: Mapping[str, Any]) -> Table:
    """One row a stage, and one for all of it."""
    rows = [_row(stage) for stage in report["stages"]]
    if report["whole"]:
        rows.append(("all of it, re-ranked", "", "", _gain(report["whole"]), _yes(report["whole"])))
    title = f"half ndcg@10, half recall@20, on what came before {report['until'][:10]}"
    return Table(title, COLUMNS, tuple(rows))


def of_tasks(report: Mapping[str, Any]) -> Table:
    """Figures on the confirming window: the defaults and what was found, by stage and task."""
    known = {stage["stage"]: stage["confirmed"] for stage in report["stages"]}
    known["all of it, re-ranked"] = (report["whole"] or {}).get("confirmed", {})
    rows = [
        (name, task, *(_step(found["default"][task][metric], after[metric]) for metric in after))
        for name, found in known.items()
        if found
        for task, after in found["found"].items()
    ]
    return Table("On the confirming window, defaults → found", ("stage", "task", "ndcg@10", "recall@20"), tuple(rows))


def of_space(spaces: Mapping[str, Space]) -> Table:
    """What may be moved, how far and why."""
    rows = [
        (stage, axis.name, str(axis.default), axis.range, axis.why) for stage, axes in spaces.items() for axis in axes
    ]
    return Table("What may be moved", ("stage", "parameter", "default", "range", "why"), tuple(rows))


def reasons(report: Mapping[str, Any]) -> list[str]:
    """A line a stage: why it was kept or not, and what moved where it was."""
    lines = []
    for stage in report["stages"]:
        moved = ", ".join(f"{name} {_said(a)} → {_said(b)}" for name, (a, b) in stage["moved"].items())
        lines.append(f"{stage['stage']}: {stage['verdict']['why']}")
        if stage["verdict"]["is_kept"]:
            lines.append(f"  {moved}")
    if report["whole"]:
        lines.append(f"all of it, re-ranked: {report['whole']['why']}")
    return lines


def _row(stage: Mapping[str, Any]) -> tuple[str, ...]:
    tried = f"{stage['trials']} ({stage['cut_short']})"
    reached = _step(stage["default"], stage["best"])
    return stage["stage"], tried, reached, _gain(stage["verdict"]), _yes(stage["verdict"])


def _gain(verdict: Mapping[str, Any]) -> str:
    if not verdict.get("shoppers"):
        return "–"
    low, high = verdict["interval"]
    return f"{signed(verdict['gain'])} ({signed(low)} … {signed(high)})"


def _yes(verdict: Mapping[str, Any]) -> str:
    return "–" if "is_kept" not in verdict else "yes" if verdict["is_kept"] else "no"


def _step(before: float | None, after: float | None) -> str:
    return "–" if before is None or after is None else f"{before:.4f} → {after:.4f}"


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
