"""
The first sheet of an .xlsx workbook as chunks of text, read row by row.

A workbook is a zip archive of XML: it is refused when it unpacks to more than `LARGEST_WORKBOOK`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from services.training.importers.base import Progress
from services.training.importers.chunks import Chunk
from services.training.importers.errors import DatasetError, quote
from services.training.importers.tables import BATCH_ROWS

# Derived: a sheet has at most 1,048,576 rows; at 1 kB of XML a row that is 1 GB.
LARGEST_WORKBOOK = 1024**3


def read_workbook(file: Path, progress: Progress, *, columns: Sequence[str], hint: str = "") -> Iterator[Chunk]:
    """
    Stream the rows of the first sheet; every cell becomes text, as a CSV of it would hold.

    Args:
        file: .xlsx.
        progress: advanced by rows.
        columns: the header the sheet must have, in this order.
        hint: added to every error.

    Raises:
        DatasetError: no workbook, another header, too large when unpacked.
    """
    import openpyxl

    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > LARGEST_WORKBOOK:
            raise DatasetError(
                file, found=f"{unpacked:,} bytes when unpacked", expected=f"at most {LARGEST_WORKBOOK:,}"
            )
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DatasetError(
            file, found=f"no readable workbook ({error})", expected="an .xlsx file", hint=hint
        ) from error
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        header = [_text(cell) for cell in next(rows, ())]
        while header and header[-1] == "":
            header.pop()
        if header != list(columns):
            raise DatasetError(
                file, line=1, found=f"header {quote(header)}", expected=f"header {', '.join(columns)}", hint=hint
            )
        gathered: list[list[str]] = []
        first = 2
        for row in rows:
            gathered.append([_text(cell) for cell in row[: len(columns)]])
            if len(gathered) == BATCH_ROWS:
                yield _chunk(file, gathered, columns, first, hint)
                progress.advance(len(gathered))
                first, gathered = first + len(gathered), []
        if gathered:
            yield _chunk(file, gathered, columns, first, hint)
            progress.advance(len(gathered))
    finally:
        book.close()


def _chunk(file: Path, rows: list[list[str]], columns: Sequence[str], first: int, hint: str) -> Chunk:
    width = len(columns)
    padded = [row + [""] * (width - len(row)) for row in rows]
    arrays = [pa.array([row[place] for row in padded], pa.string()) for place in range(width)]
    return Chunk(file, pa.table(arrays, names=list(columns)), lambda row: first + row, hint)


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.isoformat(sep=" ")
    return str(cell)
