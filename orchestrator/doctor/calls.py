"""
How often each dependency was called so far, from the orchestrators' own counters: what a fault must not multiply.

Counted and not guessed from bytes: what one call sends depends on how long the shopper's history is.
"""

from __future__ import annotations

import re
import urllib.request

from orchestrator.doctor.system import System

WITHIN_S = 2.0
"""Derived: twenty times what any answer may take; an orchestrator that is slower is the fault of this drill."""

LINE = re.compile(rb'^tutti_attempts_total\{dependency="([^"]+)",[^}]*\} ([0-9.e+]+)', re.MULTILINE)


def calls_made(system: System) -> dict[str, int]:
    """Dependency → attempts of all orchestrators since they started; {} when one of them does not tell."""
    made: dict[str, int] = {}
    for process in system.orchestrators():
        try:
            with urllib.request.urlopen(f"http://{process.address}/metrics", timeout=WITHIN_S) as answer:
                page = answer.read()
        except OSError:
            return {}
        for name, count in LINE.findall(page):
            made[name.decode()] = made.get(name.decode(), 0) + int(float(count))
    return made
