"""
The catalogue's changes on disk: `DIR/catalogue_log/part-….parquet`, written by ingestion, folded into items.parquet by
training.

Files sort by the time of their writing, rows stand in the order of the changes; the last row of an item wins. A row
may stand there twice, after a crash or when Redis was read anew: it says the same.
"""

from __future__ import annotations

import pyarrow as pa

FOLDER = "catalogue_log"

POSITION_FILE = "position.json"
"""`{"version": n}`: the newest change that lies in the log or was folded."""

SCHEMA = pa.schema([("item_id", pa.string()), ("version", pa.int64()), ("document", pa.string())])
"""*document*: the item as JSON; null: deleted."""
