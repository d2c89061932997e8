"""
Global temporal split: train < T1 <= validation < T2 <= test < end, one moment for everybody.

The rule: nothing is tuned on the test window. Splits by shopper or by chance let a model see the future.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.chassis.signals import POSITIVE_TYPES
from services.training.dataset import DAY_US, Dataset, DatasetUnusable, to_us

WINDOW_DAYS = 28
"""Four whole weeks, so that every window holds each weekday as often; borrowed from the Online Retail protocol."""

Name = Literal["validation", "test"]

# The published protocol of a data set goes before the default: figures on other windows could not be compared.
_PUBLISHED = {
    "online-retail": (
        datetime(2011, 10, 15, tzinfo=UTC),
        datetime(2011, 11, 12, tzinfo=UTC),
        datetime(2011, 12, 10, tzinfo=UTC),
    ),
}


@dataclass(frozen=True, slots=True)
class Window:
    """A judged window [start_us, end_us): models see what is before it, the truth is what is in it."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Truth:
    """
    What judged shoppers did in a window, as rows over the same shoppers.

    users      (q,) rows of Dataset.user_ids with an event before the window and a truth item in it
    rebuy      q arrays of keys: everything they wanted in the window
    discovery  q arrays of keys: the part of it they had not touched before; may be empty
    touched    q arrays of keys they had touched before; removed from the list in discovery
    """

    users: np.ndarray
    rebuy: list[np.ndarray]
    discovery: list[np.ndarray]
    touched: list[np.ndarray]


def window(dataset: Dataset, name: Name, source: str = "") -> Window:
    """
    The window called *name*: the published one of *source*, otherwise the last two times 28 days of the data.

    Raises:
        DatasetUnusable: the data is too short to leave anything to train on.
    """
    if source in _PUBLISHED:
        t1, t2, end = (to_us(moment) for moment in _PUBLISHED[source])
    else:
        end = dataset.until_us
        t2 = end - WINDOW_DAYS * DAY_US
        t1 = t2 - WINDOW_DAYS * DAY_US
    chosen = Window(t1, t2) if name == "validation" else Window(t2, end)
    if not len(dataset) or dataset.at_us[0] >= chosen.start_us:
        days = (dataset.until_us - int(dataset.at_us[0])) / DAY_US if len(dataset) else 0
        raise DatasetUnusable(
            f"the data spans {days:.1f} days; the {name} split needs more than "
            f"{WINDOW_DAYS * (2 if name == 'validation' else 1)} to leave something to train on"
        )
    return chosen


def truth(dataset: Dataset, judged: Window, drawn: Callable[[int], NDArray[np.integer]] | None = None) -> Truth:
    """
    Who is judged in a window and on what.

    A truth item is one the shopper viewed, clicked, put in the basket or bought; impressions and removals are not.

    Args:
        drawn: number of shoppers who could be judged → places, rising, of those who are; None: all. What a large shop's
            others did before is not looked up.
    """
    start, end = np.searchsorted(dataset.at_us, [judged.start_us, judged.end_us])
    wanted = np.isin(dataset.types, POSITIVE_TYPES)
    inside = start + np.flatnonzero(wanted[start:end])
    is_known = np.zeros(len(dataset.user_ids), np.bool_)
    is_known[dataset.users[:start]] = True
    came = np.unique(dataset.users[inside])
    came = came[is_known[came]]
    chosen = came if drawn is None else came[drawn(len(came))]
    is_chosen = np.zeros(len(dataset.user_ids), np.bool_)
    is_chosen[chosen] = True
    past = dict(_keys_by_user(dataset, np.flatnonzero(wanted[:start] & is_chosen[dataset.users[:start]])))
    rebuy = _keys_by_user(dataset, inside[is_chosen[dataset.users[inside]]])
    touched = [past.get(user, np.empty(0, np.int32)) for user, _ in rebuy]
    return Truth(
        users=np.array([user for user, _ in rebuy], np.int64),
        rebuy=[keys for _, keys in rebuy],
        discovery=[np.setdiff1d(keys, old) for (_, keys), old in zip(rebuy, touched, strict=True)],
        touched=touched,
    )


def _keys_by_user(dataset: Dataset, events: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(user, distinct keys) of these events, by user."""
    pairs = np.unique(dataset.users[events].astype(np.int64) * dataset.n_items + dataset.keys[events])
    users, keys = pairs // dataset.n_items, (pairs % dataset.n_items).astype(np.int32)
    distinct, starts = np.unique(users, return_index=True)
    return [(int(u), k) for u, k in zip(distinct, np.split(keys, starts[1:]), strict=True)] if len(distinct) else []
