"""
How likely a slot is looked at, by its position, estimated from the log itself; and the weights that follow.

Position-based model: P(click on item i in slot k) = examination(k) × attraction(i). What is clicked in a slot nobody
looks at is worth more of a lesson than the same click in the first. Pure. Two ways to tell both factors apart:

    by exchange   chance put items into slots with known probability (core/exploration.py of the orchestrator): clicks
                  weighted by 1 / propensity sum to examination(k) × the attraction of the whole line, in every slot
    by harvest    what is alike in attraction stood in several slots: both factors fitted in turn

Sources: Joachims et al., WSDM 2017; Agarwal et al., WSDM 2019 (harvesting); Wang et al., WSDM 2018 (the model).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_CLICKS = 200
"""Clicks below which no slot is corrected. Judged: ten slots with twenty clicks each, known to about a fifth."""

LEAST_EXCHANGED = 200
"""Clicks on exchanged slots below which chance has not said enough. Judged, as above."""

SMOOTHING = 10.0
"""Clicks that every slot is taken to have at the mean examination. Judged: half of what LEAST_CLICKS leaves a slot."""

LARGEST_WEIGHT = 10.0
"""Cap of 1 / examination. Judged: unbiased learning is bought with noise, and one click is not to count like a hundred
(Joachims et al. clip as well; their best clip depended on the noise)."""

_ROUNDS = 200
_SETTLED = 1e-6

NONE, EXCHANGE, HARVEST = "none", "exchange", "harvest"


@dataclass(frozen=True, slots=True)
class Examination:
    """
    What is known of k positions.

    chances  (k,) float64 relative to the position that is looked at most, in (0, 1]
    how      `exchange`, `harvest`, or `none`: too few clicks, every chance is 1
    clicks   it was estimated from
    """

    chances: NDArray[np.float64]
    how: str
    clicks: int

    def weights(self, positions: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n,) float32 in [1, LARGEST_WEIGHT] for slots at *positions* (n,), from 1; beyond the last known its own."""
        if not len(self.chances):
            return np.ones(len(positions), np.float32)
        at = np.clip(np.asarray(positions, np.int64), 1, len(self.chances)) - 1
        return np.minimum(1 / self.chances[at], LARGEST_WEIGHT).astype(np.float32)

    def to_json(self) -> Mapping[str, Any]:
        """JSON values of everything."""
        return {"how": self.how, "clicks": self.clicks, "chances": [round(float(c), 4) for c in self.chances]}


def estimate(
    positions: NDArray[np.integer],
    clicked: NDArray[np.bool_],
    alike: NDArray[np.integer],
    propensities: NDArray[np.float64],
) -> Examination:
    """
    Examination by position from n shown slots; by exchange where chance has said enough, else by harvest.

    Args:
        positions: (n,) from 1.
        alike: (n,) group of slots whose attraction is taken to be the same, from 0; -1: none is known.
        propensities: (n,) with which what stood there was shown there; 1 where chance had no say.
    """
    places, clicks = np.asarray(positions, np.int64) - 1, int(clicked.sum())
    size = int(places.max(initial=-1)) + 1
    if clicks < LEAST_CLICKS:
        return Examination(np.ones(size), NONE, clicks)
    # Below a half it was not the slot's own item; core/exploration.py leaves that one with 1 - share × a little.
    exchanged = int(clicked[propensities < 0.5].sum())
    if exchanged >= LEAST_EXCHANGED:
        is_drawn = propensities < 1
        chances = by_exchange(places[is_drawn], clicked[is_drawn], propensities[is_drawn], size)
        return Examination(chances, EXCHANGE, exchanged)
    known = alike >= 0
    return Examination(
        by_harvest(places[known], clicked[known], alike[known], size), HARVEST, int(clicked[known].sum())
    )


def by_exchange(
    places: NDArray[np.int64], clicked: NDArray[np.bool_], propensities: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """
    (size,) examination of places from 0: clicks by 1 / propensity, which is examination × the line's attraction.

    Over the sum of the weights instead of their number: a little biased, less noisy. Smoothed by exchanged clicks.
    """
    weights = 1 / propensities
    total = np.bincount(places, weights, size)
    rates = np.bincount(places, clicked * weights, size) / np.maximum(total, 1.0)
    behind = np.bincount(places[(propensities < 0.5) & clicked], minlength=size)
    mean = float(rates[total > 0].mean()) if (total > 0).any() else 1.0
    return _relative((rates * behind + mean * SMOOTHING) / (behind + SMOOTHING))


def by_harvest(
    places: NDArray[np.int64], clicked: NDArray[np.bool_], alike: NDArray[np.integer], size: int
) -> NDArray[np.float64]:
    """
    (size,) examination of places from 0: each factor in turn is clicks over what the other one leads to expect.

    The Poisson fit of the model: of rates as low as clicks' the same as EM's, and settled in tens of rounds. A group
    that always stood in one place says nothing of it, and does no harm.
    """
    groups = int(alike.max(initial=-1)) + 1
    chances, attraction = np.ones(size), np.ones(max(groups, 1))
    by_place = np.bincount(places, clicked, size)
    by_group = np.bincount(alike, clicked, max(groups, 1))
    overall = float(clicked.mean()) if len(clicked) else 0.0
    for _ in range(_ROUNDS):
        expected = np.bincount(alike, chances[places], max(groups, 1))
        # A click's worth of the mean: a group nobody clicked yet is not one that nobody ever will.
        attraction = (by_group + 1) / (expected + 1 / max(overall, 1e-9))
        led_to = np.bincount(places, attraction[alike], size)
        mean = float(by_place.sum() / max(led_to.sum(), 1e-9))
        fresh = _relative((by_place + SMOOTHING) / (led_to + SMOOTHING / max(mean, 1e-9)))
        settled = np.abs(fresh - chances).max(initial=0.0) < _SETTLED
        chances = fresh
        if settled:
            break
    return chances


def _relative(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the largest, and never 0: a slot nobody clicked may still have been looked at."""
    top = float(rates.max(initial=0.0))
    relative: NDArray[np.float64] = np.clip(rates / top, 1e-3, 1.0) if top > 0 else np.ones(len(rates))
    return relative
