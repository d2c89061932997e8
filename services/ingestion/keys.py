"""
Gives new items their keys: in the vocabulary file first, in Redis then, so that nobody speaks of a key that a restart
would not know.

The rule: one writer. Training appends to the same file under the same lock; whoever comes second finds what the first
wrote, and an id never gets two keys nor a key two ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protos import vocabulary


class Keys:
    """The vocabulary of one data directory, growing."""

    def __init__(self, data: Path) -> None:
        self._data, self._path = data, data / vocabulary.FILE_NAME
        self._stamp: tuple[int, int, int] | None = None
        self._ids: list[str] = []
        self._keys: dict[str, int] = {}

    def of(self, item_ids: Sequence[str]) -> dict[str, int]:
        """
        The key of each; ids without one get the next and are in the file before this returns. Blocks.

        Raises:
            OSError: the file cannot be read or written; nothing was given.
        """
        with vocabulary.sole_writer(self._data):
            self._look()
            new = [one for one in dict.fromkeys(item_ids) if one not in self._keys]
            if new:
                vocabulary.write(self._path, [*self._ids, *new])
                self._keys |= {one: len(self._ids) + n for n, one in enumerate(new)}
                self._ids += new
                self._stamp = self._stamped()
        return {one: self._keys[one] for one in item_ids}

    def _look(self) -> None:
        """Read the file again where somebody else wrote it: a million ids are half a second."""
        stamp = self._stamped()
        if stamp != self._stamp:
            self._ids = [] if stamp is None else vocabulary.read(self._path)
            self._keys = {item_id: key for key, item_id in enumerate(self._ids)}
            self._stamp = stamp

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def __repr__(self) -> str:
        return f"<Keys of {len(self._ids)} items in {self._path}>"
