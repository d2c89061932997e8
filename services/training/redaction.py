"""
Takes erased people out of a data directory, before anything is learned from it or written into a store.

The rule: who is in `redactions.parquet` is in no other Parquet file of the directory afterwards, whoever wrote it: the
canonical events, offline feature tables, what evaluations kept. So no reader has to know of erasures. The logs are
ingestion's own (services/ingestion/redact.py). What an import brings back goes again with the next training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protos import artefacts, redactions, slate_log
from protos.redactions import Redactions

LOGS = ("event_log", slate_log.FOLDER)

_MOMENTS = ("timestamp", "event_timestamp")
"""Columns that say when a row is of; a row without one is of no moment and goes with its person."""

_DEMO = "shoppers.json"


def honour(data: Path) -> int:
    """
    Remove what the people of `redactions.parquet` did up to their erasure from every other file of *data*.

    Each file is written aside and renamed; `dataset.json` beside changed events gets their new digest, so that the next
    training and the next seeding see that the data have changed.

    Returns:
        Rows removed; 0 when there is nobody to remove.
    """
    erased = redactions.read(data)
    if not erased.erased_at_us:
        return 0
    removed = 0
    for path in sorted(data.rglob("*.parquet")):
        inside = path.relative_to(data)
        if inside.parts[0] not in LOGS and path.name != redactions.FILE_NAME:
            removed += _without(path, erased)
    _without_in_demo(data / _DEMO, erased)
    return removed


def _without(path: Path, erased: Redactions) -> int:
    """Rewrite one file without *erased*; returns how many rows went."""
    schema = pq.read_schema(path)
    if "user_id" not in schema.names:
        return 0
    ids = pq.ParquetFile(path).read(columns=["user_id"]).column("user_id")
    # Features of models may be dictionaries of any string type; the ids are text all the same.
    found = erased.of_users([one for one in pc.unique(ids.cast(pa.string())).to_pylist() if one is not None])
    if not found:
        return 0
    table = pq.ParquetFile(path).read()
    gone = _gone(table, found)
    if not gone.any():
        return 0
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table.filter(pa.array(~gone)), partial, compression="zstd", coerce_timestamps="us")
    partial.replace(path)
    _retell(path)
    return int(gone.sum())


def _gone(table: pa.Table, found: dict[str, int]) -> NDArray[np.bool_]:
    """(rows,) bool: of an erased person, and not of after the erasure."""
    people = pa.array(list(found), pa.string())
    index = pc.fill_null(pc.index_in(table.column("user_id").cast(pa.string()), value_set=people), -1)
    numbers: NDArray[np.int64] = index.to_numpy().astype(np.int64)
    until_us = np.append(np.array(list(found.values()), np.int64), np.iinfo(np.int64).min)[numbers]
    moments = next((name for name in _MOMENTS if name in table.schema.names), None)
    if moments is None:
        gone: NDArray[np.bool_] = numbers >= 0
        return gone
    at_us = table.column(moments).cast(pa.timestamp("us", "UTC")).cast("int64")
    of_before: NDArray[np.bool_] = pc.fill_null(at_us, np.iinfo(np.int64).min).to_numpy() <= until_us
    return (numbers >= 0) & of_before


def _retell(events: Path) -> None:
    """The digest of changed events where a `dataset.json` describes them."""
    info = events.with_name("dataset.json")
    if not info.is_file():
        return
    told: dict[str, Any] = json.loads(info.read_text(encoding="utf-8"))
    if events.name in told.get("sha256", {}):
        told["sha256"][events.name] = artefacts.sha256_of(events)
        artefacts.write_json(info, told)


def _without_in_demo(path: Path, erased: Redactions) -> None:
    """The demo page's dozen shoppers are known by id, too; they are chosen anew by the next training."""
    if not path.is_file():
        return
    shoppers = json.loads(path.read_text(encoding="utf-8"))
    found = erased.of_users([one["user_id"] for one in shoppers])
    if found:
        artefacts.write_json(path, [one for one in shoppers if one["user_id"] not in found])
