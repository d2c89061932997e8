"""
Rotation: what was shown to a shopper time and again and never touched sinks.

Pure counting over the history that was read anyway; a shopper without impressions costs one comparison.
"""

from __future__ import annotations

import numpy as np

from orchestrator.core.model import IMPRESSION, REMOVED, Float64, Int32, UserContext

FATIGUE = "fatigue"
"""Name under which an explained slate says that an item sank for this; no rule may have it."""


def has_impressions(user: UserContext) -> bool:
    """Whether anything is known of what the shopper was shown."""
    return bool((user.history_types == IMPRESSION).any())


def unanswered(user: UserContext, keys: Int32, window_s: float) -> np.ndarray | None:
    """
    (n,) how often each of *keys* was shown within the window since the shopper last touched it; None: never any.

    A view, click, purchase or basket of an item answers all earlier impressions of it.
    """
    types, at_us = user.history_types, user.history_at_us
    shown = types == IMPRESSION
    if not shown.any():
        return None
    shown &= at_us >= user.as_of_us - int(window_s * 1e6)
    items, item = np.unique(user.history_keys[shown], return_inverse=True)
    if not len(items):
        return None
    touched = (types != IMPRESSION) & (types != REMOVED) & np.isin(user.history_keys, items)
    last_touch = np.full(len(items), np.iinfo(np.int64).min)
    np.maximum.at(last_touch, np.searchsorted(items, user.history_keys[touched]), at_us[touched])
    counts = np.bincount(item[at_us[shown] > last_touch[item]], minlength=len(items))
    at = np.minimum(np.searchsorted(items, keys), len(items) - 1)
    return np.where(items[at] == keys, counts[at], 0)


def weariness(counts: np.ndarray, patience: float) -> Float64:
    """
    (n,) how many times less an item is worth than before: 1 + n / patience.

    Derived: with a Beta prior that weighs `patience` impressions, the rate of clicks to expect after n impressions and
    no click is patience / (patience + n) of what it was.
    """
    return 1.0 + counts / patience
