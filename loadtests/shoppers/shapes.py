"""
How the load goes up and down: phases of so many page views a second, and what is asked of the answers in each.

The rule: pure, and whole seconds, since Locust asks its shape once a second.

    steady   one rate
    step     up and up, by a factor a step, until the objectives are missed twice in a row: the breaking point
    burst    calm, BURST times as much for a fifth of the time, calm again
    soak     one rate for long; its end is held against its beginning
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

SHAPES = ("steady", "step", "burst", "soak")

WARM_UP_S, WARM_UP_SHARE = 5, 0.25
"""Judged: connections are opened and caches touched for the first time; not counted. Of a short run it is a quarter."""

STEP_S = 10
"""Judged: at 20 page views a second some 200 answers a step, enough for a median and a p99 that is nearly the worst."""

BURST = 5.0
"""Derived from the fault matrix' row 34, storms of 2, 5 and 10 times the knee: the one in the middle."""

LEAST_S = 6
"""Shorter, and a burst has no second of its own."""


class Asked(Enum):
    """What an answer of a phase is held against."""

    NOTHING = "nothing"  # warm-up
    FLOOR = (
        "floor"  # more than anybody promised to take: answers there are, in time, not empty; they may be popular ones
    )
    WHOLE = "whole"  # every objective


@dataclass(frozen=True, slots=True)
class Phase:
    """*rate* page views a second for *seconds*."""

    name: str
    seconds: int
    rate: float
    asked: Asked = Asked.WHOLE


def phases(shape: str, minutes: float, rate: float, growth: float = 1.3) -> list[Phase]:
    """
    The phases of *shape*, *minutes* long in all.

    Args:
        rate: page views a second; of a step shape the first step's.
        growth: from one step to the next.

    Raises:
        ValueError: no such shape, too short, or a rate or growth that goes nowhere.
    """
    total_s = round(minutes * 60)
    if shape not in SHAPES:
        raise ValueError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")
    if total_s < LEAST_S or rate <= 0 or growth <= 1:
        raise ValueError(
            f"{total_s} s at {rate:g} page views/s, growing by {growth:g}; expected at least {LEAST_S} s, "
            "a rate above 0 and a growth above 1"
        )
    warm_up_s = min(WARM_UP_S, round(WARM_UP_SHARE * total_s))
    warm_up, left_s = Phase("warm-up", warm_up_s, rate, Asked.NOTHING), total_s - warm_up_s
    match shape:
        case "steady":
            return [warm_up, Phase("steady", left_s, rate)]
        case "step":
            n = max(1, left_s // STEP_S)
            step_s = min(STEP_S, left_s)
            return [warm_up, *(Phase(f"step {i + 1}", step_s, rate * growth**i) for i in range(n))]
        case "burst":
            burst_s = max(1, left_s // 5)
            before_s = (left_s - burst_s) // 2
            return [
                warm_up,
                Phase("before", before_s, rate),
                Phase("burst", burst_s, BURST * rate, Asked.FLOOR),
                Phase("after", left_s - burst_s - before_s, rate),
            ]
        case _:
            third_s = left_s // 3
            seconds = (third_s, left_s - 2 * third_s, third_s)
            return [
                warm_up,
                *(Phase(name, s, rate) for name, s in zip(("beginning", "middle", "end"), seconds, strict=True)),
            ]


def phase_at(plan: Sequence[Phase], elapsed_s: float) -> int | None:
    """Number of the phase at *elapsed_s* from the beginning, from 0; None before it and after the end."""
    ends_s = 0
    for number, phase in enumerate(plan):
        ends_s += phase.seconds
        if 0 <= elapsed_s < ends_s:
            return number
    return None
