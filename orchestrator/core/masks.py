"""
Masks over a catalogue that grows: a request may meet an item that is younger than the mask it holds.

The rule: of an item that a mask does not reach nothing is known, so it is not allowed. The next request has masks that
reach it.
"""

from __future__ import annotations

import numpy as np

from orchestrator.core.model import Float32, Int32, Mask


def says(mask: Mask, keys: Int32) -> Mask:
    """(len(keys),) what *mask* (some size,) says of *keys*; False for keys beyond it."""
    if not len(keys) or int(keys.max()) < len(mask):
        return mask[keys]
    return np.asarray((keys < len(mask)) & mask[np.minimum(keys, len(mask) - 1)], np.bool_)


def both(one: Mask, other: Mask) -> Mask:
    """Where both say yes, as far as both reach."""
    if len(one) == len(other):
        return one & other
    size = min(len(one), len(other))
    return one[:size] & other[:size]


def of(values: Float32, keys: Int32, otherwise: float) -> Float32:
    """(len(keys),) *values* (some size,) of *keys*; *otherwise* for keys beyond them."""
    if not len(keys) or int(keys.max()) < len(values):
        return values[keys]
    found = values[np.minimum(keys, len(values) - 1)]
    return np.where(keys < len(values), found, np.float32(otherwise)).astype(np.float32)
