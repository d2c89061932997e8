"""
The process of the bare arithmetic, as the measurement asks it; ends with the block.

It is a process of its own for three reasons: one thread whatever the libraries would like, memory that is not the
driver's, and the orchestrator's code, which services may not import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from services.bench.asking import Shopper, Unit

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")}
"""A model service runs on one thread, too (supervisor/plan.py)."""

BATCHES = (1, 32)
"""Queries a call: as from a caller alone, and as coalesced calls have them when many are in flight."""

ANSWER_WITHIN_S = 180.0
"""Judged: loading the models of a million items takes a minute on a busy machine; nothing else takes as long."""


class BareFailed(RuntimeError):
    """The bare arithmetic did not answer; the message is the last it said."""


@dataclass(frozen=True, slots=True)
class Cost:
    """
    The bare arithmetic of one request at a batch size: milliseconds of CPU over all stretches, the least and the most.
    """

    batch: int
    ms: float
    low_ms: float
    high_ms: float
    requests: int

    def to_json(self) -> dict[str, float]:
        """Under the names of the fields."""
        return {
            "batch": self.batch,
            "ms": self.ms,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "requests": self.requests,
        }


class Beside:
    """The process, asked. Stretches of one kind and batch are pooled."""

    def __init__(self, process: subprocess.Popen[str], said: IO[str]) -> None:
        """*said*: what it writes to standard error."""
        self._process, self._said = process, said
        self._stretches: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)

    def shoppers(self, most: int, seed: int) -> tuple[list[Shopper], int, list[str]]:
        """Users with features and a history, how many were looked at for them, and the ids of all items shown."""
        answer = self._ask(do="shoppers", most=most, seed=seed)
        found = [Shopper(user_id, tuple(items)) for user_id, items in answer["shoppers"]]
        return found, answer["looked_at"], answer["items"]

    def take(self, kind: str, units: Sequence[Unit]) -> None:
        """What *kind* means from now on."""
        self._ask(do="take", kind=kind, units=units)

    def measure(self, kind: str, seconds: float) -> None:
        """One stretch of *kind* with every batch size."""
        for batch in BATCHES:
            answer = self._ask(do="measure", kind=kind, batch=batch, seconds=seconds)
            self._stretches[kind, batch].append((answer["units"], answer["cpu_s"]))

    def cost(self, kind: str, batch: int) -> Cost | None:
        """Of all stretches so far; None where there was none."""
        stretches = self._stretches.get((kind, batch))
        return pooled(batch, stretches) if stretches else None

    def slates(self, kind: str, n: int) -> list[list[str]]:
        """Item ids, a slate a request, of the first *n* units of *kind*."""
        found: list[list[str]] = self._ask(do="slates", kind=kind, n=n)["slates"]
        return found

    def _ask(self, **order: Any) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None  # noqa: S101  # opened as a pipe
        assert process.stdout is not None  # noqa: S101
        last = threading.Timer(ANSWER_WITHIN_S + float(order.get("seconds", 0)), process.kill)
        last.start()
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            process.kill()
            raise BareFailed(f"the bare arithmetic ended: {last_line(self._said)}") from error
        finally:
            last.cancel()
        return answer


def pooled(batch: int, stretches: Sequence[tuple[int, float]]) -> Cost:
    """One cost of (requests, CPU seconds) of several stretches."""
    each = [1000 * cpu_s / requests for requests, cpu_s in stretches if requests]
    requests = sum(requests for requests, _ in stretches)
    return Cost(batch, 1000 * sum(cpu_s for _, cpu_s in stretches) / max(requests, 1), min(each), max(each), requests)


def cheaper(costs: Sequence[Cost]) -> Cost:
    """What the system is compared with: the cheapest way to do the same work, so that no ratio flatters it."""
    return min(costs, key=lambda cost: cost.ms)


@contextmanager
def bare(settings_file: Path) -> Iterator[Beside]:
    """The process on the settings of a running system, until the block ends."""
    # A file, not a pipe: nobody reads it while all goes well, and a full pipe would stop the process.
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [sys.executable, "-m", "services.bench.bare", "--settings", str(settings_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Beside(process, said)
        finally:
            process.kill()


def last_line(said: IO[str]) -> str:
    """The last a process wrote to *said* before it ended."""
    said.seek(0)
    lines = said.read().strip().splitlines()
    return lines[-1] if lines else "it said nothing"
