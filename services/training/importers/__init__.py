"""
Importers of public data: one module a source, one way through for all of them.

    read (source → staged rows, a chunk at a time) → finish (deduplicate, sort, complete) → publish (rename)

`SOURCES` is the list; a new source is one module and one entry here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from protos import catalogue_log
from services.training.importers import amazon_reviews, canonical, movielens, online_retail, retailrocket
from services.training.importers.base import Importer, Options, Progress, Silent
from services.training.importers.errors import DatasetError, OutputBusy
from services.training.importers.finish import finish
from services.training.importers.publish import publish, workshop
from services.training.importers.report import ImportReport
from services.training.importers.staging import Staging

__all__ = [
    "SOURCES",
    "DatasetError",
    "ImportReport",
    "Importer",
    "Options",
    "OutputBusy",
    "Progress",
    "Silent",
    "import_dataset",
]

SOURCES: Mapping[str, Importer] = MappingProxyType(
    {
        module.IMPORTER.name: module.IMPORTER
        for module in (online_retail, movielens, amazon_reviews, retailrocket, canonical)
    }
)


def import_dataset(
    source: str, path: Path, out: Path, progress: Progress | None = None, options: Options | None = None
) -> ImportReport:
    """
    Turn a public data set into the canonical files: events.parquet, items.parquet, dataset.json.

    Args:
        source: a key of `SOURCES`.
        path: the data set's file, or the folder that holds its files.
        out: folder to write to; made if missing. Other files in it are left alone.
        progress: told how far it is; None for nobody.
        options: what the user may decide.

    Returns:
        The account of every row. Equal inputs give equal files.

    Raises:
        KeyError: no such source.
        DatasetError: the source was refused; *out* is as it was.
        OSError: reading or writing failed (no permission, say); *out* is as it was.
    """
    importer = SOURCES[source]
    shown = progress or Silent()
    with workshop(out) as folder:
        with Staging(folder) as staging:
            importer.read(path, staging, shown, options or Options())
        written = finish(staging, importer, path, folder, shown)
        # dataset.json last: whoever finds it finds the files it describes.
        publish([written.events, written.items, written.dataset], out)
    # What was changed in the catalogue that was replaced is in the new one, or is not meant.
    shutil.rmtree(out / catalogue_log.FOLDER, ignore_errors=True)
    return written.report
