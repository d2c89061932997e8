"""
What an evaluation costs: seconds and peak memory of every stage, children included.

The rule: a stage lasts from the moment its name is announced to the next announcement, so that nothing is left
unaccounted and no stage needs to know that it is measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import psutil

SAMPLE_EVERY_S = 0.1
"""A peak shorter than this may be missed; reading one process tree takes about a millisecond."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One stage: seconds, and the most memory this process and its children held in it (resident, MB)."""

    stage: str
    seconds: float
    peak_mb: float


class Costs:
    """Wraps a progress callback; as a context manager it watches the memory meanwhile."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.costs: list[Cost] = []
        self._tell = tell
        self._stage: str | None = None
        self._began = 0.0
        self._peak = 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._close()
        self._done.set()
        self._watcher.join()

    def begin(self, stage: str) -> None:
        """A stage begins, the one before it ends."""
        self._close()
        self._stage, self._began, self._peak = stage, time.monotonic(), resident_bytes()
        self._tell(stage)

    def _close(self) -> None:
        if self._stage is not None:
            self._peak = max(self._peak, resident_bytes())
            self.costs.append(Cost(self._stage, round(time.monotonic() - self._began, 2), round(self._peak / 1e6, 1)))
        self._stage = None

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_EVERY_S):
            self._peak = max(self._peak, resident_bytes())


def resident_bytes() -> int:
    """Resident memory of this process and everything it started; what ends meanwhile counts nothing."""
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
