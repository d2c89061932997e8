"""
How much is too much: the highest rate that is followed, found step by step.

Pure. Rates are of requests that arrive by themselves, whatever became of those before; what is sent is counted, and a
rate is followed when nearly all of it came back full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.bench.figures import FULL, NEARLY_ALL, Round

FIRST, STEP, LAST = 0.4, 0.1, 1.5
"""Rates tried, as shares of what a closed loop got through. Judged: arrivals by chance break before a loop that waits
does, and a system that sheds well beyond it."""

BELOW = 0.9
"""Where latency is measured: at this share of the knee."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a rate gave: *sent* requests, of which *full* came back with 200 and nothing but full slates."""

    rate: float
    sent: int
    full: float

    @property
    def is_followed(self) -> bool:
        return self.sent > 0 and self.full >= NEARLY_ALL * self.sent


def step_of(rate: float, measured: Round) -> Step:
    """A page is full as far as its slates are."""
    slates = sum(measured.levels.values())
    share = measured.levels.get(FULL, 0) / slates if slates else 0.0
    return Step(rate, measured.requests + sum(measured.failures.values()), measured.requests * share)


def rates(closed_per_s: float) -> Iterator[float]:
    """The rates to try, rising, for a system that got *closed_per_s* through in a closed loop."""
    for i in range(round((LAST - FIRST) / STEP) + 1):
        yield closed_per_s * (FIRST + i * STEP)


def knee(steps: list[Step]) -> float | None:
    """
    The highest rate that was followed before two in a row were not; None: not even the first was.

    One bad step may be the machine's; two are the system's.
    """
    best, missed = None, 0
    for step in steps:
        if step.is_followed:
            best, missed = step.rate, 0
        else:
            missed += 1
        if missed == 2:
            break
    return best


def is_over(steps: list[Step]) -> bool:
    """Whether trying further tells nothing more."""
    return len(steps) >= 2 and not steps[-1].is_followed and not steps[-2].is_followed
