"""
Finding a data set's files: the path may be a file or the folder that holds it.

Names are compared without case, blanks and punctuation, because archives and browsers change them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from services.training.importers.errors import DatasetError


def find(path: Path, names: Sequence[str]) -> Path | None:
    """
    The first of *names* (most wanted first) that *path*, a folder, holds; None when it holds none.

    Raises:
        DatasetError: *path* is not there or cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    try:
        there = {_plain(entry.name): entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    except OSError as error:
        raise DatasetError(folder, found=error.strerror or str(error), expected="a folder to read") from error
    return next((there[_plain(name)] for name in names if _plain(name) in there), None)


def find_one(path: Path, names: Sequence[str], source: str) -> Path:
    """
    *path* itself when it is a file, else the first of *names* in that folder.

    Raises:
        DatasetError: nothing there.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise DatasetError(
            path, found="nothing there", expected=f"the files of {source}, or the folder that holds them"
        )
    found = find(path, names)
    if found is None:
        entries = sorted(entry.name for entry in path.iterdir())
        shown = ", ".join(entries[:5]) + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
        raise DatasetError(
            path,
            found=f"a folder with {shown}" if entries else "an empty folder",
            expected=f"one of {', '.join(names)}",
            hint=f"is this {source}?",
        )
    return found


def stage_bytes(files: Sequence[Path]) -> int:
    """Bytes on disk of all *files*: the total of a reading stage."""
    return sum(file.stat().st_size for file in files)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
