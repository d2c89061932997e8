"""
Rows that were stored as text: served as that text, and read from it only when somebody looks.

Most remembered slates leave as they were stored, and nobody looks. The rule: the text belongs to the rows and to
nothing else, so who puts other rows into a slate puts other text into its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

from orchestrator.core.model import Int32, SlateItem

T_co = TypeVar("T_co", covariant=True)


class Unread(Sequence[T_co]):
    """
    A sequence equal to the tuple it will be read as.

    Args:
        said: the text, as answers have it; see `wording`.
        read: text → rows; called once at most. Whoever stores the text vouches that it can be read.
    """

    __slots__ = ("_read", "_rows", "said")

    def __init__(self, said: bytes, read: Callable[[bytes], tuple[T_co, ...]]) -> None:
        self.said = said
        self._read = read
        self._rows: tuple[T_co, ...] | None = None

    @property
    def rows(self) -> tuple[T_co, ...]:
        """All of them."""
        if self._rows is None:
            self._rows = self._read(self.said)
        return self._rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.rows)

    @overload
    def __getitem__(self, at: int) -> T_co: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[T_co, ...]: ...
    def __getitem__(self, at: int | slice) -> T_co | tuple[T_co, ...]:
        return self.rows[at]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Unread):
            return self.said == other.said or self.rows == other.rows
        return self.rows == other

    def __hash__(self) -> int:
        return hash(self.rows)

    def __repr__(self) -> str:
        return repr(self.rows)


class UnreadSlots(Unread[SlateItem]):
    """
    The slots of a stored slate; their keys are at hand, since whether they may still be shown is asked every time.

    keys: (n,) int32, not to be written to.
    """

    __slots__ = ("_read_slots", "keys")

    def __init__(self, said: bytes, keys: Int32, read: Callable[[bytes, Int32], tuple[SlateItem, ...]]) -> None:
        self.said, self.keys = said, keys
        self._read_slots = read
        self._rows = None

    @property
    def rows(self) -> tuple[SlateItem, ...]:
        """All of them."""
        if self._rows is None:
            self._rows = self._read_slots(self.said, self.keys)
        return self._rows

    def __len__(self) -> int:
        return len(self.keys)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, UnreadSlots):
            # What is said of slots has a gap where an item's name will be.
            return self.said == other.said and self.keys.tolist() == other.keys.tolist()
        return super().__eq__(other)

    __hash__ = Unread.__hash__


def said_by(rows: Sequence[Any], say: Callable[[Sequence[Any]], bytes]) -> bytes:
    """The text of *rows*: as it was stored, else made by *say*."""
    return rows.said if isinstance(rows, Unread) else say(rows)
