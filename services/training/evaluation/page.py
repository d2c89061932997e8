"""
The report as one page that explains itself: `page.html` beside `evaluation.json`.

The rule: everything on it comes from the report as it was written, so that it can be made again from an old one:
`python -m services.training.evaluation.page evaluation.json`. Style is in page.css, plots are in charts.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from services.training.evaluation import charts, tables
from services.training.evaluation.charts import Mark, Point
from services.training.evaluation.tables import TITLES, Table, label

PAGE_FILE = "page.html"
_STYLE = Path(__file__).with_name("page.css")

_KINDS = {
    "baseline": "simple method",
    "source": "generator",
    "fused": "fusion",
    "other": "other stage",
    "slate": "slate, as served",
}

_MAIN = "ndcg_at_10"


def write(report: Mapping[str, Any], path: Path) -> Path:
    """Write the page of *report* to *path*."""
    path.write_text(page(report), encoding="utf-8")
    return path


def page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    tasks = report["tasks"]
    title = f"What the recommendations are worth: {report.get('source') or 'a shop'}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_about(report))}</p>',
        "<nav>" + "".join(f'<a href="#{t}">{escape(TITLES.get(t, t))}</a>' for t in tasks),
        '<a href="#costs">Time and memory</a><a href="#method">How this was made</a></nav>',
        '<div class="tiles">' + "".join(_tile(name, task) for name, task in tasks.items()) + "</div>",
        *(_section(name, task) for name, task in tasks.items()),
        _costs(report),
        _method(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def kind(method: str) -> str:
    """Which of the kinds of methods this is: its colour."""
    head = method.partition(":")[0]
    if method.startswith(tables.REFERENCE):
        return "slate"
    return head if head in ("source", "fused") else "other" if head != method else "baseline"


def _about(report: Mapping[str, Any]) -> str:
    data, past = report["data"], report["past"]
    seeds = ", ".join(map(str, report["seeds"]))
    return (
        f"{report['split'].capitalize()} window, {report['from'][:10]} to {report['until'][:10]}"
        + (f", as if the shop had opened with {report['young']} events" if report["young"] else "")
        + ". "
        f"Known before it: {past['events']:,} events of {past['shoppers']:,} shoppers on {past['items_with_events']:,} "
        f"items; in the whole data {data['events']:,} events and {data['items']:,} items. "
        f"Sources {', '.join(label('source:' + s) for s in report['sources'])}; seed {seeds}."
    )


def _tile(name: str, task: Mapping[str, Any]) -> str:
    methods = task["methods"]
    slate = methods[tables.REFERENCE]
    simple = {m: f for m, f in methods.items() if kind(m) == "baseline"}
    best = max(simple, key=lambda m: simple[m][_MAIN], default=None)
    said = (
        f"{label(best)} {simple[best][_MAIN]:.3f}, {tables.gain(simple[best])}" if best else "nothing to compare with"
    )
    return (
        f'<div class="tile"><span>{escape(TITLES.get(name, name))}, ndcg@10 of the slate</span>'
        f"<b>{slate[_MAIN]:.3f}</b><span>best simple method: {escape(said)}</span></div>"
    )


def _section(name: str, task: Mapping[str, Any]) -> str:
    methods = task["methods"]
    present = [k for k in _KINDS if any(kind(m) == k for m in methods)]
    key = "".join(f'<span class="mark {k}"><i></i>{escape(_KINDS[k])}</span>' for k in present)
    marks = [_mark(method, figures) for method, figures in methods.items()]
    points = [Point(label(m), kind(m), f["coverage_at_10"], f[_MAIN]) for m, f in methods.items()]
    parts = [
        f'<h2 id="{name}">{escape(TITLES.get(name, name))}</h2>',
        f'<p class="soft">{escape(task["objective"][:1].upper() + task["objective"][1:])}. '
        f"{task['queries']:,} queries, {task['truth_items']:.1f} wanted items each.</p>",
        '<div class="plots"><figure><figcaption>ndcg@10, mean and 95 % bootstrap interval over queries</figcaption>',
        charts.intervals(marks, "ndcg@10"),
        f'<div class="key">{key}</div></figure><figure><figcaption>Accuracy against coverage: up and to the right is '
        "better</figcaption>",
        charts.scatter(points, "coverage@10", "ndcg@10"),
        "</figure></div>",
        _table(tables.of_task(name, task)),
    ]
    if task["slices"]:
        parts += ["<h3>By slice: ndcg@10, with stars where it is better than popularity</h3>"]
        parts += [_table(tables.of_slices(name, task), wraps=True)]
    pairs = task["pairs"]
    parts += [
        "<details><summary>Every pair of methods</summary><figure><figcaption>Row minus column in ndcg@10; a ring "
        "where a randomisation test says it is not chance (p &lt; .05 after Holm's correction)</figcaption>",
        charts.matrix([label(m) for m in pairs["methods"]], pairs["differences"], pairs["p"]),
        "</figure></details>",
    ]
    return "".join(parts)


def _mark(method: str, figures: Mapping[str, Any]) -> Mark:
    low, high = figures["interval"][_MAIN]
    seeds = tuple(figures.get("by_seed", {}).get(_MAIN, ()))
    return Mark(label(method), kind(method), figures[_MAIN], low, high, _note(figures), seeds)


def _note(figures: Mapping[str, Any]) -> str:
    gain = tables.gain(figures)
    return f"; the slate gains {gain}" if gain else ""


def _table(table: Table, wraps: bool = False, has_best: bool = True) -> str:
    """A table whose best figure of each column is underlined; of columns where less is better, none is."""
    best: dict[int, str] = {}
    for column in range(1, len(table.columns) if has_best else 0):
        if table.columns[column] in ("Gini", "slate gains ndcg@10 (95 %)"):
            continue
        best[column] = max((row[column] for row in table.rows), key=_number, default="")
    head = "".join(f"<th{' class=wrap' if wraps and i else ''}>{escape(c)}</th>" for i, c in enumerate(table.columns))
    rows = []
    for row in table.rows:
        cells = "".join(
            f"<td{' class=best' if best.get(i) == cell and _number(cell) > 0 else ''}>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        rows.append(f"<tr{' class=slate' if row[0] == tables.REFERENCE else ''}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _number(cell: str) -> float:
    try:
        return float(cell.rstrip(" *"))
    except ValueError:
        return float("-inf")


def _costs(report: Mapping[str, Any]) -> str:
    rows = [(c["stage"], c["seconds"], f"{c['peak_mb']:,.0f} MB") for c in report["costs"]]
    total, peak = sum(r[1] for r in rows), max((c["peak_mb"] for c in report["costs"]), default=0.0)
    return (
        '<h2 id="costs">Time and memory</h2>'
        f'<p class="soft">{total:,.0f} s in all, at most {peak:,.0f} MB resident, children included. Memory is '
        "the peak while a stage ran, with everything that was loaded already.</p>"
        f"<figure>{charts.bars(rows, 's')}</figure>"
    )


def _method(report: Mapping[str, Any]) -> str:
    lines = [f"<li>{escape(line)}</li>" for line in tables.left_out(report)]
    settings = [
        (method, task, ", ".join(f"{k} {v}" for k, v in one["settings"].items()), str(one["tried"]))
        for method, by_task in report["settings"].items()
        for task, one in by_task.items()
        if one["settings"]
    ]
    tuned = Table("", ("baseline", "tuned for", "settings", "tried"), tuple(settings))
    return "".join(
        [
            '<h2 id="method">How this was made</h2>',
            "<p>Global temporal split, the whole catalogue is ranked, no sampled negatives. Every method was given a "
            "data directory of the past and nothing else; baselines were tuned on the four weeks before the judged "
            "window. Generators, fusions and slate are what <code>tutti recommend</code> answered: the services and "
            "the pipeline that serve the shop. Intervals are bootstraps over queries, tests are paired randomisation "
            "tests; * p &lt; .05, ** p &lt; .01, *** p &lt; .001 after Holm's correction over all pairs.</p>",
            f"<h3>Left out</h3><ul>{''.join(lines)}</ul>" if lines else "",
            "<h3>Settings of the baselines</h3>" + _table(tuned, has_best=False) if settings else "",
            "<h3>Models, as training saw them</h3>" + _table(tables.of_models(report), has_best=False)
            if report["trained"].get("versions")
            else "",
            _quantising(report),
        ]
    )


def _quantising(report: Mapping[str, Any]) -> str:
    if not tables.of_quantised(report["trained"]):
        return ""
    table = tables.of_quantising(report["trained"]["metrics"])
    return f"<h3>{escape(table.title)}</h3>{_table(table, has_best=False)}"


def main(arguments: Sequence[str]) -> int:
    """Write page.html beside each report named in *arguments*."""
    if not arguments:
        sys.stderr.write("usage: python -m services.training.evaluation.page evaluation.json [evaluation.json …]\n")
        return 2
    for name in arguments:
        path = Path(name)
        sys.stdout.write(f"{write(json.loads(path.read_text(encoding='utf-8')), path.with_name(PAGE_FILE))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
