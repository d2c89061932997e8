"""
The lines of many processes on one terminal, and each in a file of its own.

A slow terminal must never slow a child down: the console is a bounded queue that drops what does not fit
and says how many lines that were. The files get every line.
"""

from __future__ import annotations

import queue
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TextIO

QUEUE_LINES = 1_000
"""Judged: some screens full, far more than a start prints, far less than memory notices."""

MAX_LOG_BYTES = 20_000_000
"""Judged: some 70,000 summary lines of 300 bytes; with the one file kept before it, 40 MB a process at most."""

_END = None


class Console:
    """Prints `name │ line` from a thread of its own. `say` is the supervisor's own voice and is never dropped."""

    def __init__(self, out: TextIO | None = None, *, width: int = 0, show_children: bool = True) -> None:
        self._out = out or sys.stdout
        self._width = width
        self._show_children = show_children
        self._dropped = 0
        self._out_is_gone = False
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        self._thread = threading.Thread(target=self._print, name="console", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """A line of the supervisor; waits for its place."""
        self._lines.put(f"{'tutti':<{self._width}} │ {line}")

    def echo(self, name: str, line: str) -> None:
        """A line of a child; dropped, and counted, when the terminal cannot keep up."""
        if not self._show_children:
            return
        try:
            self._lines.put_nowait(f"{name:<{self._width}} │ {line}")
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Print what waits, for a second at most (a terminal may be gone)."""
        try:
            self._lines.put(_END, timeout=1)
        except queue.Full:
            return
        self._thread.join(timeout=1)

    def _print(self) -> None:
        while (line := self._lines.get()) is not _END:
            self._write(line)
            if self._lines.empty():
                self._confess()
        self._confess()

    def _confess(self) -> None:
        if self._dropped:
            self._write(f"{'tutti':<{self._width}} │ {self._dropped} lines were not shown; they are in the log files")
            self._dropped = 0

    def _write(self, line: str) -> None:
        if self._out_is_gone:
            return
        try:
            print(line, file=self._out, flush=True)
        except (OSError, ValueError):  # the reader hung up, as in `tutti up | head`
            self._out_is_gone = True


class LogFile:
    """One child's lines; the file before is kept as `NAME.log.1`, at every start and at every `MAX_LOG_BYTES`."""

    def __init__(self, path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._max_bytes = max_bytes
        self._open()

    def write(self, line: str) -> None:
        """Append one line."""
        data = (line + "\n").encode()
        if self._size and self._size + len(data) > self._max_bytes:
            self._file.close()
            self._open()
        self._file.write(data)
        self._file.flush()
        self._size += len(data)

    def close(self) -> None:
        """No more lines. What a full disk does not take is lost: it must not keep anybody from being stopped."""
        with suppress(OSError):
            self._file.close()

    def _open(self) -> None:
        if self.path.exists():
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        self._file = self.path.open("wb")
        self._size = 0
