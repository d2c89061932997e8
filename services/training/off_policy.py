"""
What another policy would have earned, from what was logged while chance had a say.

Item-position estimators: a reward belongs to a slot, and is weighed by how much likelier the other policy is to show
that item in that slot (Li et al., KDD 2018). Unbiased as long as the logged propensity is exact and above zero
wherever the other policy's is; what the log never could have shown, no estimate can speak of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    Reward a slate, with its 95 % interval.

    ips    inverse propensity score: unbiased
    snips  self-normalised: a little biased, less noisy, never outside what was observed a slot
    weight mean importance weight a slot; far from 1 means that a propensity is wrong or the log too short
    """

    ips: float
    interval: tuple[float, float]
    snips: float
    weight: float


def estimate(rewards: NDArray[np.float64], logged: NDArray[np.float64], wanted: NDArray[np.float64]) -> Estimate:
    """
    Judge a policy by n logged slates of k slots.

    Args:
        rewards: (n, k) of each slot.
        logged: (n, k) propensity with which what stood in the slot was shown there, > 0.
        wanted: (n, k) probability with which the other policy shows that item in that slot.

    Raises:
        ValueError: no slate, shapes that differ, or a propensity that is not in (0, 1].
    """
    if not (rewards.shape == logged.shape == wanted.shape and rewards.ndim == 2 and len(rewards)):
        shapes = f"{rewards.shape}, {logged.shape}, {wanted.shape}"
        raise ValueError(f"expected three tables of n ≥ 1 slates by k slots; found {shapes}")
    if not ((logged > 0) & (logged <= 1)).all():
        raise ValueError("every logged propensity must lie in (0, 1]: what was shown was possible")
    weights = wanted / logged
    slates = (rewards * weights).sum(1)
    half = Z_95 * float(slates.std(ddof=1)) / np.sqrt(len(slates)) if len(slates) > 1 else float("inf")
    ips, total = float(slates.mean()), weights.sum(0)
    # Slot by slot: a slot's weights should sum to the number of slates, and by how much they do not is known.
    by_slot = np.divide((rewards * weights).sum(0), total, out=np.zeros(len(total)), where=total > 0)
    return Estimate(ips, (ips - half, ips + half), float(by_slot.sum()), float(weights.mean()))
