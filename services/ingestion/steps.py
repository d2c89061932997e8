"""
Named steps of ingestion, at which a test may let it die: only where the environment says so, never over the network.

    TUTTI_DIE_AT=consume.written        killed by SIGKILL when that step is reached
    TUTTI_DIE_AT=consume.written:3      … for the third time

A step stands after what its name says was done, and before anything that follows from it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

VARIABLE = "TUTTI_DIE_AT"

STEPS = (
    "consume.read",
    "consume.parsed",
    "consume.buried",
    "consume.written",
    "consume.acknowledged",
    "redact.stream",
    "redact.files",
    "redact.told",
    "redact.done",
    "features.read",
    "features.computed",
    "features.stored",
    "features.settled",
)
"""Every step there is; a test holds the code to it."""

Step = Callable[[str], None]


def nothing(_: str) -> None:
    """In service: a step is passed and that is all."""


def from_environment(environment: Mapping[str, str]) -> Step:
    """
    What to call at each step.

    Raises:
        ValueError: the variable names no step, or no number of times.
    """
    told = environment.get(VARIABLE)
    if not told:
        return nothing
    name, _, times = told.partition(":")
    if name not in STEPS or (times and not times.isdecimal()):
        raise ValueError(f"{VARIABLE}={told}: expected STEP or STEP:TIMES with one of {', '.join(STEPS)}")
    left = int(times or 1)

    def reached(step: str) -> None:
        nonlocal left
        if step == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached
