"""
Which events belong to one visit: the shop's own session ids, otherwise a shopper's events without a long pause.

The rule: a visit has one shopper. Imported data often lacks session ids, and what is wanted together still has to be
told from what is wanted a month later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.training.dataset import US, Dataset

PAUSE_US = 30 * 60 * US
"""A pause that ends a visit. Borrowed: half an hour is what web analytics has used for decades."""


def number(dataset: Dataset, events: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    A number for the visit of each of *events* (n,), positions in *dataset*; the same for events of one visit.

    Events of a session id and a shopper are one visit however long it takes; those without one are split at pauses.
    """
    users, sessions, at_us = dataset.users[events].astype(np.int64), dataset.sessions[events], dataset.at_us[events]
    order = np.lexsort((at_us, sessions, users))
    user, session, at = users[order], sessions[order], at_us[order]
    begins = np.ones(len(order), bool)
    same = (user[1:] == user[:-1]) & (session[1:] == session[:-1])
    begins[1:] = ~same | ((session[1:] < 0) & (at[1:] - at[:-1] > PAUSE_US))
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(begins) - 1
    return numbers
