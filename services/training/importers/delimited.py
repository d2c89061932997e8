"""
Delimited text as chunks: every field stays text, every row keeps its line number.

A header that is not the expected one, a row with another number of fields and bytes that are not UTF-8 refuse
the file, with the line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from services.training.importers.base import Progress
from services.training.importers.chunks import Chunk
from services.training.importers.errors import DatasetError, quote
from services.training.importers.text import Block, blocks

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_delimited(
    file: Path,
    progress: Progress,
    *,
    required: Sequence[str],
    optional: Sequence[str] | None = (),
    header: bool = True,
    delimiter: str = ",",
    quoted: bool = True,
    hint: str = "",
) -> Iterator[Chunk]:
    """
    Stream the rows of *file*.

    Args:
        file: text, or text in .gz.
        progress: advanced by the bytes read.
        required: columns that must be there; without *header*, all columns in order.
        optional: further columns that may be there; None lets any further column pass.
        header: the first record names the columns.
        delimiter: one character, or "::", which no CSV reader knows.
        quoted: fields may be in double quotes, with line ends inside.
        hint: added to every error, for instance a question about the format.

    Raises:
        DatasetError: see the module.
    """
    names: list[str] | None = None if header else list(required)
    for block in blocks(file, progress, quoted=quoted):
        body = block
        if names is None:
            body, names = _take_header(block, delimiter, required, optional, hint)
        if body.content.strip(b"\r\n"):
            yield Chunk(file, _parse(body, names, delimiter, quoted, hint), _line_finder(body, quoted), hint)
    if names is None:
        raise DatasetError(
            file, line=1, found="an empty file", expected=f"a header with {', '.join(required)}", hint=hint
        )


def _take_header(
    block: Block, delimiter: str, required: Sequence[str], optional: Sequence[str] | None, hint: str
) -> tuple[Block, list[str]]:
    """The block without its header, and the names the header gives."""
    content = block.content.removeprefix(_BYTE_ORDER_MARK)
    first, _, rest = content.partition(b"\n")
    try:
        text = first.rstrip(b"\r").decode()
    except UnicodeDecodeError as error:
        raise _not_text(block.file, block.first_line, error, hint) from error
    names = next(csv.reader([text], delimiter=delimiter), [])
    expected = f"a header with {', '.join(required)}"
    for name in required:
        if name not in names:
            raise DatasetError(
                block.file, line=1, column=name, found=f"no such column in {quote(text)}", expected=expected, hint=hint
            )
    for place, name in enumerate(names):
        if name in names[:place] or (optional is not None and name not in required and name not in optional):
            kind = "the column twice" if name in names[:place] else "an unknown column"
            allowed = expected + (f" and optionally {', '.join(optional)}" if optional else "")
            raise DatasetError(block.file, line=1, column=name or "(no name)", found=kind, expected=allowed, hint=hint)
    return Block(block.file, block.first_line + 1, rest), names


def _parse(block: Block, names: list[str], delimiter: str, quoted: bool, hint: str) -> pa.Table:
    content = block.content if len(delimiter) == 1 else block.content.replace(delimiter.encode(), b"\x1f")
    try:
        return pa_csv.read_csv(
            pa.BufferReader(content),
            # One Arrow block for ours: its own splitting would look for line ends a second time.
            read_options=pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(content) + 1),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter if len(delimiter) == 1 else "\x1f",
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise _culprit(block, names, delimiter, quoted, hint, error) from error


def _culprit(
    block: Block, names: list[str], delimiter: str, quoted: bool, hint: str, error: pa.ArrowInvalid
) -> DatasetError:
    """Read the block again, slowly, for the row Arrow refused."""
    for line, record in block.records() if quoted else block.lines():
        try:
            text = record.decode()
        except UnicodeDecodeError as broken:
            return _not_text(block.file, line, broken, hint)
        fields = next(csv.reader([text], delimiter=delimiter), []) if quoted else text.split(delimiter)
        if len(fields) != len(names):
            missing = f"column {names[len(fields)]} is missing" if len(fields) < len(names) else "the row is too long"
            return DatasetError(
                block.file,
                line=line,
                found=f"{len(fields)} fields in {quote(text)}",
                expected=f"{len(names)} fields ({', '.join(names)}) divided by {quote(delimiter)}",
                hint=f"{missing}; {hint}" if hint else missing,
            )
    return DatasetError(
        block.file, line=block.first_line, found=f"rows that cannot be read ({error})", expected="CSV", hint=hint
    )


def _not_text(file: Path, line: int, error: UnicodeDecodeError, hint: str) -> DatasetError:
    return DatasetError(
        file,
        line=line,
        found=f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}, which is no UTF-8",
        expected="UTF-8 text",
        hint=hint or "convert the file, for instance with iconv -f latin1 -t utf-8",
    )


def _line_finder(block: Block, quoted: bool) -> Callable[[int], int]:
    """Row of the parsed block → line in the file; walks the block, so it is for errors only."""

    def line_of(row: int) -> int:
        for place, (line, _) in enumerate(block.records() if quoted else block.lines()):
            if place == row:
                return line
        return block.first_line

    return line_of
