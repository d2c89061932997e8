"""
Slates as messages of the slate log (protos/tutti/v1/slate_log.proto). Pure: who writes them brings the moments.

What the re-ranker was asked is put together by the code that asks it, so that the log cannot tell another story.
"""

from __future__ import annotations

import numpy as np

from orchestrator.adapters.grpc_reranker import Question, request_of
from orchestrator.adapters.wire import PLACEMENT_CODE
from orchestrator.core.model import Asked, Float32, Int32, Query, Slate
from orchestrator.core.report import keys_of
from protos.tutti.v1 import slate_log_pb2


def served_message(query: Query, slate: Slate, at_s: float, explored_share: float) -> bytes:
    """
    One answer as it left at *at_s*, seconds since the epoch.

    explored_share: of exploration; what the propensities were made with.
    """
    items = slate.items
    return slate_log_pb2.ServedSlate(
        recommendation_id=query.recommendation_id,
        made_as=slate.made_as,
        served_at_us=int(at_s * 1e6),
        user_id=query.user_id or "",
        visitor_id=query.visitor_id or "",
        session_id=query.session_id or "",
        placement=PLACEMENT_CODE[query.placement],
        keys=keys_of(items).astype("<i4").tobytes(),
        scores=np.array([item.score for item in items], "<f4").tobytes(),
        propensities=np.array([item.propensity for item in items], "<f8").tobytes(),
        pinned=np.array(slate.pinned, "<u2").tobytes(),
        sources=["+".join(item.sources) for item in items],
        level=slate.level.value,
        from_cache=slate.from_cache,
        explored_share=explored_share,
        model_versions=dict(slate.model_versions),
    ).SerializeToString()


def may_be_shown(slate: Slate) -> Int32:
    """(m,) keys that answers made of *slate* can hold: its slots, and who may be exchanged for one."""
    return np.concatenate([keys_of(slate.items), keys_of(slate.pool)])


def made_message(
    query: Query,
    asked: Asked,
    slate: Slate,
    at_s: float,
    feature_digest: str,
    item_numeric: Float32,
    item_categorical: list[list[str]],
) -> bytes:
    """
    What the re-ranker was asked for *slate*, and said.

    Args:
        at_s: when that was, seconds since the epoch.
        feature_digest: of the read plan that the shopper's and the items' columns are of.
        item_numeric, item_categorical: (m, …) columns of `may_be_shown`.
    """
    user = asked.user
    return slate_log_pb2.MadeSlate(
        made_as=slate.made_as,
        made_at_us=int(at_s * 1e6),
        as_of_us=user.as_of_us,
        user_id=query.user_id or "",
        visitor_id=query.visitor_id or "",
        # Ages count from when the shopper was read, some milliseconds before the re-ranker was asked.
        asked=request_of([Question(query, user, asked.candidates)], feature_digest, user.as_of_us / 1e6),
        scores=asked.answer.scores.astype("<f4").tobytes(),
        model_version=asked.answer.model_version,
        item_keys=may_be_shown(slate).astype("<i4").tobytes(),
        item_numeric=np.ascontiguousarray(item_numeric, "<f4").tobytes(),
        item_categorical=[word for row in item_categorical for word in row],
    ).SerializeToString()
