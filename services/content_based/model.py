"""
A shopper as the weighted mean of what they touched, in a space made of titles, categories, brands and prices.

Pure numpy; the rule is that the same function makes profiles in training's evaluation and in serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protos.arrays import Float32
from services.chassis.model import Shoppers
from services.chassis.signals import DAY_S, focused, weighted_items


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    What decides a fit, besides data and seed. Block weights are shares of an item's squared length.

    text_dimensions and path_dimensions are upper bounds; a small catalogue has fewer.
    sentence_encoder: folder of an encoder that reads titles and descriptions in place of TF-IDF (`sentences.py`).
    most_terms: of each kind (words, pieces, paths, brands), those that most items have. Derived: 256 dimensions in half
    precision are 512 bytes a term, so words and pieces are 20 MB at most in every replica.
    """

    text_dimensions: int = 256
    path_dimensions: int = 32
    text_weight: float = 0.6
    category_weight: float = 0.25
    brand_weight: float = 0.1
    price_weight: float = 0.05
    half_life_days: float = 21.0
    context_strength: float = 10.0
    most_terms: int = 20_000
    sentence_encoder: str = ""


def profiles(
    blocks: Sequence[Float32], row_of: NDArray[np.int64], shoppers: Shoppers, parameters: Parameters
) -> tuple[Float32, NDArray[np.bool_]]:
    """
    L2-normalised profiles of q shoppers.

    Args:
        blocks: (n, d) item vectors, each of length 1; row numbers go on from one block to the next.
        row_of: item key → row, -1 for a key without one.

    Returns:
        profiles (q, d) float32, and (q,) whether anything known speaks for the shopper.
    """
    rows, keys, weights = weighted_items(
        shoppers, len(row_of), parameters.half_life_days * DAY_S, parameters.context_strength
    )
    at = row_of[keys]
    rows, at, weights = rows[at >= 0], at[at >= 0], weights[at >= 0]
    weights = focused(shoppers, rows, weights, parameters.context_strength)
    # A sparse product: with np.add.at, 32 queries of 150 events (d = 327) took 36 ms in all, with this 16.
    summed = np.zeros((len(shoppers), blocks[0].shape[1]), np.float32)
    first = 0
    for vectors in blocks:
        here = (at >= first) & (at < first + len(vectors))
        shares = sparse.csr_matrix((weights[here], (rows[here], at[here] - first)), (len(shoppers), len(vectors)))
        summed += shares @ vectors
        first += len(vectors)
    lengths = np.linalg.norm(summed, axis=1)
    speaks = lengths > 0
    summed[speaks] /= lengths[speaks, None]
    return summed, speaks
