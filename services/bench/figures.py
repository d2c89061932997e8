"""
From what was counted to the rows of the table: rates, percentiles, CPU by request.

Pure. The rule: rounds are pooled before anything is divided, so that a row is one measurement and not a mean of means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FULL = "full"

PERCENTILES = (50.0, 99.0, 99.9)

NEARLY_ALL = 0.99
"""
Share of full slates from which a row is work of one kind. Judged: with less, popular slates, which cost a hundredth,
change the cost of a request by more than a percent.
"""


@dataclass(frozen=True, slots=True)
class Round:
    """
    What one stretch of load gave.

    seconds       wall clock it lasted; requests  answered with 200 in it
    latencies_us  (requests,) microseconds, in no order
    failures      what became of the others → how many: a status, `disconnected`, `unanswered`, `empty`
    levels        `quality.level` → slates (a page has several)
    remembered    slates that came from the cache
    cpu_s         process → CPU seconds meanwhile; client_cpu_s  of the load itself
    bystanders_s  CPU seconds of orchestrators that were not asked
    """

    seconds: float
    latencies_us: Sequence[int]
    failures: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    remembered: int = 0
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    client_cpu_s: float = 0.0
    bystanders_s: float = 0.0

    @property
    def requests(self) -> int:
        return len(self.latencies_us)


@dataclass(frozen=True, slots=True)
class Row:
    """
    One cell: a kind at so many in flight, or at a rate.

    full_share        of the slates: work of the kind that is claimed
    remembered_share  of the slates
    cpu_ms            process → milliseconds of CPU for each request; client_ms  the load's own
    bare_ms           the bare arithmetic of one request; None where there is none
    """

    kind: str
    concurrency: int | None
    requests: int
    seconds: float
    per_s: float
    latency_ms: Mapping[str, float]
    full_share: float
    levels: Mapping[str, int]
    remembered_share: float
    failures: Mapping[str, int]
    cpu_ms: Mapping[str, float]
    client_ms: float
    bystanders_ms: float
    bare_ms: float | None = None

    @property
    def total_ms(self) -> float:
        """CPU of every process of the system for one request."""
        return sum(self.cpu_ms.values())

    @property
    def ratio(self) -> float | None:
        """CPU of the system over that of the bare arithmetic."""
        return self.total_ms / self.bare_ms if self.bare_ms else None

    @property
    def per_core_s(self) -> float:
        """Requests a second that one core would answer, were it kept busy with them alone."""
        return 1000 / self.total_ms if self.total_ms else math.nan

    @property
    def full_per_s(self) -> float:
        """Full slates a second, a page counted as one."""
        return self.per_s * self.full_share

    @property
    def is_one_work(self) -> bool:
        """Whether nearly all slates were full and nothing failed, so that the figures are of what they are called."""
        return self.full_share >= NEARLY_ALL and not self.failures

    def to_json(self) -> dict[str, Any]:
        """Every figure, under the names of the fields."""
        return {
            "kind": self.kind,
            "concurrency": self.concurrency,
            "requests": self.requests,
            "seconds": self.seconds,
            "per_s": self.per_s,
            "full_per_s": self.full_per_s,
            "per_core_s": self.per_core_s,
            "latency_ms": dict(self.latency_ms),
            "full_share": self.full_share,
            "levels": dict(self.levels),
            "remembered_share": self.remembered_share,
            "failures": dict(self.failures),
            "cpu_ms": dict(self.cpu_ms),
            "cpu_total_ms": self.total_ms,
            "client_cpu_ms": self.client_ms,
            "bystanders_cpu_ms": self.bystanders_ms,
            "bare_ms": self.bare_ms,
            "ratio": self.ratio,
            "is_one_work": self.is_one_work,
        }


def row(kind: str, concurrency: int | None, rounds: Sequence[Round], bare_ms: float | None = None) -> Row:
    """The row of *rounds* of the same load, pooled; figures a request are NaN where none was answered."""
    latencies = sorted(us for one in rounds for us in one.latencies_us)
    requests, seconds = len(latencies), sum(one.seconds for one in rounds)
    levels: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    cpu: Counter[str] = Counter()
    for one in rounds:
        levels.update(one.levels)
        failures.update({what: n for what, n in one.failures.items() if n})
        cpu.update(one.cpu_s)
    slates = sum(levels.values())

    def a_request_ms(seconds_of_cpu: float) -> float:
        return 1000 * seconds_of_cpu / requests if requests else math.nan

    return Row(
        kind,
        concurrency,
        requests,
        seconds,
        requests / seconds if seconds else 0.0,
        {f"p{share:g}": percentile(latencies, share) / 1000 for share in PERCENTILES},
        levels[FULL] / slates if slates else 0.0,
        dict(levels),
        sum(one.remembered for one in rounds) / slates if slates else 0.0,
        dict(failures),
        {name: a_request_ms(spent) for name, spent in cpu.items()},
        a_request_ms(sum(one.client_cpu_s for one in rounds)),
        a_request_ms(sum(one.bystanders_s for one in rounds)),
        bare_ms,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """
    The nearest-rank percentile: the smallest value that *share* percent of *ordered*, rising, do not exceed.

    No interpolation: it is a latency that somebody had. NaN for nothing.
    """
    if not ordered:
        return math.nan
    # Rounded first: 99.9 / 100 × 1000 is 999.0000000000001, which would be the next rank.
    rank = math.ceil(round(share / 100 * len(ordered), 9))
    return float(ordered[max(rank, 1) - 1])


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    Coalescing on and off at the same load, in alternating rounds.

    throughput  full slates a second, on over off; cpu and p50: on over off
    """

    concurrency: int
    on: Row
    off: Row

    @property
    def throughput(self) -> float:
        return _over(self.on.full_per_s, self.off.full_per_s)

    @property
    def cpu(self) -> float:
        return _over(self.on.total_ms, self.off.total_ms)

    @property
    def p50(self) -> float:
        return _over(self.on.latency_ms["p50"], self.off.latency_ms["p50"])

    def to_json(self) -> dict[str, Any]:
        """Both rows and their ratios."""
        return {
            "concurrency": self.concurrency,
            "on": self.on.to_json(),
            "off": self.off.to_json(),
            "throughput": self.throughput,
            "cpu": self.cpu,
            "p50": self.p50,
        }


def _over(on: float, off: float) -> float:
    return on / off if off else math.nan
