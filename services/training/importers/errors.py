"""
What an import says when it refuses a file: which file, which line, which column, and what to try.

    DatasetError
    └── OutputBusy      another import is writing to the same folder

A row that is broken in its *structure* (too few columns, a word where a number belongs, bytes that are no
text) refuses the whole file: half-read data is worse than none. A row that is whole but *useless* for
recommending (a cancelled order, no customer) is dropped under a name instead; see report.py.
"""

from __future__ import annotations

from pathlib import Path

# Derived: long enough to recognise the value in an editor's search, short enough for one line of a terminal.
LONGEST_QUOTE = 80


class DatasetError(Exception):
    """
    The source could not be imported, and why, in one sentence.

    Attributes:
        file: the file (or folder) that is wrong.
        line: line of a text file or row of a table, from 1; None when the file as a whole is wrong.
        column: name of the column or field; None when the row as a whole is wrong.
        found, expected, hint: the three parts of the message; *hint* may be empty.
    """

    def __init__(
        self,
        file: Path,
        *,
        found: str,
        expected: str,
        line: int | None = None,
        column: str | None = None,
        hint: str = "",
    ) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.found = found
        self.expected = expected
        self.hint = hint
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        where = self.file.name if self.line is not None else str(self.file)
        place = f"{where}:{self.line}" if self.line is not None else where
        column = f" column {self.column}:" if self.column is not None else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}:{column} found {self.found}; expected {self.expected}{hint}"


class OutputBusy(DatasetError):
    """Another import holds the output folder."""


def quote(value: object) -> str:
    """*value* as it may appear in a message: printable, on one line, at most `LONGEST_QUOTE` characters."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 2] + "…" + text[-1]
