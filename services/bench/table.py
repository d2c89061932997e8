"""
What was found, as text: one table, the comparison, the knee, and how to read them.

The rule: a figure that is not of what it is called carries a mark, and the mark is explained under the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.bench.beside import Cost, cheaper
from services.bench.figures import Comparison, Row
from services.bench.knee import BELOW
from services.bench.run import Results

_NOT_ONE_WORK = "*"
_GAP = "  "


def text(results: Results) -> str:
    """The whole report."""
    parts = [_machine(results), table(results.rows)]
    if marks := _marks(results):
        parts.append("\n".join(marks))
    if results.costs:
        parts.append("bare arithmetic, CPU ms a request:\n" + "\n".join(map(_of_costs, results.costs.items())))
    if results.not_compared is not None:
        parts.append(f"coalescing on and off: not compared, {results.not_compared}")
    if results.comparisons:
        parts.append(
            "coalescing on over off, patient, alternating rounds:\n" + "\n".join(map(_compared, results.comparisons))
        )
    if results.steps:
        parts.append(_knee(results))
    return "\n\n".join(parts)


def table(rows: Sequence[Row]) -> str:
    """The rows; of each process of the system, of all, of the bare arithmetic and of the load CPU ms a request."""
    names = list(dict.fromkeys(name for one in rows for name in one.cpu_ms))
    head = ["kind", "c", "req/s", "/core", "p50 ms", "p99", "p99.9", "full", "cached"]
    head += [*map(short, names), "all", "bare", "ratio", "(load)"]
    lines = [head]
    for one in rows:
        mark = "" if one.is_one_work else _NOT_ONE_WORK
        line = [one.kind, str(one.concurrency or "open"), f"{one.per_s:,.0f}", _number(one.per_core_s, 0)]
        line += [_number(one.latency_ms[name], 1) for name in ("p50", "p99", "p99.9")]
        line += [f"{one.full_share:.1%}{mark}", f"{one.remembered_share:.0%}"]
        line += [_number(one.cpu_ms.get(name), 2) for name in names]
        line += [_number(one.total_ms, 2), _number(one.bare_ms, 2), _number(one.ratio, 2) + (mark if one.ratio else "")]
        lines.append([*line, _number(one.client_ms, 2)])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left and the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        _GAP.join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def short(name: str) -> str:
    """A process's name as wide as a column may be: initials of what has several words."""
    words = name.split("_")
    return name if len(words) == 1 else "".join(word[:1] for word in words)


def _machine(results: Results) -> str:
    machine, shop = results.machine, results.shop
    return (
        f"{machine['cores']} cores, {machine['processor']}, python {machine['python']}, load "
        f"{machine['load_average'][0]} before and {machine.get('load_average_after', ['?'])[0]} after; "
        f"{shop.get('items', 0):,} items, {shop.get('shoppers_asked_for', 0):,} shoppers"
    )


def _marks(results: Results) -> list[str]:
    rows = results.rows
    lines = [
        "under the processes' names: CPU ms a request, all: their sum; /core: requests a second of a core that does "
        "nothing else; (load): CPU of the load itself, which is in no other figure"
    ]
    names = dict.fromkeys(name for one in rows for name in one.cpu_ms if short(name) != name)
    if names:
        lines.append(", ".join(f"{short(name)}: {name}" for name in names))
    for one in rows:
        if not one.is_one_work:
            found = ", ".join(f"{n} {what}" for what, n in sorted({**one.levels, **one.failures}.items()))
            lines.append(
                f"{_NOT_ONE_WORK} {one.kind} at {one.concurrency}: {found}: not the work the bare arithmetic does"
            )
    if any(one.kind == "page" for one in rows):
        how = "one request" if results.pages_are_one_request else "three requests sent together"
        lines.append(f"page: three shelves in {how}, timed until the last is there")
    if results.same_work:
        shares = ", ".join(f"{kind} {share:.0%} of {n} slates" for kind, (share, n) in results.same_work.items())
        lines.append(f"items that edge and bare arithmetic agree on: {shares}")
    return lines


def _of_costs(entry: tuple[str, list[Cost]]) -> str:
    kind, costs = entry
    best = cheaper(costs)
    said = ", ".join(f"{c.ms:.3f} in batches of {c.batch} ({c.low_ms:.3f} to {c.high_ms:.3f})" for c in costs)
    return f"  {kind}: {said}; the ratio is to batches of {best.batch}"


def _compared(one: Comparison) -> str:
    return (
        f"  c = {one.concurrency}: throughput {one.throughput:.2f} × ({one.on.full_per_s:,.0f} and "
        f"{one.off.full_per_s:,.0f} full/s), "
        f"CPU {one.cpu:.2f} × ({one.on.total_ms:.2f} and {one.off.total_ms:.2f} ms, {_number(one.on.ratio, 2)} and "
        f"{_number(one.off.ratio, 2)} × the bare arithmetic), "
        f"p50 {one.p50:.2f} × ({one.on.latency_ms['p50']:.1f} and {one.off.latency_ms['p50']:.1f} ms), "
        f"full {one.on.full_share:.1%} and {one.off.full_share:.1%}"
    )


def _knee(results: Results) -> str:
    steps = ", ".join(f"{s.rate:.0f} → {s.full / max(s.sent, 1):.1%}" for s in results.steps)
    lines = [f"open loop, requests/s sent → came back full: {steps}"]
    below = results.below_knee
    if results.knee_per_s is None or below is None:
        lines.append("knee: below the lowest rate tried")
    else:
        waits = ", ".join(f"{name} {_number(ms, 1)} ms" for name, ms in below.latency_ms.items())
        lines.append(
            f"knee: {results.knee_per_s:.0f} requests/s; at {BELOW:.0%} of it, from when each was due: {waits}, "
            f"full {below.full_share:.1%}"
        )
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
