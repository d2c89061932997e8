"""Small hand-made files in each source's format, and one way to import them and look at the result."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from services.training.importers import ImportReport, Options, import_dataset


@dataclass
class Imported:
    """What an import wrote: rows as dictionaries, in file order."""

    report: ImportReport
    out: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)

    def columns(self, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(event[name] for name in names) for event in self.events]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, str | bytes]], Path]:
    """Write files (name → content; .gz is packed) into a folder and return it."""

    def write_files(files: Mapping[str, str | bytes]) -> Path:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            (folder / name).write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
        return folder

    return write_files


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Imported]:
    """Import a path and read back what was written."""

    def run(source: str, path: Path, out: Path | None = None, **options: float) -> Imported:
        target = out or tmp_path / "shop"
        report = import_dataset(source, path, target, options=Options(**options))
        items = pq.read_table(target / "items.parquet").to_pylist()
        return Imported(
            report,
            target,
            pq.read_table(target / "events.parquet").to_pylist(),
            {item["item_id"]: item for item in items},
        )

    return run
