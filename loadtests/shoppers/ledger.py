"""
What was seen, counted: for every phase and request name how many answers, how good, and how long they took.

The rule: counts only, so that the ledgers of several processes add up to one, and an hour costs no more than a minute.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STEP = math.log(1.02)
"""A bucket is 2 % wide, which is how exact a quantile is; a promise of 100 ms is told from 102 ms."""

LEAST_MS = 0.05
"""Everything faster is one bucket; a request over loopback takes four times as long."""


class Histogram:
    """Milliseconds by bucket of 2 %."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts: Counter[int] = Counter(counts or {})

    def add(self, ms: float) -> None:
        """One more."""
        self._counts[max(0, math.ceil(math.log(max(ms, LEAST_MS) / LEAST_MS) / STEP))] += 1

    def merge(self, other: Histogram) -> None:
        """Everything of *other*, too."""
        self._counts.update(other._counts)

    def quantile(self, share: float) -> float:
        """The value, milliseconds, that *share* of all stay at or below, up to 2 % too high; NaN of none."""
        rank, seen = math.ceil(share * self.n), 0
        for bucket, n in sorted(self._counts.items()):
            seen += n
            if seen >= rank:
                return LEAST_MS * math.exp(bucket * STEP)
        return math.nan

    @property
    def n(self) -> int:
        return self._counts.total()

    def document(self) -> dict[str, int]:
        return {str(bucket): n for bucket, n in sorted(self._counts.items())}

    def __repr__(self) -> str:
        return f"<Histogram of {self.n}, p50 {self.quantile(0.5):.1f} ms, p99 {self.quantile(0.99):.1f} ms>"


@dataclass(slots=True)
class Row:
    """
    The answers to one request name in one phase.

    refused     503 with Retry-After: not admitted, which is an answer
    failed      no answer, or none that anybody can use; by what it was
    levels      `quality.level` of slates
    latency     of answers that were not refused, milliseconds since they were due
    """

    n: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)

    @property
    def n_admitted(self) -> int:
        return self.n - self.refused

    def merge(self, other: Row) -> None:
        """Everything of *other*, too."""
        self.n += other.n
        self.refused += other.refused
        self.failed.update(other.failed)
        self.levels.update(other.levels)
        self.latency.merge(other.latency)

    def document(self) -> dict[str, Any]:
        """As `Ledger.add` reads it."""
        return {
            "n": self.n,
            "refused": self.refused,
            "failed": dict(self.failed),
            "levels": dict(self.levels),
            "latency": self.latency.document(),
        }


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer; *failed* is empty when it was a good one, *level* for what is no slate."""

    latency_ms: float
    failed: str = ""
    level: str = ""
    is_refused: bool = False


class Ledger:
    """Rows by (phase, request name), and how late the load itself was in each phase."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], Row] = {}
        self.late: dict[int, Histogram] = {}

    def saw(self, phase: int, name: str, seen: Seen) -> None:
        """One answer to a request that was due in *phase*."""
        row = self.rows.setdefault((phase, name), Row())
        row.n += 1
        if seen.is_refused:
            row.refused += 1
            return
        row.latency.add(seen.latency_ms)
        if seen.failed:
            row.failed[seen.failed] += 1
        if seen.level:
            row.levels[seen.level] += 1

    def was_late(self, phase: int, ms: float) -> None:
        """A request left *ms* after it was due: the load's doing, not the system's."""
        self.late.setdefault(phase, Histogram()).add(ms)

    def phase(self, phase: int) -> dict[str, Row]:
        """Request name → row of one phase, by name."""
        return {name: self.rows[number, name] for number, name in sorted(self.rows) if number == phase}

    def document(self) -> dict[str, Any]:
        """What JSON carries, for `add`."""
        return {
            "rows": [[phase, name, row.document()] for (phase, name), row in sorted(self.rows.items())],
            "late": [[phase, one.document()] for phase, one in sorted(self.late.items())],
        }

    def add(self, document: Mapping[str, Any]) -> None:
        """Everything that another ledger's `document` holds, too."""
        for phase, name, one in document["rows"]:
            latency = Histogram({int(bucket): n for bucket, n in one["latency"].items()})
            other = Row(one["n"], one["refused"], Counter(one["failed"]), Counter(one["levels"]), latency)
            self.rows.setdefault((phase, name), Row()).merge(other)
        for phase, counts in document["late"]:
            late = Histogram({int(bucket): n for bucket, n in counts.items()})
            self.late.setdefault(phase, Histogram()).merge(late)

    def __repr__(self) -> str:
        return (
            f"<Ledger of {sum(row.n for row in self.rows.values())} answers in {len({p for p, _ in self.rows})} phases>"
        )
