"""
The report as tables: cells of text, for the console, for Markdown and for the page alike.

The rule: a table is made from the report as it was written, so every rendering says the same and can be made again
without evaluating: `python -m services.training.evaluation.tables DIR/evaluation/test/evaluation.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REFERENCE = "slate"
RERANKER = "reranking"

COLUMNS = {
    "recall_at_20": "recall@20",
    "ndcg_at_10": "ndcg@10",
    "mrr_at_10": "mrr@10",
    "hit_at_10": "hit@10",
    "coverage_at_10": "coverage@10",
    "novelty_at_10": "novelty, bits",
    "gini_at_10": "Gini",
    "categories_at_10": "categories",
}

TITLES = {
    "discovery": "Discovery (home)",
    "rebuy": "Re-buy (home)",
    "newcomers": "New shoppers (home)",
    "item": "An item's page",
    "cart": "The basket",
    "category": "A category's page",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A title, column names, and rows of as many cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(report: Mapping[str, Any]) -> list[Table]:
    """One table a task, its slices behind it, and the costs last."""
    found = []
    for name, task in report["tasks"].items():
        found.append(of_task(name, task))
        found += [of_slices(name, task)] if task["slices"] else []
    trained = report["trained"]
    found += [of_models(report)] if trained.get("versions") else []
    found += [of_quantising(trained["metrics"])] if of_quantised(trained) else []
    return [*found, of_costs(report)]


def main_tables(report: Mapping[str, Any]) -> list[Table]:
    """One table a task: what fits a terminal."""
    return [of_task(name, task) for name, task in report["tasks"].items()]


def of_task(name: str, task: Mapping[str, Any]) -> Table:
    """Every method's figures, and what the slate gains on it."""
    shown = [c for c in COLUMNS if any(c in m for m in task["methods"].values())]
    rows = [
        (label(method), *(_cell(figures.get(column), column) for column in shown), gain(figures))
        for method, figures in task["methods"].items()
    ]
    title = f"{TITLES.get(name, name)}: {task['queries']:,} queries"
    return Table(title, ("method", *(COLUMNS[c] for c in shown), "slate gains ndcg@10 (95 %)"), tuple(rows))


def of_slices(name: str, task: Mapping[str, Any]) -> Table:
    """ndcg@10 of every method on every slice, with stars where it is better than popularity there."""
    slices = task["slices"]
    rows = [(label(m), *(_on_slice(one["methods"][m]) for one in slices.values())) for m in task["methods"]]
    heads = tuple(f"{slice_} ({one['queries']:,})" for slice_, one in slices.items())
    title = f"{TITLES.get(name, name)}, ndcg@10 by slice (* better than popularity)"
    return Table(title, ("method", *heads), tuple(rows))


def of_models(report: Mapping[str, Any]) -> Table:
    """What every trained model said of itself; figures of the first seed's."""
    trained = report["trained"]
    rows = [
        (name, version, ", ".join(f"{k} {_said(v)}" for k, v in (trained["metrics"] or {}).get(name, {}).items()))
        for name, version in trained["versions"].items()
    ]
    return Table("Models, as training saw them", ("model", "version", "figures"), tuple(rows))


def of_quantised(trained: Mapping[str, Any]) -> bool:
    """Whether training compared the re-ranker's network with the same in int8."""
    return "ndcg_at_10_int8" in ((trained.get("metrics") or {}).get(RERANKER) or {})


def of_quantising(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    """The re-ranker with its network as it was trained and in int8, on lists that nobody learnt from; first seed."""
    own = metrics[RERANKER]
    kinds = (("float32", own["ndcg_at_10_float32"], 1.0), ("int8", own["ndcg_at_10_int8"], own["time_share_of_int8"]))
    serves = "int8" if own["serves_int8"] else "float32"
    rows = [(kind, f"{ndcg:.4f}", f"{share:.2f}", "yes" * (kind == serves)) for kind, ndcg, share in kinds]
    return Table("Re-ranker's network in eight bits", ("weights", "ndcg@10", "time", "serves"), tuple(rows))


def of_costs(report: Mapping[str, Any]) -> Table:
    """Seconds and peak memory of every stage."""
    rows = [(c["stage"], f"{c['seconds']:.1f}", f"{c['peak_mb']:,.0f}") for c in report["costs"]]
    total = sum(c["seconds"] for c in report["costs"])
    peak = max((c["peak_mb"] for c in report["costs"]), default=0.0)
    return Table("Time and memory", ("stage", "seconds", "peak MB"), (*rows, ("all", f"{total:.1f}", f"{peak:,.0f}")))


def gain(figures: Mapping[str, Any]) -> str:
    """What the slate gains on a method, in the words of a table; empty for the slate itself."""
    found = figures.get(f"{REFERENCE}_gains")
    if found is None:
        return ""
    one = found["ndcg_at_10"]
    mean, low, high = (signed(one[name]) for name in ("mean", "low", "high"))
    return f"{mean} ({low} … {high}){stars(one['p'])}"


def signed(value: float) -> str:
    """A difference with its sign and three digits; what rounds to nothing is +0.000."""
    return f"{round(value, 3) + 0.0:+.3f}"


def stars(p: float) -> str:
    """Asterisks for p < .05, .01 and .001, as papers print them."""
    return " " * (p < 0.05) + "*" * sum(p < limit for limit in (0.05, 0.01, 0.001))


def label(method: str) -> str:
    """A method's name in words: `source:content_based` is "content based"."""
    kind, _, name = method.partition(":")
    return {"source": name, "fused": f"fused by {name}"}.get(kind, method).replace("_", " ") if name else method


def markdown(table: Table) -> str:
    """A Markdown table under its title in bold."""
    rule = "|---|" + "---|" * (len(table.columns) - 1)
    lines = ["| " + " | ".join(row) + " |" for row in (table.columns, *table.rows)]
    return "\n".join([f"**{table.title}**", "", lines[0], rule, *lines[1:]])


def report_markdown(report: Mapping[str, Any]) -> str:
    """All tables, and what was left out, with its reason."""
    parts = [markdown(table) for table in tables(report)]
    if lines := left_out(report):
        parts.append("\n".join(["Left out:", *(f"- {line}" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def left_out(report: Mapping[str, Any]) -> list[str]:
    """Tasks and methods that are not in the tables, each with its reason."""
    reasons = {**report["left_out"]["tasks"], **report["left_out"]["methods"]}
    return [f"{name}: {reason}" for name, reason in reasons.items()]


def _on_slice(figures: Mapping[str, Any]) -> str:
    is_better = figures.get("gain_on_popularity", 0.0) > 0
    return f"{figures['ndcg_at_10']:.3f}" + (stars(figures["gain_p"]) if is_better else "")


def _said(value: object) -> str:
    """A model's own figure: what a number is rounded to, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _cell(value: float | None, column: str) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if column in ("novelty_at_10", "categories_at_10") else f"{value:.3f}"


def main(arguments: Sequence[str]) -> int:
    """Print the tables of the reports named in *arguments* as Markdown."""
    if not arguments:
        sys.stderr.write("usage: python -m services.training.evaluation.tables evaluation.json [evaluation.json …]\n")
        return 2
    for name in arguments:
        sys.stdout.write(report_markdown(json.loads(Path(name).read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
