"""
Part of a table on its way in: columns, the file they came from, and where in that file each row stands.

The casts here turn a column into numbers or moments all at once; only when that fails is the culprit searched
for, by bisection with the very same cast, so that message and rule cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from services.training.importers.errors import DatasetError, quote

# An ISO 8601 moment that says its offset from UTC.
_OFFSET = r"(?:Z|[+-]\d{2}:?\d{2}|[+-]\d{2})$"

# Moments outside are typing errors or the wrong unit, in every source: 1970 to 2100, in seconds.
_LATEST_S = 4_102_444_800


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    Some rows of one file.

    Attributes:
        file: where they are from.
        table: the columns; text columns of CSV files hold "" for an empty field.
        line_of: row of *table*, from 0 → its line (text) or row (tables) in *file*, from 1.
        hint: added to every error about these rows.
    """

    file: Path
    table: pa.Table
    line_of: Callable[[int], int]
    hint: str = ""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def error(self, row: int, column: str, expected: str) -> DatasetError:
        """The refusal of the value in *row* of *column*."""
        return DatasetError(
            self.file,
            line=self.line_of(row),
            column=column,
            found=quote(self.table.column(column)[row].as_py()),
            expected=expected,
            hint=self.hint,
        )

    def refuse(self, column: str, where: pa.ChunkedArray | pa.Array, expected: str) -> None:
        """Raise for the first row where *where* (boolean, null means no) is true, if any."""
        row = pc.index(pc.fill_null(where, False), True).as_py()
        if row >= 0:
            raise self.error(row, column, expected)

    def text(self, column: str) -> pa.ChunkedArray:
        """The column as text without surrounding blanks; empty and missing are null."""
        values = self.table.column(column)
        try:
            trimmed = pc.utf8_trim_whitespace(values.cast(pa.string()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DatasetError(
                self.file, column=column, found=f"type {values.type}", expected="text or numbers", hint=self.hint
            ) from error
        return pc.if_else(pc.equal(trimmed, ""), None, trimmed)

    def numbers(
        self,
        column: str,
        expected: str,
        low: float = float("-inf"),
        high: float = float("inf"),
        *,
        required: bool = True,
    ) -> pa.ChunkedArray:
        """
        The column as float64, finite and within [low, high].

        Raises:
            DatasetError: not a number, out of range, or missing although *required*.
        """
        values = self._cast(column, expected, lambda part: pc.cast(part, pa.float64()))
        outside = pc.or_(pc.less(values, low), pc.greater(values, high))
        self.refuse(column, pc.or_kleene(pc.invert(pc.is_finite(values)), outside), expected)
        if required:
            self.refuse(column, pc.is_null(values), expected)
        return values

    def integers(
        self, column: str, expected: str, low: int = -(2**53), high: int = 2**53, *, required: bool = True
    ) -> pa.ChunkedArray:
        """As `numbers`, as int64. "17850.0" is a whole number: spreadsheets write ids like that."""
        source = self.table.column(column).type
        if pa.types.is_integer(source):
            values = self.table.column(column).cast(pa.int64())
            self.refuse(column, pc.or_(pc.less(values, low), pc.greater(values, high)), expected)
            if required:
                self.refuse(column, pc.is_null(values), expected)
            return values
        floats = self.numbers(column, expected, low, high, required=required)
        self.refuse(column, pc.not_equal(pc.floor(floats), floats), expected)
        return pc.cast(floats, pa.int64())

    def moments_us(self, column: str, *, required: bool = True) -> pa.ChunkedArray:
        """
        The column as microseconds since 1970 (int64): timestamps, or ISO 8601 text. Without an offset it is UTC.

        Raises:
            DatasetError: not a moment, or missing although *required*.
        """
        expected = "a moment from 1970 to 2100 such as 2011-10-15T08:26:00Z"
        source = self.table.column(column)
        if pa.types.is_date(source.type):
            source = source.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(source.type):
            # A zone of the column changes how it prints, not the instant it stores.
            values = pc.cast(source.cast(pa.timestamp("us", tz=source.type.tz), safe=False), pa.int64())
        elif pa.types.is_string(source.type) or pa.types.is_large_string(source.type):
            values = self._cast(column, expected, _moments)
        else:
            raise DatasetError(
                self.file, column=column, found=f"type {source.type}", expected=f"timestamps, or text: {expected}"
            )
        self.refuse(column, pc.or_(pc.less(values, 0), pc.greater(values, _LATEST_S * 1_000_000)), expected)
        if required:
            self.refuse(column, pc.is_null(values), expected)
        return values

    def epoch_us(self, column: str, unit_us: int, expected: str) -> pa.ChunkedArray:
        """The column as microseconds since 1970, from whole multiples of *unit_us*; 1990 to 2100, else refused."""
        # Whoever confuses seconds with milliseconds leaves this range by a factor of a thousand.
        earliest, latest = 631_152_000, _LATEST_S
        scale = 1_000_000 // unit_us
        return pc.multiply(self.integers(column, expected, earliest * scale, latest * scale), unit_us)

    def _cast(self, column: str, expected: str, cast: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> pa.ChunkedArray:
        values = self.table.column(column)
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = self.text(column)
        elif not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            raise DatasetError(self.file, column=column, found=f"type {values.type}", expected=expected, hint=self.hint)
        try:
            return cast(values)
        except pa.ArrowInvalid:
            low, high = 0, len(values)
            # Invariant: the rows before `low` cast, some row in [low, high) does not.
            while high - low > 1:
                middle = (low + high) // 2
                try:
                    cast(values.slice(low, middle - low))
                    low = middle
                except pa.ArrowInvalid:
                    high = middle
            raise self.error(low, column, expected) from None


def _moments(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """ISO 8601 text → microseconds since 1970, with or without offset, row by row."""
    has_offset = pc.and_(pc.match_substring_regex(text, _OFFSET), pc.greater(pc.utf8_length(text), len("2011-10-15")))
    zoned = pc.cast(pc.if_else(has_offset, text, None), pa.timestamp("us", tz="UTC"))
    naive = pc.cast(pc.if_else(has_offset, None, text), pa.timestamp("us"))
    return pc.coalesce(pc.cast(zoned, pa.int64()), pc.cast(naive, pa.int64()))
