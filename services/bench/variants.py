"""
The settings orchestrators are measured with: the shop's own, and what a kind of request needs to be measured at all.

Written as environment, TUTTI_SECTION__KEY, over the settings that everybody shares. The rule: one difference a variant,
so that two of them can be compared.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DEFAULTS = Path(__file__).resolve().parents[2] / "orchestrator" / "defaults.toml"

UNREMEMBERED = {"TUTTI_SLATE_CACHE__ENABLED": "false"}
"""Every slate is computed, and nothing else changes: admission, guard and ladder are as served."""

PATIENT = {
    **UNREMEMBERED,
    "TUTTI_ADMISSION__ENABLED": "false",
    "TUTTI_GUARD__ENABLED": "false",
    "TUTTI_BUDGET__TOTAL_MS": "2000",
    "TUTTI_STAGES__USER__CAP_MS": "2000",
    "TUTTI_STAGES__RETRIEVE__CAP_MS": "2000",
    "TUTTI_STAGES__RERANK__CAP_MS": "2000",
}
"""
Nobody is turned away and nothing is given up, for comparing two systems at a load that is too much for one of them: it
would answer popular slates, which cost nothing, and look fast. The guard is off, too: its limits begin at 20 calls and
learn 8 a second, so that within seconds of 64 in flight two thirds of the slates lost a contribution (measured).
"""

AS_SERVED, COMPUTED, JOINED, SINGLE = "as_served", "computed", "joined", "single"

VARIANT_OF: Mapping[str, str] = {"cached": AS_SERVED, "uncached": COMPUTED, "page": COMPUTED, "ranking": COMPUTED}
"""Kind → the variant it is measured on."""


@dataclass(frozen=True, slots=True)
class Variant:
    """An orchestrator with settings of its own, at a port of its own."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)


def variants(kinds: Sequence[str], switch: str | None = None) -> tuple[Variant, ...]:
    """What *kinds* need, and the two that are compared: with *switch*, a variable, on and off."""
    needed = {VARIANT_OF[kind] for kind in kinds}
    every = {
        AS_SERVED: Variant(AS_SERVED),
        COMPUTED: Variant(COMPUTED, UNREMEMBERED),
    }
    if switch is not None:
        every |= {
            JOINED: Variant(JOINED, {**PATIENT, switch: "true"}),
            SINGLE: Variant(SINGLE, {**PATIENT, switch: "false"}),
        }
        needed |= {JOINED, SINGLE}
    return tuple(variant for name, variant in every.items() if name in needed)


def coalescing_switch(defaults: Path = DEFAULTS) -> str | None:
    """The variable that switches coalescing, as *defaults* have it; None: there is nothing to compare with."""
    with defaults.open("rb") as file:
        found = tomllib.load(file).get("coalesce")
    if isinstance(found, bool):
        return "TUTTI_COALESCE"
    return "TUTTI_COALESCE__ENABLED" if isinstance(found, dict) and "enabled" in found else None
