"""
The views that were computed, as a file that says how: `DIR/features/live.json`, beside the tables they gave.

Ingestion keeps the same features fresh while the shop is open, and imports no Feast (3.4 s and 174 MB a process). The
rule: the file is written where the tables are, so both were made by the same definitions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protos import artefacts
from services.training.feature_tables import FieldSql, ViewSql

FILE = Path("features") / "live.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class LiveViews:
    """
    project  Feast's, part of every key in Redis
    views    those over events, which change with every event; what the catalogue says changes with training
    """

    project: str
    views: tuple[ViewSql, ...]


def save(data: Path, project: str, views: Sequence[ViewSql]) -> None:
    """Replace the file of *data*; of *views* those over events."""
    over_events = [
        {
            "name": view.name,
            "key": view.key,
            "where": view.where,
            "fields": [[field.name, field.dtype, field.sql] for field in view.fields],
        }
        for view in views
        if view.origin == "events"
    ]
    artefacts.write_json(data / FILE, {"format": _FORMAT, "project": project, "views": over_events})


def load(data: Path) -> LiveViews | None:
    """What `save` wrote; None where features were never computed, or by a version that wrote another format."""
    try:
        found = json.loads((data / FILE).read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            return None
        views = tuple(
            ViewSql(v["name"], v["key"], "events", v["where"], tuple(FieldSql(*field) for field in v["fields"]))
            for v in found["views"]
        )
        return LiveViews(str(found["project"]), views)
    except (OSError, ValueError, KeyError, TypeError):
        return None
