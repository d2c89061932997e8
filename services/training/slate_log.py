"""
The slate log and the event log of a data directory as arrays: what attribution joins and lessons are made of.

Reads only; erased people are in neither (services/ingestion/redact.py). What stands twice is taken once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protos import slate_log
from protos.arrays import Float32, Rows
from protos.tutti.v1 import reranking_pb2
from services.chassis.model import RerankQueries
from services.chassis.wire import read_rerank
from services.training.attribution import Events, Slates
from services.training.dataset import TYPE_CODES

EVENT_LOG = "event_log"


@dataclass(frozen=True, slots=True)
class Served:
    """
    What was served: `slates` of n slots, in the order of their moments.

    made_as     (q,) which computation each was made of, "" where nobody was asked
    placements  (q,) uint8 Placement of common.proto
    """

    slates: Slates
    made_as: Sequence[str]
    placements: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Made:
    """
    One computation as the re-ranker saw it.

    queries           of one query, n candidates
    scores            (n,) float32 of the re-ranker
    version           of the re-ranker
    user_id           "" for a visitor or nobody
    as_of_us          the shop's clock when the shopper was read; 0: nobody was
    item_keys         (m,) int32 whose columns are known
    item_numeric      (m, k) float32, item_categorical (m, c): as they were served
    """

    queries: RerankQueries
    scores: Float32
    version: str
    user_id: str
    as_of_us: int
    item_keys: NDArray[np.int32]
    item_numeric: Float32
    item_categorical: NDArray[np.object_]


def files(data: Path) -> list[str]:
    """Every file of both logs, by path inside *data*: what a training from the log was made from."""
    folders = (data / EVENT_LOG, data / slate_log.FOLDER)
    return sorted(str(path.relative_to(data)) for folder in folders for path in folder.rglob("part-*.parquet"))


def served(data: Path) -> Served:
    """Every answer in the log, each once; none where there is no log."""
    table = _once(_all(data / slate_log.FOLDER / "served", slate_log.SERVED_SCHEMA), "recommendation_id")
    table = table.sort_by([("received_at", "ascending"), ("recommendation_id", "ascending")])
    keys: list[list[int]] = table.column("keys").to_pylist()
    users, visitors = (table.column(name).to_pylist() for name in ("user_id", "visitor_id"))
    slates = Slates(
        ids=table.column("recommendation_id").to_pylist(),
        subjects=[_subject(user, visitor) for user, visitor in zip(users, visitors, strict=True)],
        sessions=_texts(table, "session_id"),
        at_us=_moments(table, "received_at"),
        slots=Rows.of(keys),
        propensities=np.array([one for row in table.column("propensities").to_pylist() for one in row], np.float64),
    )
    return Served(slates, _texts(table, "made_as"), table.column("placement").to_numpy().astype(np.uint8))


def made(data: Path) -> dict[str, Made]:
    """`made_as` → what the re-ranker was asked."""
    table = _once(_all(data / slate_log.FOLDER / "made", slate_log.MADE_SCHEMA), "made_as")
    moments = _moments(table, "as_of").tolist()
    return {row["made_as"]: _made(row, as_of_us) for row, as_of_us in zip(table.to_pylist(), moments, strict=True)}


def events(data: Path, key_of: Mapping[str, int], since_us: int) -> Events:
    """The events of the log from *since_us* on, by their own time; an item without a key is -1."""
    names = ["event_id", "event_type", "timestamp", "item_id", "recommendation_id", "position"]
    schema = pa.schema([(name, pa.string()) for name in (*names, "user_id", "visitor_id", "session_id")])
    schema = schema.set(schema.get_field_index("timestamp"), pa.field("timestamp", pa.timestamp("us", tz="UTC")))
    schema = schema.set(schema.get_field_index("position"), pa.field("position", pa.int32()))
    table = _all(data / EVENT_LOG, schema)
    at_us = _moments(table, "timestamp")
    table = table.filter(pa.array(at_us >= since_us))
    users, visitors = (table.column(name).to_pylist() for name in ("user_id", "visitor_id"))
    return Events(
        ids=_texts(table, "event_id"),
        types=np.array([TYPE_CODES.get(one, 0) for one in _texts(table, "event_type")], np.uint8),
        at_us=at_us[at_us >= since_us],
        keys=np.array([key_of.get(one, -1) for one in _texts(table, "item_id")], np.int32),
        slates=_texts(table, "recommendation_id"),
        positions=np.array([one or 0 for one in table.column("position").to_pylist()], np.int32),
        subjects=[_subject(user, visitor) for user, visitor in zip(users, visitors, strict=True)],
        sessions=_texts(table, "session_id"),
    )


def _made(row: Mapping[str, Any], as_of_us: int) -> Made:
    keys = np.array(row["item_keys"], np.int32)
    numeric = np.array(row["item_numeric"], np.float32).reshape(len(keys), -1)
    categorical = np.array(row["item_categorical"], object).reshape(len(keys), -1)
    return Made(
        queries=read_rerank(reranking_pb2.RerankRequest.FromString(row["asked"])),
        scores=np.array(row["scores"], np.float32),
        version=row["model_version"],
        user_id=row["user_id"] or "",
        as_of_us=as_of_us,
        item_keys=keys,
        item_numeric=numeric,
        item_categorical=categorical,
    )


def _all(folder: Path, schema: pa.Schema) -> pa.Table:
    # Not a dataset, which would add the folder's day as a column.
    paths = sorted(folder.rglob("part-*.parquet"))
    tables = [pq.ParquetFile(path).read(columns=schema.names).select(schema.names).cast(schema) for path in paths]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _once(table: pa.Table, name: str) -> pa.Table:
    first: dict[str, int] = {}
    for row, one in enumerate(table.column(name).to_pylist()):
        first.setdefault(one, row)
    return table.take(pa.array(list(first.values()), pa.int64()))


def _moments(table: pa.Table, name: str) -> NDArray[np.int64]:
    moments: NDArray[np.int64] = table.column(name).cast("int64").to_numpy()
    return moments


def _texts(table: pa.Table, name: str) -> list[str]:
    return [one or "" for one in table.column(name).to_pylist()]


def _subject(user_id: str | None, visitor_id: str | None) -> str:
    if user_id is not None:
        return f"u:{user_id}"
    return f"v:{visitor_id}" if visitor_id is not None else ""
