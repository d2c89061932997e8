"""
Two learners, one score: how much each has to say, and how likely what they say is.

Pure numpy. The weights are chosen on shoppers that neither learner saw; the result is a probability, so that it can be
boosted, compared and read. Order is never changed by the calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32

SHARES = (0.5, 0.75, 0.25, 1.0, 0.0)
"""Of the trees, the first that is best: where it makes no difference both have a say, which is steadier than either."""

_BINS = 15
"""Of the calibration error; borrowed from Guo et al., ICML 2017."""

_STEPS = 50
"""Newton steps of a regression of two numbers: ample, and bounded."""


@dataclass(frozen=True, slots=True)
class Blend:
    """probability = σ(slope · (network · n + trees · t) + intercept) for the learners' scores n and t."""

    network: float = 1.0
    trees: float = 0.0
    slope: float = 1.0
    intercept: float = 0.0

    def of(self, network: Float32, trees: Float32) -> Float32:
        """Scores (n,) → probabilities (n,) float32, finite."""
        logit = self.slope * (self.network * network.astype(np.float64) + self.trees * trees) + self.intercept
        return (1 / (1 + np.exp(-np.clip(np.nan_to_num(logit), -30, 30)))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Blends:
    """
    One blend for each kind of list, since the learners are not equally good at both.

    known  where the shopper touched some of the candidates before: what comes next is mostly what came before
    new    where nothing of the kind is left: all that counts is how well new things are ordered
    """

    known: Blend = Blend()
    new: Blend = Blend()

    def of(self, network: Float32, trees: Float32, known_share: Float32) -> Float32:
        """
        Scores (n,) → probabilities (n,) float32, finite.

        known_share: (n,) part of each candidate's list that the shopper touched before.
        """
        is_known = known_share > 0
        if is_known.all():
            return self.known.of(network, trees)
        if not is_known.any():
            return self.new.of(network, trees)
        return np.where(is_known, self.known.of(network, trees), self.new.of(network, trees))

    def to_json(self) -> dict[str, Any]:
        """JSON values of everything."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Blends:
        """What `to_json` gave, through JSON."""
        return cls(Blend(**value["known"]), Blend(**value["new"]))


def mixed(share: float, network: Float32, trees: Float32) -> tuple[float, float]:
    """What to multiply either learner's scores with so that, brought to one spread, the trees have this *share*."""
    spreads = [max(float(scores.std()), 1e-6) for scores in (network, trees)]
    return (1 - share) / spreads[0], share / spreads[1]


def calibrated(scores: NDArray[np.float64], wanted: NDArray[np.bool_]) -> tuple[float, float]:
    """
    Slope > 0 and intercept of a logistic regression of *wanted* (n,) on *scores* (n,).

    Source: Platt 1999, with its smoothed targets, so that a handful of lists cannot claim certainty.
    """
    n_wanted = int(wanted.sum())
    n_rest = len(wanted) - n_wanted
    target = np.where(wanted, (n_wanted + 1) / (n_wanted + 2), 1 / (n_rest + 2))
    rows = np.column_stack([scores, np.ones(len(scores))])
    found = np.array([0.0, np.log((n_wanted + 1) / (n_rest + 1))])
    for _ in range(_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        weight = probability * (1 - probability)
        curvature = (rows * weight[:, None]).T @ rows + 1e-6 * np.eye(2)
        found = found - np.linalg.solve(curvature, rows.T @ (probability - target))
    # A model that orders no better than chance must still give an order.
    return (float(found[0]), float(found[1])) if found[0] > 1e-3 else (1e-3, float(found[1]))


def expected_calibration_error(probabilities: Float32, wanted: NDArray[np.bool_]) -> float:
    """Mean gap between what was said and what happened, over bins with as many rows each; Guo et al., ICML 2017."""
    order = np.argsort(probabilities, kind="stable")
    gaps: Sequence[float] = [
        abs(float(probabilities[part].mean()) - float(wanted[part].mean())) * len(part)
        for part in np.array_split(order, _BINS)
        if len(part)
    ]
    return sum(gaps) / max(len(order), 1)
