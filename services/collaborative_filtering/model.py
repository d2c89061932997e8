"""
A blend of what others' behaviour says: the simple methods of `services/chassis/affinity.py`, implicit ALS, and where
it wins a transformer that reads the history in its order (`sequence.py`). Words are one of the methods, since what they
add differs from page to page.

Every method says how close each item is to the shopper; standardised over what any of them proposes, they are added up
with weights that `train.choose` learns on the shop's own past. Which method is worth what differs from shop to shop
and from shelf to shelf, so no weight is written here by hand.

Implicit ALS, both halves of it in one formula: a row's factors are a ridge regression on the other side's.

For a row with weights w over columns with factors y:

    (α₀·YᵀY + Σ w·y·yᵀ + λ·(|row| + α₀·n)^ν · I) x = Σ w·y

Training solves it for items and shoppers in turn; serving solves it for a shopper's history ("folding in"), so that
there is no user id in the model and an event counts as soon as it is in the history. Source: Hu, Koren, Volinsky,
ICDM 2008, in the parametrisation of Rendle et al., RecSys 2022 (α₀ unobserved weight, ν frequency-scaled λ).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32
from protos.tutti.v1 import common_pb2
from services.chassis.affinity import NAMES, standardised
from services.chassis.model import Shoppers
from services.chassis.signals import DAY_S, Touched, focused, weighted_items

METHODS = (*NAMES, "factors", "sequence")
"""What is blended, in the order of the weights."""

WEIGHTS_OF: Mapping[int, str] = {common_pb2.PLACEMENT_ITEM: "item_weights", common_pb2.PLACEMENT_CART: "cart_weights"}
"""Placements with weights of their own, and their names in `Parameters`; all others are pages for the shopper alone."""

EQUAL = tuple(float(name != "sequence") for name in METHODS)
"""What a shop's methods weigh before its past could choose."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    What decides a fit, besides data and seed. About 20 settings were compared on Online Retail's validation window;
    dimensions and half-life lie between the best two of them. context_strength is a first guess, not measured.

    weights        a weight a method (METHODS), for home and category pages; chosen by `train.choose`, and equal where
                   the past is too short to choose by
    item_weights   the same for the page of an item, learnt from what else is looked at on such a visit
    cart_weights   the same for the basket, learnt from what else went into it
    sequence       whether the transformer is fitted, stored and asked where its weight is above 0; `train.choose` says
                   so where it wins
    sequence_trial what its trial came to, for whoever reads the manifest: figures, or why there was none
    affinity       overrides of `services/training/affinity.Parameters`, in names and numbers
    """

    dimensions: int = 64
    sweeps: int = 6
    unobserved_weight: float = 1.0
    regularisation: float = 0.003
    frequency_exponent: float = 1.0
    half_life_days: float = 30.0
    context_strength: float = 10.0
    weights: tuple[float, ...] = EQUAL
    item_weights: tuple[float, ...] = EQUAL
    cart_weights: tuple[float, ...] = EQUAL
    sequence: bool = False
    sequence_trial: Mapping[str, object] = field(default_factory=dict)
    affinity: Mapping[str, Any] = field(default_factory=dict)

    def weights_on(self, placement: int) -> Float32:
        """(len(METHODS),) float32 for a Placement of common.proto."""
        return np.asarray(getattr(self, WEIGHTS_OF.get(placement, "weights")), np.float32)


@dataclass(frozen=True, slots=True)
class Solver:
    """
    The fixed side of the formula above.

    gram  (d, d) float32 α₀·YᵀY over all columns; n the number of columns
    """

    gram: Float32
    unobserved_weight: float
    regularisation: float
    frequency_exponent: float
    n: int

    @classmethod
    def of(cls, factors: Float32, borrowed: NDArray[np.integer], parameters: Parameters) -> Solver:
        """
        The solver over items' *factors* (n_items, d).

        Args:
            borrowed: keys whose factors are their look-alikes': they are folded in, and no side of the formula.
        """
        learnt = np.delete(factors, borrowed, axis=0)
        return cls(
            gram=np.float32(parameters.unobserved_weight) * (learnt.T @ learnt),
            unobserved_weight=parameters.unobserved_weight,
            regularisation=parameters.regularisation,
            frequency_exponent=parameters.frequency_exponent,
            n=len(factors),
        )

    def ridge(self, lengths: NDArray[np.integer]) -> Float32:
        """λ·(|row| + α₀·n)^ν for rows of these lengths (q,) float32."""
        scaled = (lengths + self.unobserved_weight * self.n) ** self.frequency_exponent
        return np.asarray(self.regularisation * scaled, np.float32)

    def solve(self, factors: Float32, lengths: NDArray[np.int64], weights: Float32) -> Float32:
        """
        Factors (q, d) of q rows.

        Args:
            factors: (m, d) factors of the columns of each row, row after row.
            lengths: (q,) how many of them belong to each row.
            weights: (m,) > 0.
        """
        d = self.gram.shape[0]
        left = np.repeat(self.gram[None], len(lengths), axis=0)
        right = np.zeros((len(lengths), d), np.float32)
        start = 0
        for i, length in enumerate(lengths):
            own, weight = factors[start : start + length], weights[start : start + length, None]
            left[i] += own.T @ (own * weight)
            right[i] = (own * weight).sum(0)
            start += length
        left += self.ridge(lengths)[:, None, None] * np.eye(d, dtype=np.float32)
        return np.asarray(np.linalg.solve(left, right[:, :, None])[:, :, 0], np.float32)


def user_vectors(
    solver: Solver,
    item_factors: Float32,
    shoppers: Shoppers,
    parameters: Parameters,
    known: Touched | None = None,
) -> tuple[Float32, NDArray[np.bool_]]:
    """
    Fold q shoppers in.

    Args:
        item_factors: (n_items, d) float32 by item key; all zero for an item without interactions.
        known: `touched` of these shoppers, where the caller has it already.

    Returns:
        vectors (q, d) float32, and (q,) whether anything known speaks for the shopper.
    """
    n_items = len(item_factors)
    context_strength = parameters.context_strength
    half_life_s = parameters.half_life_days * DAY_S
    rows, keys, weights = weighted_items(shoppers, n_items, half_life_s, context_strength, known)
    # An item nobody interacted with has no factors to fold in.
    factors = item_factors[keys]
    trained = factors.any(1)
    rows, factors, weights = rows[trained], factors[trained], weights[trained]
    weights = focused(shoppers, rows, weights, context_strength)
    lengths = np.bincount(rows, minlength=len(shoppers))
    speaks = lengths > 0
    vectors = np.zeros((len(shoppers), item_factors.shape[1]), np.float32)
    if speaks.any():
        vectors[speaks] = solver.solve(factors, lengths[speaks], weights)
    return vectors, speaks


def blend(closeness: Float32, weights: Float32) -> Float32:
    """(len(METHODS), n) closeness of what is proposed to one shopper → scores (n,) float32."""
    counts = weights != 0
    if not counts.all():
        closeness, weights = closeness[counts], weights[counts]
    if not closeness.size:
        return np.zeros(closeness.shape[1], np.float32)
    return np.asarray(weights @ standardised(closeness), np.float32)


def best_first(scores: Float32, most: int) -> NDArray[np.int64]:
    """Places of the *most* highest *scores* (n,), falling; ties in the order they came."""
    falling = -scores
    if len(falling) > most:
        # A sort that keeps ties in order is slow, so only what counts is sorted.
        least = np.partition(falling, most - 1)[most - 1]
        places: NDArray[np.int64] = (falling <= least).nonzero()[0]
        return np.asarray(places[np.argsort(falling[places], kind="stable")[:most]])
    return np.argsort(falling, kind="stable")
