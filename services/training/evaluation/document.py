"""
Puts the tables of reports into a document, between markers, so that nobody copies a figure by hand.

    <!-- begin NAME figures -->  …  <!-- end NAME figures -->      how it was made, and one table a task
    <!-- begin NAME slices -->  …  <!-- end NAME slices -->        the slices of each task, and time and memory

The rule: what is between markers is replaced whole, what is outside is never touched.
`python -m services.training.evaluation.document docs/quality.md NAME=evaluation.json [NAME=…]`
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.training.evaluation import tables

Block = Callable[[Mapping[str, Any]], str]


def filled(text: str, name: str, report: Mapping[str, Any]) -> str:
    """
    *text* with every block of *name* made anew from *report*.

    Raises:
        ValueError: the document has no such block, or one that does not end.
    """
    found = False
    for kind, make in BLOCKS.items():
        begin, end = f"<!-- begin {name} {kind} -->", f"<!-- end {name} {kind} -->"
        if begin not in text:
            continue
        if text.find(end) < text.find(begin):
            raise ValueError(f"{begin!r} without {end!r} behind it")
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n\n{make(report).strip()}\n\n{end}{rest.partition(end)[2]}"
        found = True
    if not found:
        known = sorted(set(re.findall(r"<!-- begin (\S+) \w+ -->", text)))
        raise ValueError(f"no block of {name!r}; the document has blocks of {', '.join(known) or 'nothing'}")
    return text


def figures(report: Mapping[str, Any]) -> str:
    """How the figures were made, and one table a task."""
    parts = [made(report), *(tables.markdown(table) for table in tables.main_tables(report))]
    if lines := tables.left_out(report):
        parts.append("\n".join(["Left out:", "", *(f"- {line}" for line in lines)]))
    return "\n\n".join(parts)


def slices(report: Mapping[str, Any]) -> str:
    """The slices of each task, and time and memory."""
    parts = [tables.of_slices(name, task) for name, task in report["tasks"].items() if task["slices"]]
    return "\n\n".join(tables.markdown(table) for table in [*parts, tables.of_costs(report)])


def made(report: Mapping[str, Any]) -> str:
    """One line: window, seeds, data, time."""
    seconds = sum(cost["seconds"] for cost in report["costs"])
    peak = max((cost["peak_mb"] for cost in report["costs"]), default=0.0)
    seeds = ", ".join(map(str, report["seeds"]))
    return (
        f"{report['split'].capitalize()} window {report['from'][:10]} to {report['until'][:10]}, seeds {seeds}; "
        f"{report['past']['events']:,} events of {report['past']['shoppers']:,} shoppers on "
        f"{report['past']['items_with_events']:,} items before it. "
        f"Made in {seconds:,.0f} s with {peak / 1000:.1f} GB.\n"
        "Brackets are 95 % bootstrap intervals of the paired difference; * p < .05, ** p < .01, *** p < .001 in a "
        "randomisation test, corrected for all pairs (Holm)."
    )


BLOCKS: dict[str, Block] = {"figures": figures, "slices": slices}


def main(arguments: Sequence[str]) -> int:
    """Fill the document named first from the reports NAME=PATH named after it."""
    pairs = [argument.partition("=") for argument in arguments[1:]]
    if not pairs or not all(name and path for name, _, path in pairs):
        sys.stderr.write("usage: python -m services.training.evaluation.document FILE NAME=evaluation.json […]\n")
        return 2
    document = Path(arguments[0])
    text = document.read_text(encoding="utf-8")
    try:
        for name, _, path in pairs:
            text = filled(text, name, json.loads(Path(path).read_text(encoding="utf-8")))
    except ValueError as wrong:
        sys.stderr.write(f"{document}: {wrong}\n")
        return 1
    document.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
