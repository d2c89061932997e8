"""
The gate: whether what was just trained may serve instead of the champion. Figures in, verdict with reasons out.

The rule: everything that decides is in this file, and it has no clock, no files and no models: the caller brings the
figures (admission.py). What is not known is never a reason to refuse; it is noted, so that nobody takes silence for a
check that was passed. Without a champion everything is admitted, because a shop that serves nothing cannot get worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """
    When a candidate is refused.

    spread          standard deviation of one query's ndcg@10. Measured on Online Retail: .17 in discovery, .27 in
                    re-buy
    drift_share     what a held-out figure may fall because its weeks are others. Measured: on Online Retail the slate
                    is 14 % lower in re-buy, and 23 % in discovery, in one window of four weeks than in the next
    noise           standard errors a mean may be off by chance: 95 % of the time within two
    least_queries   below this a comparison says nothing
    budget_share    part of a stage's cap a model may take, in the median of single queries. Judged: the slowest of a
                    hundred take two to three times the median, and the wire wants its part
    coverage_share  part of the champion's coverage a candidate must reach. Judged: half is no accident of a sample
    """

    spread: float = 0.27
    drift_share: float = 0.2
    noise: float = 2.0
    least_queries: int = 50
    budget_share: float = 0.5
    coverage_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Paired:
    """
    The candidate's mean gain on the champion in one task, query by query, with an interval; those of all tasks hold
    together 95 % of the time.
    """

    task: str
    gain: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """ndcg@10 of shoppers the re-ranker did not learn from, in its order and in the fused order it was given."""

    ndcg: float
    fused: float | None
    queries: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Median milliseconds of a single query, and the cap of the stage that asks."""

    model: str
    median_ms: float
    cap_ms: float


@dataclass(frozen=True, slots=True)
class Variety:
    """Distinct items in the first twenty of the same shoppers: the candidate's, and the champion's if there is one."""

    model: str
    candidate: int
    champion: int | None
    shoppers: int


@dataclass(frozen=True, slots=True)
class Figures:
    """
    All that is known of a candidate.

    data_faults  what validation found, in words; empty: nothing
    candidate    None: it was not asked for
    paired       None: both were not judged on one window; empty: both have the same recipe
    """

    has_champion: bool
    data_faults: tuple[str, ...] = ()
    candidate: HeldOut | None = None
    champion: HeldOut | None = None
    paired: tuple[Paired, ...] | None = None
    speeds: tuple[Speed, ...] = ()
    varieties: tuple[Variety, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a candidate is refused: which check, and what was found against what was expected."""

    check: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Admitted when there is no reason against it. *notes* are what was found or could not be checked."""

    reasons: tuple[Reason, ...]
    notes: tuple[str, ...] = ()

    @property
    def admits(self) -> bool:
        return not self.reasons

    def lines(self) -> list[str]:
        """The verdict in words, a line each."""
        return [*(f"{reason.check}: {reason.message}" for reason in self.reasons), *(f"note: {n}" for n in self.notes)]


def decide(figures: Figures, limits: Limits | None = None) -> Verdict:
    """Every reason against *figures*, not only the first: whoever mends one wants to know the others."""
    used = limits or Limits()
    reasons = [
        *(Reason("data", fault) for fault in figures.data_faults),
        *_quality(figures, used),
        *_speed(figures.speeds, used),
        *_variety(figures.varieties, used),
    ]
    notes = _notes(figures, used)
    if figures.has_champion:
        return Verdict(tuple(reasons), tuple(notes))
    return Verdict((), (*(f"{r.check}: {r.message} (admitted: nothing serves yet)" for r in reasons), *notes))


def _quality(figures: Figures, limits: Limits) -> list[Reason]:
    found = []
    for one in figures.paired or ():
        if one.queries >= limits.least_queries and one.high < 0:
            found.append(
                Reason(
                    "quality",
                    f"{one.task}: ndcg@10 {one.gain:+.3f} against the champion on the same {one.queries:,} queries "
                    f"(95 %: {one.low:+.3f} … {one.high:+.3f}); expected an interval that reaches 0",
                )
            )
    mine, theirs = figures.candidate, figures.champion
    if mine is None or mine.queries < limits.least_queries:
        return found
    if mine.fused is not None:
        allowed = _noise(limits, mine.queries)
        if mine.ndcg < mine.fused - allowed:
            found.append(
                Reason(
                    "quality",
                    f"re-ranking makes held-out lists worse: ndcg@10 {mine.ndcg:.3f} against {mine.fused:.3f} of the "
                    f"fused order; expected at most {allowed:.3f} less",
                )
            )
    # Query by query says more, and two windows may differ for reasons of their own.
    if not figures.paired and theirs is not None and theirs.queries >= limits.least_queries:
        allowed = _noise(limits, mine.queries, theirs.queries) + limits.drift_share * theirs.ndcg
        if mine.ndcg < theirs.ndcg - allowed:
            found.append(
                Reason(
                    "quality",
                    f"held-out ndcg@10 fell from {theirs.ndcg:.3f} to {mine.ndcg:.3f}; expected at most {allowed:.3f} "
                    "less, for noise and other weeks",
                )
            )
    return found


def _speed(speeds: Sequence[Speed], limits: Limits) -> list[Reason]:
    return [
        Reason(
            "speed",
            f"{one.model} takes {one.median_ms:.1f} ms a query; expected at most "
            f"{limits.budget_share * one.cap_ms:.1f}, {limits.budget_share:.0%} of its stage's cap",
        )
        for one in speeds
        if one.median_ms > limits.budget_share * one.cap_ms
    ]


def _variety(varieties: Sequence[Variety], limits: Limits) -> list[Reason]:
    return [
        Reason(
            "variety",
            f"{one.model} shows {one.shoppers:,} shoppers {one.candidate:,} different items, the champion "
            f"{one.champion:,}; expected at least {limits.coverage_share:.0%} of that",
        )
        for one in varieties
        if one.champion is not None and one.candidate < limits.coverage_share * one.champion
    ]


def _notes(figures: Figures, limits: Limits) -> list[str]:
    if not figures.has_champion:
        return []
    notes = []
    if figures.paired is None:
        notes.append(
            "not compared with the champion query by query: the recipe changed, and both have to be judged on one "
            "window; `tutti evaluate` before and after the change does that"
        )
    notes += [
        f"{one.task}: {one.gain:+.3f} against the champion ({one.low:+.3f} … {one.high:+.3f})"
        + ("" if one.queries >= limits.least_queries else f", on {one.queries} queries only: says nothing")
        for one in figures.paired or ()
    ]
    if figures.paired == ():
        notes.append("the champion was made by the same recipe: only the data differs")
    if figures.candidate is not None and figures.candidate.queries < limits.least_queries:
        notes.append("too few held-out queries to judge the re-ranker by what it did not learn from")
    return notes


def _noise(limits: Limits, *queries: int) -> float:
    """How far a mean, or the difference of two, may be off by chance."""
    return limits.noise * limits.spread * math.sqrt(sum(1 / n for n in queries))
