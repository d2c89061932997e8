"""A small world for models: shoppers of two tastes, items of two kinds, and one item nobody has touched."""

from __future__ import annotations

import numpy as np

from protos.tutti.v1 import common_pb2
from services.training.dataset import DAY_US, Dataset, Items

N_ITEMS, N_USERS = 40, 60
UNTOUCHED = 39
"""The key of the item without an event; it is a mug like the other even keys below 39 are not."""

PURCHASE, VIEW = common_pb2.EVENT_TYPE_PURCHASE, common_pb2.EVENT_TYPE_VIEW
START_US = 1_600_000_000_000_000


def a_dataset(days: int = 100, events_a_user: int = 20, seed: int = 3) -> Dataset:
    """Even shoppers want mugs (even keys), odd ones want lamps (odd keys); a tenth of the events are strays."""
    rng = np.random.default_rng(seed)
    n = N_USERS * events_a_user
    users = np.repeat(np.arange(N_USERS), events_a_user)
    strays = rng.random(n) < 0.1
    keys = rng.integers(0, (N_ITEMS - 1) // 2, n) * 2 + (users + strays) % 2
    at_us = START_US + np.sort(rng.integers(0, days * DAY_US, n))
    shuffled = rng.permutation(n)
    return Dataset(
        item_ids=[f"i{k}" for k in range(N_ITEMS)],
        user_ids=[f"u{u}" for u in range(N_USERS)],
        items=Items(
            titles=np.array([f"{'lamp' if k % 2 else 'mug'} number {k}" for k in range(N_ITEMS)], object),
            descriptions=np.array([""] * N_ITEMS, object),
            categories=np.array(["Home > Light" if k % 2 else "Home > Kitchen" for k in range(N_ITEMS)], object),
            brands=np.array([f"brand{k % 3}" for k in range(N_ITEMS)], object),
            prices=np.linspace(1, 50, N_ITEMS).astype(np.float32),
        ),
        users=users[shuffled].astype(np.int32),
        keys=keys[shuffled].astype(np.int32),
        types=np.where(rng.random(n) < 0.3, PURCHASE, VIEW).astype(np.uint8),
        at_us=at_us,
        sessions=(users[shuffled] * 1000 + (at_us - START_US) // (7 * DAY_US)).astype(np.int32),
        until_us=START_US + days * DAY_US,
        files={},
    )
