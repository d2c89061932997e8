"""
The slate log: the stream the orchestrator writes, and the files that ingestion makes of it and training reads.

    tutti:slates_log                      one entry a message of slate_log.proto, field `served` or `made`
    DIR/slate_log/served/date=…/          a row an answer: what stood in which slot
    DIR/slate_log/made/date=…/            a row a computation: what the re-ranker was asked and said

The two meet in `made_as`. A remembered slate that is served again is a new row of the first and none of the second.
`received_at` is the orchestrator's clock when it was answered or made, named as in the event log, so that one erasure
fits both. Rows may stand twice after a crash; readers take the first of an id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError

from protos.arrays import WireError, unpack
from protos.tutti.v1 import slate_log_pb2

STREAM = b"tutti:slates_log"
SERVED, MADE = b"served", b"made"

STREAM_MAX_LENGTH = 10_000
"""About. Derived: a made slate is 5 to 10 kB and a served one 0.5 kB (measured: 150 and 300 candidates of two sources,
30 and 200 events, 20 items), 50 MB while nobody reads; ten slates a second and a share of 0.1 fill it in 1.4 h."""

FOLDER = "slate_log"

_UTC = pa.timestamp("us", tz="UTC")
SERVED_SCHEMA = pa.schema(
    [
        ("recommendation_id", pa.string()),
        ("made_as", pa.string()),
        ("user_id", pa.string()),
        ("visitor_id", pa.string()),
        ("session_id", pa.string()),
        ("received_at", _UTC),
        ("placement", pa.uint8()),
        ("keys", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("propensities", pa.list_(pa.float64())),
        ("pinned", pa.list_(pa.uint16())),
        ("sources", pa.list_(pa.string())),
        ("level", pa.string()),
        ("from_cache", pa.bool_()),
        ("explored_share", pa.float64()),
        ("model_versions", pa.map_(pa.string(), pa.string())),
    ]
)
MADE_SCHEMA = pa.schema(
    [
        ("made_as", pa.string()),
        ("user_id", pa.string()),
        ("visitor_id", pa.string()),
        ("received_at", _UTC),
        ("as_of", _UTC),
        ("model_version", pa.string()),
        ("feature_digest", pa.string()),
        ("asked", pa.binary()),
        ("scores", pa.list_(pa.float32())),
        ("item_keys", pa.list_(pa.int32())),
        ("item_numeric", pa.list_(pa.float32())),
        ("item_categorical", pa.list_(pa.string())),
    ]
)
"""`asked` is a RerankRequest of one query as it was sent; lists of items are row by row."""


class NoSlate(ValueError):
    """Bytes that are no message of the log, or contradict themselves; they never will be."""


def served_row(raw: bytes) -> dict[str, Any]:
    """
    A `ServedSlate` as a row of SERVED_SCHEMA; absent texts are None.

    Raises:
        NoSlate: see there.
    """
    try:
        slate = slate_log_pb2.ServedSlate.FromString(raw)
        keys = np.frombuffer(slate.keys, "<i4")
        k = (len(keys),)
        scores = unpack(slate.scores, "<f4", k, "scores")
        propensities = unpack(slate.propensities, "<f8", k, "propensities")
        pinned = np.frombuffer(slate.pinned, "<u2")
    except (DecodeError, WireError, ValueError) as error:
        raise NoSlate(str(error)) from error
    if not slate.recommendation_id or len(slate.sources) != len(keys):
        raise NoSlate(f"a served slate without an id, or {len(slate.sources)} sources for {len(keys)} slots")
    return {
        "recommendation_id": slate.recommendation_id,
        "made_as": slate.made_as or None,
        "user_id": slate.user_id or None,
        "visitor_id": slate.visitor_id or None,
        "session_id": slate.session_id or None,
        "received_at": slate.served_at_us,
        "placement": slate.placement,
        "keys": keys,
        "scores": scores,
        "propensities": propensities,
        "pinned": pinned,
        "sources": list(slate.sources),
        "level": slate.level,
        "from_cache": slate.from_cache,
        "explored_share": slate.explored_share,
        "model_versions": sorted(slate.model_versions.items()),
    }


def made_row(raw: bytes) -> dict[str, Any]:
    """
    A `MadeSlate` as a row of MADE_SCHEMA; absent texts are None.

    Raises:
        NoSlate: see there.
    """
    try:
        slate = slate_log_pb2.MadeSlate.FromString(raw)
        scores, keys = np.frombuffer(slate.scores, "<f4"), np.frombuffer(slate.item_keys, "<i4")
        numeric = np.frombuffer(slate.item_numeric, "<f4")
    except (DecodeError, ValueError) as error:
        raise NoSlate(str(error)) from error
    n_candidates = len(slate.asked.candidates.values) // 4
    if not slate.made_as or slate.asked.queries != 1 or len(scores) != n_candidates:
        raise NoSlate(f"a made slate of {slate.asked.queries} queries, {n_candidates} candidates, {len(scores)} scores")
    if len(keys) == 0 or len(numeric) % len(keys) or len(slate.item_categorical) % len(keys):
        raise NoSlate(f"{len(numeric)} and {len(slate.item_categorical)} item columns for {len(keys)} items")
    return {
        "made_as": slate.made_as,
        "user_id": slate.user_id or None,
        "visitor_id": slate.visitor_id or None,
        "received_at": slate.made_at_us,
        "as_of": slate.as_of_us,
        "model_version": slate.model_version,
        "feature_digest": slate.asked.feature_digest,
        "asked": slate.asked.SerializeToString(),
        "scores": scores,
        "item_keys": keys,
        "item_numeric": numeric,
        "item_categorical": list(slate.item_categorical),
    }


def table(rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """*rows* as a table of *schema*."""
    return pa.table(
        {name: pa.array([row[name] for row in rows], schema.field(name).type) for name in schema.names}, schema=schema
    )
