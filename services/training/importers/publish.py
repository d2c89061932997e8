"""
The output folder during an import: one importer at a time, and all new files or all old ones.

Everything is built in a hidden folder inside the output (so on the same file system) and renamed at the end. When
anything fails, renaming included, the output is as it was before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.training.importers.errors import DatasetError, OutputBusy

WORKSHOP = ".importing"


@contextmanager
def workshop(out: Path) -> Iterator[Path]:
    """
    An empty folder inside *out*, removed afterwards; *out* itself is removed again if this created it in vain.

    Raises:
        OutputBusy: another process imports into *out* right now.
        DatasetError: *out* is a file.
    """
    if out.exists() and not out.is_dir():
        raise DatasetError(out, found="a file", expected="a folder to write to", hint="give another --out")
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    # The folder's own descriptor carries the lock, so no lock file stays behind, and a killed import frees it.
    holder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputBusy(
                out,
                found="another import writing to it",
                expected="to be alone",
                hint="wait for it or give another --out",
            ) from None
        folder = out / WORKSHOP
        # What a killed import left.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if not existed and not any(out.iterdir()):
                out.rmdir()
    finally:
        os.close(holder)


def publish(files: Sequence[Path], out: Path) -> None:
    """
    Move *files* into *out* in the given order, in place of those of the same name.

    Raises:
        OSError: a rename failed; the files that were there before are back.
    """
    aside = files[0].parent / "replaced"
    aside.mkdir()
    moved: list[str] = []
    try:
        for file in files:
            if (out / file.name).exists():
                _set_aside(out / file.name, aside / file.name)
            file.replace(out / file.name)
            moved.append(file.name)
    except OSError:
        for name in moved:
            if (aside / name).exists():
                (aside / name).replace(out / name)
            else:
                (out / name).unlink()
        raise


def _set_aside(file: Path, aside: Path) -> None:
    """A second name for *file*, so that it stays in its place until it is replaced; a copy where links are unknown."""
    try:
        os.link(file, aside)
    except OSError:
        shutil.copy2(file, aside)
