"""
The people: what they like, how often they come, how their taste moves, and under which ids they are seen.

Rule: a shopper's taste on a day is a function of the arrays here and the day. Behaviour adds chance and memory, never
taste, so the hidden truth can be written down whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.training.synthetic import naming
from services.training.synthetic.world import N_FACTORS, N_HIDDEN, N_STYLES, World

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

N_SEGMENTS = 12
"""Ways of life; a shopper mixes two. They make leaves and styles go together across shoppers."""
N_FAVOURITES = 8
FAVOURITE_SHARES = np.array([0.30, 0.20, 0.14, 0.11, 0.09, 0.07, 0.05, 0.04], np.float32)
GUEST_SHARE = 0.14
"""Shoppers who never log in."""
LATE_LOGIN_SHARE = 0.18
"""Shoppers who begin as guests and log in on a later day."""

# Weights of the parts of taste in the utility. Tuned on the development window until the order of methods and the
# popularity Gini resembled Online Retail's (docs/embedded-shop.md has the figures).
STYLE_WEIGHT = 3.0
MOOD_WEIGHT = 0.5
HIDDEN_WEIGHT = 1.3
TIER_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Shoppers:
    """
    n people.

    favourites        (n, N_FAVOURITES) int64 leaves they return to
    share_start, share_end   (n, N_FAVOURITES) float32 how their visits divide, at both ends of the window
    taste_start, taste_end   (n, N_FACTORS) float32; utility = taste · item factors
    activity          (n,) float32 relative number of sessions a day, mean 1
    arrives, leaves   (n,) int64 first day and day after the last
    friend            (n,) int64 whom they buy gifts for
    household         (n,) int64, 1 to 5: larger homes use things up faster
    novelty           (n,) float32 pull of new items
    logs_in           (n,) int64 day from which events carry the user id; a day after the window for guests for ever
    user_ids          n strings `u0001`; visitor_ids n strings `v-…`, "" for who always logs in
    """

    favourites: Ints
    share_start: Floats
    share_end: Floats
    taste_start: Floats
    taste_end: Floats
    activity: Floats
    arrives: Ints
    leaves: Ints
    friend: Ints
    household: Ints
    novelty: Floats
    logs_in: Ints
    user_ids: list[str]
    visitor_ids: list[str]

    def __len__(self) -> int:
        return len(self.activity)

    def tastes(self, who: Ints, position: float) -> Floats:
        """Taste of *who* (any shape) at *position* of the window in [0, 1]: (…, N_FACTORS)."""
        return np.asarray((1 - position) * self.taste_start[who] + position * self.taste_end[who], np.float32)

    def shares(self, who: Ints, position: float) -> Floats:
        """How the visits of *who* divide over their favourites: (…, N_FAVOURITES), rows sum to 1."""
        return np.asarray((1 - position) * self.share_start[who] + position * self.share_end[who], np.float32)


def build_shoppers(count: int, world: World, days: int, rng: np.random.Generator) -> Shoppers:
    """*count* people for the shop *world*."""
    segment_leaves, segment_styles = _segments(world, rng)
    first = rng.integers(0, N_SEGMENTS, count)
    second = rng.integers(0, N_SEGMENTS, count)
    mixed = np.logaddexp(segment_leaves[first] + np.log(0.75), segment_leaves[second] + np.log(0.25))
    noisy = mixed + rng.gumbel(0, 1, mixed.shape)
    width = min(N_FAVOURITES, mixed.shape[1])
    favourites = np.argsort(-noisy, axis=1, kind="stable")[:, :width]
    shares = FAVOURITE_SHARES[:width] / FAVOURITE_SHARES[:width].sum()
    share_start = np.tile(shares, (count, 1))
    swap = np.argsort(np.arange(width) + rng.normal(0, 1.6, (count, width)), axis=1, kind="stable")
    share_end = np.take_along_axis(share_start, swap, axis=1)

    taste = _tastes(first, second, segment_styles, rng)
    moved = _tastes(first, second, segment_styles, rng)
    # Most people stay who they are: at the window's end, three parts the old taste and one part a new draw.
    taste_end = (0.75 * taste + 0.25 * moved).astype(np.float32)
    taste_end[:, -3:] = taste[:, -3:]

    activity = rng.lognormal(0, 1.05, count)
    arrives = np.where(rng.random(count) < 0.55, -1, rng.integers(0, max(1, days - 5), count))
    stays = rng.exponential(320, count).astype(np.int64) + 5
    logs_in = np.full(count, -1, np.int64)
    draw = rng.random(count)
    logs_in[draw < GUEST_SHARE] = days + 1
    late = (draw >= GUEST_SHARE) & (draw < GUEST_SHARE + LATE_LOGIN_SHARE)
    logs_in[late] = np.maximum(arrives[late], 0) + rng.integers(1, 90, int(late.sum()))
    tokens = rng.integers(0, 2**48, count)
    digits = max(4, len(str(count)))
    return Shoppers(
        favourites=favourites.astype(np.int64),
        share_start=share_start.astype(np.float32),
        share_end=share_end.astype(np.float32),
        taste_start=taste,
        taste_end=taste_end,
        activity=(activity / activity.mean()).astype(np.float32),
        arrives=arrives.astype(np.int64),
        leaves=np.maximum(arrives, 0) + stays,
        friend=rng.integers(0, count, count),
        household=rng.choice(np.arange(1, 6), count, p=[0.28, 0.35, 0.17, 0.14, 0.06]),
        novelty=rng.normal(0.2, 0.5, count).astype(np.float32),
        logs_in=logs_in,
        user_ids=[f"u{number:0{digits}d}" for number in range(1, count + 1)],
        visitor_ids=[f"v-{token:012x}" if day >= 0 else "" for token, day in zip(tokens, logs_in, strict=True)],
    )


def _segments(world: World, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log weight of each leaf (N_SEGMENTS, L) and chance of each style (N_SEGMENTS, N_STYLES) per way of life."""
    shelves = [entry.path.rsplit(" > ", 1)[0] for entry in world.leaves]
    number = {shelf: k for k, shelf in enumerate(dict.fromkeys(shelves))}
    shelf = np.array([number[name] for name in shelves])
    pull = np.bincount(world.leaf, world.weight, len(world.leaves))
    leaves = (
        rng.normal(0, 1.0, (N_SEGMENTS, len(number)))[:, shelf]
        + rng.normal(0, 0.8, (N_SEGMENTS, len(shelf)))
        + 0.5 * np.log(pull)
    )
    return leaves, rng.dirichlet(np.full(N_STYLES, 0.6), N_SEGMENTS)


def _tastes(first: Ints, second: Ints, segment_styles: NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """One draw of the taste vectors of shoppers with these segments, (n, N_FACTORS) float32."""
    n = len(first)
    taste = np.zeros((n, N_FACTORS), np.float32)
    cdf = np.cumsum(0.75 * segment_styles[first] + 0.25 * segment_styles[second], axis=1)
    rows = np.arange(n)
    for liking in (1.0, 0.65):
        style = np.minimum((rng.random(n)[:, None] > cdf).sum(axis=1), N_STYLES - 1)
        taste[rows, style] = np.maximum(taste[rows, style], liking)
    taste[:, :N_STYLES] += 0.15 * rng.normal(0, 1, (n, N_STYLES)).astype(np.float32)
    taste[:, :N_STYLES] *= STYLE_WEIGHT
    mood = slice(N_STYLES, N_STYLES + naming.N_MOODS)
    taste[:, mood] = MOOD_WEIGHT * rng.normal(0, 1, (n, naming.N_MOODS))
    taste[:, mood.stop : mood.stop + N_HIDDEN] = HIDDEN_WEIGHT * rng.normal(0, 1, (n, N_HIDDEN))
    level = rng.normal(0, 0.8, n)
    # −w (tier − level)² without its constant: a factor pair, so that utility stays one dot product.
    taste[:, -3], taste[:, -2], taste[:, -1] = 2 * TIER_WEIGHT * level, -TIER_WEIGHT, 1.0
    return taste
