"""
What a stage is, how it is held, and what comes of it.

The rule: a stage begins with the defaults, ends with a verdict, and sees of the others only what they kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.training.tuning.outcome import Outcome
from services.training.tuning.space import Space, Value
from services.training.tuning.study import Search
from services.training.tuning.verdict import Verdict, decide


class Stage(Protocol):
    """
    Something that has parameters to move.

    weight  its say in how --minutes are shared out; judged by what a trial of it costs
    tasks   what its trials are ranked by
    """

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def space(self) -> Space: ...

    def attempt(self, values: Mapping[str, Value], so_far: Callable[[float], None]) -> float:
        """What *values* reach on the choosing window; see study.Attempt."""
        ...

    def confirm(self, values: Mapping[str, Value]) -> Outcome:
        """What they come to on the confirming window."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """
    A stage and what came of it.

    kept       what replaces the defaults; empty where they stay
    confirmed  "default", "found" → figures on the confirming window; empty where nothing was to confirm
    """

    stage: str
    search: Search
    verdict: Verdict
    kept: Mapping[str, Value] = field(default_factory=dict)
    confirmed: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON values of everything, trial by trial."""
        best = self.search.best
        return {
            "stage": self.stage,
            "trials": len(self.search.trials),
            "cut_short": sum(trial.reached is None for trial in self.search.trials),
            "default": self.search.default.reached if self.search.default else None,
            "best": best.reached if best else None,
            "found": dict(best.values) if best else {},
            "moved": {n: [self.search.start[n], v] for n, v in best.values.items() if v != self.search.start[n]}
            if best
            else {},
            "verdict": self.verdict.to_json(),
            "confirmed": dict(self.confirmed),
            "seconds": round(self.seconds, 1),
            "tried": [{"number": t.number, "reached": t.reached, "values": dict(t.values)} for t in self.search.trials],
        }


def judged(stage: Stage, search: Search, seed: int) -> Held:
    """Hold the best of *search* against the defaults on the confirming window, where it is not the defaults itself."""
    best, default = search.best, search.default
    if best is None or default is None:
        return Held(stage.name, search, Verdict(False, "no time left: nothing was tried"))
    if best.values == default.values:
        why = f"nothing better than the defaults in {len(search.trials)} trials"
        return Held(stage.name, search, Verdict(False, why))
    before, after = stage.confirm(default.values), stage.confirm(best.values)
    verdict = decide(before, after, stage.tasks, seed)
    return Held(
        stage.name,
        search,
        verdict,
        best.values if verdict.is_kept else {},
        {"default": before.figures(), "found": after.figures()},
    )
