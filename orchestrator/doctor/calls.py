"""
How often each dependency was called so far, from the orchestrators' own counters: what a fault must not multiply.

Counted and not guessed from bytes: what one call sends depends on how long the shopper's history is.
"""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass

from orchestrator.doctor.system import System

WITHIN_S = 2.0
"""Derived: twenty times what any answer may take; an orchestrator that is slower is the fault of this drill."""

LINE = re.compile(rb'^tutti_attempts_total\{dependency="([^"]+)",kind="([^"]+)",[^}]*\} ([0-9.e+]+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls to one dependency: *first* attempts, and the retries and hedges that came on top."""

    first: int = 0
    extra: int = 0

    def __add__(self, other: Calls) -> Calls:
        return Calls(self.first + other.first, self.extra + other.extra)

    def __sub__(self, other: Calls) -> Calls:
        return Calls(self.first - other.first, self.extra - other.extra)


def calls_made(system: System) -> dict[str, Calls]:
    """Dependency → attempts of all orchestrators since they started; {} when one of them does not tell."""
    made: dict[str, Calls] = {}
    for process in system.orchestrators():
        try:
            with urllib.request.urlopen(f"http://{process.address}/metrics", timeout=WITHIN_S) as answer:
                page = answer.read()
        except OSError:
            return {}
        for name, kind, count in LINE.findall(page):
            n = int(float(count))
            made[name.decode()] = made.get(name.decode(), Calls()) + (Calls(n) if kind == b"first" else Calls(0, n))
    return made
