"""
Choosing a baseline's settings, on the window before the judged one.

The rule: a baseline is beaten at its best or it is not beaten. One axis at a time, the others held at the best found so
far: twelve fits instead of eighty-one for four axes of three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Settings = tuple[tuple[str, object], ...]
"""Names and values in the order of the axes; hashable, so that nothing is tried twice."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The best settings of one objective, what they reached, and how many were tried for all objectives together."""

    settings: Mapping[str, object]
    reached: float
    tried: int


def tune(
    axes: Mapping[str, tuple[object, ...]],
    objectives: tuple[str, ...],
    attempt: Callable[[Mapping[str, object]], Mapping[str, float]],
) -> dict[str, Choice]:
    """
    The best settings for each of *objectives*, higher is better; ties go to what was tried first.

    Args:
        axes: setting → values to try, the default first; where the search starts.
        attempt: settings → what they reach, by objective; called once for each settings.
    """
    reached: dict[Settings, Mapping[str, float]] = {}

    def value(settings: Mapping[str, object], objective: str) -> float:
        key = tuple(settings.items())
        if key not in reached:
            reached[key] = attempt(settings)
        return reached[key][objective]

    best = {name: {axis: values[0] for axis, values in axes.items()} for name in objectives}
    for objective in objectives:
        for axis, values in axes.items():
            candidates = [{**best[objective], axis: one} for one in values]
            best[objective] = max(candidates, key=lambda settings: value(settings, objective))
    return {name: Choice(best[name], value(best[name], name), len(reached)) for name in objectives}
