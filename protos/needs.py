"""
From when on a model helps: what its training needs, and what it has had, among the figures of its manifest.

Training writes `needs_<what>` and `has_<what>`, or `met_<what>` where it knows the answer and not the number. Whoever
shows them (`tutti status`) knows no model by name, and a new model says what it needs in the same words. Figures do not
enter an artefact's version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NEEDS, _HAS, _MET = "needs_", "has_", "met_"


@dataclass(frozen=True, slots=True)
class Need:
    """
    One thing a model waits for.

    what    in words: "lists to learn from"
    needed  from how many on it helps, or helps more
    has     how many it was trained on; None where only *is_met* is known
    """

    what: str
    needed: int
    has: int | None
    is_met: bool

    def in_events(self, events: int) -> int | None:
        """
        How many events that will be at the pace so far: *events* gave what it has. None while it has nothing.

        A rule of three and no more: lists come from shoppers who return, who come in no fixed proportion.
        """
        if not self.has or not events:
            return None
        return math.ceil(self.needed * events / self.has)


def figures(what: str, needed: int, has: int | None = None, is_met: bool | None = None) -> dict[str, float]:
    """
    What `of` reads, for `Fitted.metrics`; *what* in snake case.

    Raises:
        ValueError: neither what it has nor whether that is enough.
    """
    if has is not None:
        return {f"{_NEEDS}{what}": float(needed), f"{_HAS}{what}": float(has)}
    if is_met is None:
        raise ValueError(f"{what}: say how many there are, or whether there are enough")
    return {f"{_NEEDS}{what}": float(needed), f"{_MET}{what}": float(is_met)}


def of(metrics: Mapping[str, Any]) -> list[Need]:
    """The needs among a manifest's figures, in their order; none in what an older version trained."""
    found = []
    for name, needed in metrics.items():
        if not name.startswith(_NEEDS):
            continue
        what = name.removeprefix(_NEEDS)
        has = metrics.get(_HAS + what)
        is_met = bool(metrics.get(_MET + what, 0)) if has is None else has >= needed
        found.append(Need(what.replace("_", " "), int(needed), None if has is None else int(has), is_met))
    return found
