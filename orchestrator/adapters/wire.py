"""What both roles send of the shoppers, for any number of queries at once: their rows one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.core.model import Placement, Query, UserContext
from protos.arrays import pack_lists
from protos.tutti.v1 import common_pb2

PLACEMENT_CODE = {
    Placement.HOME: common_pb2.PLACEMENT_HOME,
    Placement.ITEM: common_pb2.PLACEMENT_ITEM,
    Placement.CART: common_pb2.PLACEMENT_CART,
    Placement.CATEGORY: common_pb2.PLACEMENT_CATEGORY,
}


def shoppers_of(asked: Sequence[tuple[Query, UserContext]], now_s: float) -> common_pb2.Shoppers:
    """Histories, their ages at *now_s* (the shop's clock, seconds since the epoch), and what each shopper looks at."""
    at_us = np.concatenate([user.history_at_us for _, user in asked])
    # A clock of another machine may be ahead of ours: an event is never younger than now.
    ages_s = np.maximum(int(now_s * 1e6) - at_us, 0) / 1e6
    return common_pb2.Shoppers(
        history=pack_lists([user.history_keys for _, user in asked]),
        history_types=b"".join([user.history_types.tobytes() for _, user in asked]),
        history_ages_s=ages_s.astype("<f4").tobytes(),
        context=pack_lists([query.focus_keys for query, _ in asked]),
        placements=bytes([PLACEMENT_CODE[query.placement] for query, _ in asked]),
    )
