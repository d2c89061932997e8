"""
Chance in a slate, with the exact probability of what it showed.

The policy: with probability *share* one pair of places changes hands, a slot and any other place of the line (the
slate and, behind it, the pool), every pair alike; otherwise the slate stands. So at most two slots differ from what
models and rules decided, every item of the line can come into every slot, and the probability of item q in slot k is
one fraction, whatever else is in the slate (docs/adr/0028). Pure: the caller brings the generator.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from orchestrator.core.model import Float64

T = TypeVar("T")


def pairs(slots: int, line: int) -> int:
    """Pairs of places of the line of which at least one is a slot."""
    return slots * line - slots * (slots + 1) // 2


def explored(line: Sequence[T], slots: int, share: float, rng: random.Random) -> list[tuple[T, float]]:
    """
    What is shown in each slot, and the probability that just this was shown there.

    Args:
        line: the slots' items in order, then the pool's; no item twice.
        slots: how many of *line* are shown.
        share: probability that the slate is touched at all, in [0, 1].
    """
    n = pairs(slots, len(line))
    shown = list(range(slots))
    if n and rng.random() < share:
        slot, other = _pair(rng.randrange(n), len(line))
        shown[slot] = other
        if other < slots:
            shown[other] = slot
    return [(line[place], propensity(slot, place, slots, len(line), share)) for slot, place in enumerate(shown)]


def propensity(slot: int, place: int, slots: int, line: int, share: float) -> float:
    """
    Probability that the item at *place* of the line is shown in *slot*, both from 0.

    A place of the slate is in line − 1 pairs: with each other slot, and with each place of the pool.
    """
    n = pairs(slots, line)
    if not n:
        return float(slot == place)
    return 1.0 - share * (line - 1) / n if slot == place else share / n


def propensities(slots: int, line: int, share: float) -> Float64:
    """(slots, line) of `propensity`; every row sums to 1."""
    table = np.full((slots, line), propensity(0, 1, slots, line, share) if line > 1 else 0.0)
    table[np.arange(slots), np.arange(slots)] = propensity(0, 0, slots, line, share)
    return table


def _pair(number: int, line: int) -> tuple[int, int]:
    """Pair *number* in the order (0, 1), (0, 2), …, (1, 2), …"""
    slot = 0
    while number >= line - 1 - slot:
        number -= line - 1 - slot
        slot += 1
    return slot, slot + 1 + number
