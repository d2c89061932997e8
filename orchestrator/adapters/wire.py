"""
One query as a batch of one on the wire: what both roles send of the shopper.

The protos are batched by construction; whoever joins several queries concatenates their rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from orchestrator.core.model import Placement, Query, UserContext
from protos.arrays import Rows, pack_rows
from protos.tutti.v1 import common_pb2

PLACEMENT_CODE = {
    Placement.HOME: common_pb2.PLACEMENT_HOME,
    Placement.ITEM: common_pb2.PLACEMENT_ITEM,
    Placement.CART: common_pb2.PLACEMENT_CART,
    Placement.CATEGORY: common_pb2.PLACEMENT_CATEGORY,
}


def shoppers_of(query: Query, user: UserContext, wall: Callable[[], float]) -> common_pb2.Shoppers:
    """History, its ages at this moment, and what the shopper looks at."""
    now_us = int(wall() * 1e6)
    # A clock of another machine may be ahead of ours: an event is never younger than now.
    ages_s = np.maximum(now_us - user.history_at_us, 0) / 1e6
    return common_pb2.Shoppers(
        history=pack_rows(Rows.of([user.history_keys])),
        history_types=user.history_types.tobytes(),
        history_ages_s=ages_s.astype("<f4").tobytes(),
        context=pack_rows(Rows.of([query.focus_keys])),
        placements=bytes([PLACEMENT_CODE[query.placement]]),
    )
