"""
The last rung: all items, what is bought lately first. No shopper, no model, no service.

The order is by decayed strength of events, and behind it what nobody wanted yet, categories taking turns (`prior`);
every item of the vocabulary is in it, so a slate can always be filled, also in a shop without one event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import needs
from protos.arrays import Float32
from services.chassis.model import Fitted
from services.chassis.signals import DAY_S, STRENGTH, strengths
from services.training import prior
from services.training.dataset import Dataset

FILE = "popular.npz"


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    half_life_days: how long an event counts. Measured: popularity of the last 7 days is the better one on Online
    Retail (docs/quality.md).
    """

    half_life_days: float = 7.0


def fit(dataset: Dataset, parameters: Mapping[str, Any], seed: int, out: Path) -> Fitted:
    """Write `keys` (n_items,) int32, best first, and `scores` (n_items,) float32, falling, into *out*."""
    del seed
    used = Parameters(**parameters)
    keys, scores = ranking(dataset, used.half_life_days)
    wanted = np.bincount(dataset.keys, STRENGTH[dataset.types], dataset.n_items).astype(np.float32)
    n_wanted = int((wanted > 0).sum())
    keys = np.concatenate([keys[:n_wanted], prior.order(keys[n_wanted:], dataset.items.categories, wanted)])
    np.savez(out / FILE, keys=keys, scores=scores)
    said = {"items_with_events": float((scores > 0).sum()), **needs.figures("events", 1, len(dataset))}
    return Fitted(asdict(used), said)


def ranking(dataset: Dataset, half_life_days: float) -> tuple[NDArray[np.int32], Float32]:
    """All keys by decayed popularity, ties by key: keys (n_items,) int32 and scores (n_items,) float32, falling."""
    # Relative to the newest event, so that a shop that closed for a year still has an order.
    strength = strengths(dataset.types, dataset.ages_s, half_life_days * DAY_S)
    scores = np.bincount(dataset.keys, strength, dataset.n_items).astype(np.float32)
    # What is too old to count still goes before what nobody ever wanted.
    ever = np.bincount(dataset.keys, STRENGTH[dataset.types], dataset.n_items)
    keys = np.lexsort((np.arange(len(scores)), -ever, -scores)).astype(np.int32)
    return keys, scores[keys]
