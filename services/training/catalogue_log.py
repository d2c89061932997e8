"""
What changed in the catalogue while the shop was open, folded into items.parquet before a training.

The rule: the log may be folded again. The new items.parquet stands whole before the first part of the log goes, so
whatever a run that was stopped left behind, the next one comes to the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from protos import catalogue_log
from protos.catalogue import FIELDS
from services.training.dataset import ITEMS_FILE

_TYPES = {
    "item_id": pa.string(),
    **dict.fromkeys(FIELDS, pa.string()),
    "price": pa.float64(),
    "in_stock": pa.bool_(),
}


def fold(data: Path) -> int:
    """
    Make DIR/items.parquet what the log says the shop has now: items changed, new, and without those deleted.

    Returns:
        Items that the log spoke of.
    """
    parts = sorted((data / catalogue_log.FOLDER).glob("part-*.parquet"))
    last: dict[str, str | None] = {}
    for part in parts:
        table = pq.read_table(part, columns=["item_id", "document"])
        last |= dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if not last or not (data / ITEMS_FILE).is_file():
        return 0
    _replace(data / ITEMS_FILE, last)
    for part in parts:
        part.unlink()
    return len(last)


def _replace(path: Path, last: dict[str, str | None]) -> None:
    base = pq.read_table(path)
    stays = [item_id not in last for item_id in base.column("item_id").to_pylist()]
    rows = [_row(item_id, document) for item_id, document in last.items() if document is not None]
    # Columns that the base lacks and somebody uses now; those nobody uses stay away.
    used = [name for name in FIELDS if name not in base.column_names and any(row[name] is not None for row in rows)]
    schema = pa.schema([*base.schema.remove_metadata(), *(pa.field(name, _TYPES[name]) for name in used)])
    kept = base.filter(pa.array(stays, pa.bool_())).replace_schema_metadata()
    for name in used:
        kept = kept.append_column(name, pa.nulls(len(kept), _TYPES[name]))
    changed = pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}, schema=schema
    )
    partial = path.with_suffix(".partial")
    pq.write_table(pa.concat_tables([kept, changed]), partial, compression="zstd")
    partial.replace(path)


def _row(item_id: str, document: str) -> dict[str, Any]:
    found = json.loads(document)
    row = {"item_id": item_id, **{name: found.get(name) for name in FIELDS}}
    if row["attributes"]:
        row["attributes"] = json.dumps(row["attributes"], ensure_ascii=False, separators=(",", ":"))
    else:
        row["attributes"] = None
    return row
