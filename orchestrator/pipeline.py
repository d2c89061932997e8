"""
The request, top to bottom.

`Pipeline.recommend` is the way of every slate: each line turns what is known into the next noun. Stages that
leave the process go through the guard and end as Kept or Lost; everything between them is pure. What one stage
loses the next ones do without, and the slate says so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from orchestrator.arrangement import Arrangement, Terms
from orchestrator.backstop import Backstop
from orchestrator.core import slate_cache
from orchestrator.core.deadline import Deadline
from orchestrator.core.filters import eligible, forbidden_keys
from orchestrator.core.fusion import fuse
from orchestrator.core.limiter import LimiterPolicy
from orchestrator.core.model import (
    Ask,
    Asked,
    Candidates,
    Kept,
    Loss,
    Lost,
    Mask,
    Query,
    Retrieved,
    Rung,
    Slate,
    StageList,
    UserContext,
)
from orchestrator.core.report import Report, keys_of
from orchestrator.core.rules import NO_RULES, InForce, Rulebook
from orchestrator.core.selection import ordered
from orchestrator.guard import Guard
from orchestrator.ports import CandidateSource, Catalogue, FeatureReader, Reranker, SlateCache, SlateLog
from orchestrator.remembered import Remembered
from orchestrator.settings import Settings
from orchestrator.telemetry import Metrics, log, log_shown, summarise

MAX_EXERCISES = 4
"""Walks down the ladder at once. Judged: each is half a millisecond of CPU that no shopper waits for."""

BACKSTOP_S = 0.004
"""Beyond the deadline, for timers that fire late: gRPC's overshoot (p90, measured; specification §1.1)."""


@dataclass(frozen=True, slots=True)
class Collaborators:
    """
    What the pipeline leans on; `bootstrap` builds the real ones, tests pass twins.

    rulebook: the shop's rules as they are at this moment.
    slate_log: None where nothing is logged.
    """

    sources: Sequence[CandidateSource]
    reranker: Reranker
    features: FeatureReader
    slates: SlateCache
    catalogue: Catalogue
    guard: Guard
    metrics: Metrics
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    rng: random.Random
    rulebook: Callable[[], Rulebook] = lambda: NO_RULES
    slate_log: SlateLog | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """
    What the models made of one query, before anything is selected.

    may_be_shown  candidates in the fused order, filtered
    ranked        the same in their last order
    """

    user: UserContext
    terms: Terms
    may_be_shown: Candidates
    ranked: Candidates


class Pipeline:
    """Answers queries. One a process; safe for any number of concurrent requests on one event loop."""

    def __init__(self, settings: Settings, parts: Collaborators, made_by: str) -> None:
        """*made_by*: digest of the settings, for the names of cached slates."""
        self._settings = settings
        self._parts = parts
        self._quotas = {source.name: source for source in settings.sources}
        self._weights: Mapping[str, float] = {source.name: source.weight for source in settings.sources}
        self._arrangement = Arrangement(settings, parts.catalogue, parts.rulebook, parts.wall, parts.rng)
        self._remembered = Remembered(
            settings,
            slates=parts.slates,
            guard=parts.guard,
            metrics=parts.metrics,
            monotonic=parts.monotonic,
            wall=parts.wall,
            rng=parts.rng,
            made_by=made_by,
            still_shown=self._arrangement.still_shown,
        )
        cap_s = settings.stages.user.cap_ms / 1000
        parts.guard.dependency("user", cap_s, limiter=LimiterPolicy.of_reads(cap_s))
        self._exercises: set[asyncio.Task[None]] = set()
        self.rung = Rung.FULL
        """Where the ladder's controller stands; whoever observes it sets this (orchestrator/degradation.py)."""

    async def recommend(
        self, query: Query, budget_s: float | None = None, *, queued_s: float = 0.0, floor: Rung = Rung.FULL
    ) -> Slate:
        """
        The slate for *query*: never an error for a dependency's sake, never later than the budget.

        Args:
            budget_s: may only lower the budget of the settings.
            queued_s: what of it was gone before the request reached us.
            floor: the best rung that admission grants. STALE: what is remembered, else popular; POPULAR: no call.
        """
        started = self._parts.monotonic()
        deadline = self._deadline(started, budget_s, queued_s)
        report = Report(rung=self.rung)
        try:
            slate = await self._answer(query, deadline, report, floor)
        except TimeoutError:
            self._parts.metrics.backstops.inc()
            slate = self._without_calls(query, report, Loss.DEADLINE)
        slate = self._shown(query, slate)
        if self._parts.slate_log is not None:
            self._parts.slate_log.served(query, slate)
        summarise(query, slate, self._parts.monotonic() - started, self._parts.metrics)
        return slate

    def _shown(self, query: Query, slate: Slate) -> Slate:
        """What leaves the process: where exploration is on, chance has the last word, and it is written down."""
        share = self._settings.exploration.share
        if not share:
            return slate
        slate = self._arrangement.explored(query, slate)
        log_shown(query, slate, share, self._parts.catalogue.id_of)
        return slate

    async def _answer(self, query: Query, deadline: Deadline, report: Report, floor: Rung) -> Slate:
        """What is remembered, else made once for all who ask now; as far down the ladder as *floor* says."""
        if floor >= Rung.POPULAR:
            return self._without_calls(query, report, Loss.SHED)
        rules = self._arrangement.in_force(query)
        make = partial(self._make, query, rules)
        recalled = await self._remembered.look_up(query, deadline, report, rules.digest)
        if floor >= Rung.STALE:
            return recalled.slate or slate_cache.or_fallback(
                self._without_calls(query, report, Loss.SHED), recalled.fallback
            )
        if recalled.slate is not None:
            if recalled.refresh:
                self._remembered.refresh_later(recalled, make)
            return recalled.slate
        # Every stage keeps to its slice, so this never fires; a stage that does not is a bug, and counted as one.
        # Around what is made only: the look-up is one call, and the guard's own timer is around that.
        with Backstop(deadline.remaining(self._parts.monotonic()) + BACKSTOP_S):
            slate = await self._remembered.make_once(recalled, deadline, report, make, self.rung)
        slate = slate or self._without_calls(query, report, Loss.DEADLINE)
        return slate_cache.or_fallback(slate, recalled.fallback)

    async def traced(
        self, query: Query, budget_s: float, *, queued_s: float = 0.0, floor: Rung = Rung.FULL
    ) -> tuple[Slate, list[StageList]]:
        """A slate computed past the cache, and the lists behind it: batch output and explanations."""
        report = Report(rung=self.rung)
        if floor >= Rung.STALE:
            return self._without_calls(query, report, Loss.SHED), report.lists
        deadline = Deadline.after(self._parts.monotonic(), max(0.0, budget_s - queued_s), 0.0)
        rules = self._arrangement.in_force(query)
        return await self._compute(query, rules, deadline, report), report.lists

    async def _make(self, query: Query, rules: InForce, deadline: Deadline, report: Report) -> Slate:
        """A slate to be served, now or again; what it was made of is on its way to the log."""
        return self._noted(query, await self._compute(query, rules, deadline, report), report)

    def _noted(self, query: Query, slate: Slate, report: Report) -> Slate:
        if report.asked is None or self._parts.slate_log is None:
            return slate
        slate = replace(slate, made_as=query.recommendation_id)
        self._parts.slate_log.made(query, report.asked, slate)
        return slate

    async def _compute(self, query: Query, rules: InForce, deadline: Deadline, report: Report) -> Slate:
        """Stages 2 to 8 of ARCHITECTURE.md: hydrate, retrieve, fuse, filter, re-rank, select."""
        report.rung = self.rung
        user = await self._hydrate_query(query, deadline, report)
        line = await self._line(query, user, rules, deadline, report)
        return self._selected(query, line, report)

    async def _line(self, query: Query, user: UserContext, rules: InForce, deadline: Deadline, report: Report) -> Line:
        """Stages 3 to 7: retrieve, fuse, hydrate candidates, filter, re-rank."""
        terms = self._arrangement.terms(query, user, rules)
        retrieved = await self._retrieve(query, user, terms, deadline, report)
        fused = self._fuse(query, retrieved, report)
        may_be_shown = self._filter(query, user, fused, terms, report)
        ranked = await self._rerank(query, user, may_be_shown, deadline, report)
        return Line(user, terms, may_be_shown, ranked)

    def _selected(self, query: Query, line: Line, report: Report) -> Slate:
        slate = self._finish(query, line.user, line.ranked, line.terms, report)
        self._exercise(query, line.user, line.may_be_shown, line.terms, slate)
        return slate

    def _finish(self, query: Query, user: UserContext, ranked: Candidates, terms: Terms, report: Report) -> Slate:
        """Stage 8, select: rules and diversity have their say, popular items fill where candidates run out."""
        selected = self._arrangement.select(query, user, ranked, terms)
        return report.slate(selected, self._parts.wall())

    def _without_calls(self, query: Query, report: Report, loss: Loss) -> Slate:
        """The last rung: what is popular here, or the caller's own list as it came. Asks nobody and never fails."""
        for source in self._parts.sources:
            report.source(source.name, Lost(loss))
        if query.subject is not None:
            report.lost("user", loss)
        features = self._parts.features
        nobody = UserContext.cold(features.n_numeric, features.n_categorical)
        terms = self._arrangement.terms(query, nobody, self._arrangement.in_force(query))
        listed = self._fuse(query, {}, report)
        may_be_shown = self._filter(query, nobody, listed, terms, report)
        return self._finish(query, nobody, may_be_shown, terms, report)

    # Stages 1 and 9, look up and remember, are in remembered.py; stage 8, select, is in arrangement.py.

    # Stage 2: hydrate the query.

    async def _hydrate_query(self, query: Query, deadline: Deadline, report: Report) -> UserContext:
        features = self._parts.features
        if query.subject is None:
            return UserContext.cold(features.n_numeric, features.n_categorical)
        outcome = await self._parts.guard.call(
            "user", self._settings.stages.user, deadline, lambda timeout_s, _: features.read(query, timeout_s)
        )
        report.stage("user", outcome.took_s)
        match outcome:
            case Kept(value=user):
                report.watermark = user.watermark
                return user
            case Lost(loss=loss):
                report.lost("user", loss)
                return UserContext.cold(features.n_numeric, features.n_categorical)

    # Stage 3: retrieve candidates.

    async def _retrieve(
        self, query: Query, user: UserContext, terms: Terms, deadline: Deadline, report: Report
    ) -> dict[str, Retrieved]:
        """Every source at once, inside one slice of the deadline; a lost one leaves the others their time."""
        started = self._parts.monotonic()
        exclude, within = forbidden_keys(query, user), self._within(query, terms.visible)

        async def ask(source: CandidateSource) -> Kept[Retrieved] | Lost:
            settings = self._quotas[source.name]
            # A ranking wants a score for every item it was handed, whatever the quota.
            wanted = Ask(max(settings.quota, len(query.only_keys)), exclude, within)
            return await self._parts.guard.call(
                source.name,
                self._settings.stages.retrieve,
                deadline,
                lambda timeout_s, replica: source.retrieve(query, user, wanted, timeout_s, replica),
                settings.share,
            )

        async with asyncio.TaskGroup() as group:
            tasks = {source.name: group.create_task(ask(source)) for source in self._parts.sources}
        retrieved: dict[str, Retrieved] = {}
        for name, task in tasks.items():
            outcome = task.result()
            report.source(name, outcome)
            if isinstance(outcome, Kept):
                retrieved[name] = outcome.value
        report.stage("retrieve", self._parts.monotonic() - started)
        return retrieved

    def _within(self, query: Query, visible: Mask | None) -> np.ndarray | None:
        """Keys the sources may propose, when they are few enough to travel; None: they search everything."""
        if query.only_keys:
            return np.unique(np.asarray(query.only_keys, np.int32))
        if visible is None or visible.sum() > self._settings.filters.within_share * len(visible):
            return None
        # An empty row would mean "everything" on the wire; nobody has key -1, so this one means "nothing".
        return np.flatnonzero(visible).astype(np.int32) if visible.any() else np.asarray([-1], np.int32)

    # Stages 4 to 6: fuse, hydrate candidates and filter are pure; what they need is found here.

    def _fuse(self, query: Query, retrieved: Mapping[str, Retrieved], report: Report) -> Candidates:
        names = [source.name for source in self._parts.sources]
        settings = self._settings.fusion
        fused = fuse(retrieved, names, self._weights, settings.method, settings.k)
        if query.only_keys:
            fused = _with_all(fused, query.only_keys)
        report.lists.append(StageList("fused", fused.keys, fused.scores))
        return fused

    def _filter(
        self, query: Query, user: UserContext, candidates: Candidates, terms: Terms, report: Report
    ) -> Candidates:
        facts = self._parts.catalogue.facts(candidates.keys)
        may_be_shown, report.removed = eligible(query, user, candidates, facts, terms.allowed, terms.rules.shown)
        return may_be_shown

    # Stage 7: re-rank.

    async def _rerank(
        self, query: Query, user: UserContext, candidates: Candidates, deadline: Deadline, report: Report
    ) -> Candidates:
        """The candidates in the re-ranker's order; in the fused order if it is lost or not asked."""
        placement = getattr(self._settings.placements, query.placement.value)
        if not len(candidates) or not (placement.rerank or query.only_keys):
            return candidates
        settings = self._settings.reranker
        wanted = settings.narrow_candidates if self.rung >= Rung.NARROW else settings.candidates
        limit = max(wanted, len(query.only_keys))
        head = candidates.head(limit)
        outcome = await self._parts.guard.call(
            settings.name,
            self._settings.stages.rerank,
            deadline,
            lambda timeout_s, replica: self._parts.reranker.rerank(query, user, head, timeout_s, replica),
        )
        report.stage("rerank", outcome.took_s)
        report.rerank(settings.name, outcome)
        match outcome:
            case Kept(value=reranked):
                report.asked = Asked(user, head, reranked)
                scores = np.concatenate([reranked.scores.astype(np.float64), candidates.scores[len(head) :]])
                return ordered(candidates.scored(scores), len(head))
            case Lost():
                return candidates

    # Behind the answer: the ladder is walked, so that it carries on the day it is needed.

    def _exercise(self, query: Query, user: UserContext, candidates: Candidates, terms: Terms, slate: Slate) -> None:
        """
        Walk the last rungs for a share of the healthy requests, behind the answer, and compare.

        A fallback that is rarely used is where the bugs live: this is what keeps it in use.
        """
        share = self._settings.ladder.exercise_share
        is_healthy = not slate.losses and self.rung is Rung.FULL and len(self._exercises) < MAX_EXERCISES
        if not is_healthy or self._parts.rng.random() >= share:
            return

        async def walk() -> None:
            lower = {
                Rung.NO_RERANK: self._finish(query, user, candidates, terms, Report()),
                Rung.POPULAR: self._without_calls(query, Report(), Loss.SHED),
            }
            for rung, fallback in lower.items():
                name = rung.name.lower()
                if len(fallback.items) < len(slate.items):
                    self._parts.metrics.fallback_failures.labels(name).inc()
                    log.error("fallback_short", rung=name, items=len(fallback.items), instead_of=len(slate.items))
                same = np.isin(keys_of(slate.items), keys_of(fallback.items))
                self._parts.metrics.fallback_overlap.labels(name).observe(float(same.mean()) if len(same) else 1.0)

        task = asyncio.create_task(walk())
        self._exercises.add(task)
        task.add_done_callback(self._exercises.discard)

    async def drain(self) -> None:
        """Wait for work behind answers already given; called at shutdown."""
        await self._remembered.drain()
        if self._exercises:
            await asyncio.wait(self._exercises)

    def _deadline(self, now: float, budget_s: float | None = None, queued_s: float = 0.0) -> Deadline:
        settings = self._settings.budget
        total_s = settings.total_ms / 1000
        # What waiting cost is off the budget like a lower budget, so that later stages' reserves shrink with it;
        # 0 is no time at all, not "as usual".
        left_s = max(0.0, min(total_s, total_s if budget_s is None else budget_s) - queued_s)
        return Deadline.after(now, left_s, settings.reply_ms / 1000, total_s)


def _with_all(candidates: Candidates, keys: Sequence[int]) -> Candidates:
    """*candidates*, and behind them, in the caller's order, those of *keys* that no source scored."""
    scored = set(candidates.keys.tolist())
    extra = np.asarray([key for key in dict.fromkeys(keys) if key not in scored], np.int32)
    n, s = len(extra), len(candidates.sources)
    floor = float(candidates.scores.min()) if len(candidates) else 0.0
    return Candidates(
        np.concatenate([candidates.keys, extra]),
        candidates.sources,
        np.concatenate([candidates.source_ranks, np.zeros((n, s), np.uint16)]),
        np.concatenate([candidates.source_scores, np.full((n, s), np.nan, np.float32)]),
        np.concatenate([candidates.scores, np.full(n, floor)]),
    )
