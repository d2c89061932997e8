"""
Text files in blocks: whole lines, counted, bounded, decompressed on the way.

A block is about 8 MB whatever the file's size, and no record may be longer than `LONGEST_RECORD`, so a file
without line ends or with a quote that never closes is refused instead of filling the memory.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from services.training.importers.base import Progress
from services.training.importers.errors import DatasetError

# Derived: thousands of lines to a block, so per-block costs vanish, while a dozen copies of it stay below 100 MB.
BLOCK_BYTES = 8 * 1024 * 1024
# Derived: a quarter of a block, so that every block holds whole records; far above any product description.
LONGEST_RECORD = 2 * 1024 * 1024

_NEWLINE, _QUOTE = ord("\n"), ord('"')


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records of one file. `first_line`: number of the block's first line in the file, from 1."""

    file: Path
    first_line: int
    content: bytes

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """(line number, line without its end) of every line that is not empty."""
        for number, line in enumerate(self.content.split(b"\n"), start=self.first_line):
            bare = line.rstrip(b"\r")
            if bare:
                yield number, bare

    def records(self) -> Iterator[tuple[int, bytes]]:
        """As `lines`, but a quoted field may span lines; the number is that of the record's first line."""
        start, parts, quotes = 0, list[bytes](), 0
        for number, line in enumerate(self.content.split(b"\n"), start=self.first_line):
            start = start if parts else number
            parts.append(line)
            quotes += line.count(b'"')
            if quotes % 2 == 0:
                record = b"\n".join(parts).rstrip(b"\r")
                if record:
                    yield start, record
                parts = []


def blocks(file: Path, progress: Progress, *, quoted: bool = False) -> Iterator[Block]:
    """
    Read *file* (or unpack it, when its name ends in .gz) block by block.

    Args:
        file: where the text is.
        progress: advanced by the bytes read from disk; the caller has started its stage.
        quoted: line ends inside double quotes do not end a record.

    Raises:
        DatasetError: a record longer than `LONGEST_RECORD`, a broken or cut gzip stream.
    """
    line, rest = 1, b""
    with open_counted(file) as (stream, position):
        told = 0
        while True:
            try:
                read = stream.read(BLOCK_BYTES)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DatasetError(
                    file,
                    line=line + rest.count(b"\n"),
                    found=f"a broken gzip stream after this line ({error})",
                    expected="a whole .gz file",
                    hint="was the download cut? fetch it again",
                ) from error
            progress.advance(position() - told)
            told = position()
            text = rest + read
            end = len(text) if not read else _last_record_end(text, quoted)
            _refuse_long(file, line, text, end, quoted)
            if end:
                yield Block(file, line, text[:end])
                line += text.count(b"\n", 0, end)
            rest = text[end:]
            if not read:
                return


@contextmanager
def open_counted(file: Path) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """*file* for reading, unpacked if need be, and a function that says how many bytes of it were consumed."""
    with file.open("rb") as raw:
        if file.suffix == ".gz":
            with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                yield unpacked, raw.tell  # type: ignore[misc]  # GzipFile reads like IO[bytes]
        else:
            yield raw, raw.tell


def _record_ends(text: bytes, quoted: bool) -> np.ndarray:
    """Positions just after the line ends that end a record, int64, rising."""
    raw = np.frombuffer(text, dtype=np.uint8)
    ends = np.flatnonzero(raw == _NEWLINE)
    if quoted:
        quotes_before = np.searchsorted(np.flatnonzero(raw == _QUOTE), ends)
        ends = ends[quotes_before % 2 == 0]
    return ends + 1


def _last_record_end(text: bytes, quoted: bool) -> int:
    if not quoted:
        return text.rfind(b"\n") + 1
    ends = _record_ends(text, quoted)
    return int(ends[-1]) if len(ends) else 0


def _refuse_long(file: Path, line: int, text: bytes, end: int, quoted: bool) -> None:
    if len(text) <= LONGEST_RECORD:
        return
    edges = np.concatenate(([0], _record_ends(text[:end], quoted), [len(text)]))
    too_long = np.flatnonzero(np.diff(edges) > LONGEST_RECORD)
    if len(too_long):
        raise DatasetError(
            file,
            line=line + text.count(b"\n", 0, int(edges[too_long[0]])),
            found=f"a record of more than {LONGEST_RECORD // 1024} kB",
            expected="one record a line",
            hint="a quote that opens here and never closes looks like this" if quoted else "is this a text file?",
        )
