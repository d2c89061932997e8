"""
The request, top to bottom.

`Pipeline.recommend` is the way of every slate: each line turns what is known into the next noun. Stages that
leave the process go through the guard and end as Kept or Lost; everything between them is pure. What one stage
loses the next ones do without, and the slate says so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.core import slate_cache
from orchestrator.core.deadline import Deadline
from orchestrator.core.filters import eligible, forbidden_keys
from orchestrator.core.fusion import fuse
from orchestrator.core.model import (
    Ask,
    Candidates,
    ItemFilter,
    Kept,
    Level,
    Loss,
    Lost,
    Mask,
    Placement,
    Query,
    Retrieved,
    Rung,
    Slate,
    SlateItem,
    StageList,
    UserContext,
)
from orchestrator.core.report import Report, keys_of
from orchestrator.core.selection import fill, ordered, select, slots
from orchestrator.guard import Guard
from orchestrator.ports import CandidateSource, Catalogue, FeatureReader, Reranker, SlateCache
from orchestrator.settings import Settings
from orchestrator.telemetry import Metrics, log, summarise

MAX_BACKGROUND = 50
"""Cache fills and refreshes at once; more are dropped and counted (resilience specification §1.7, write-back)."""


BACKSTOP_S = 0.004
"""Beyond the deadline, for timers that fire late: gRPC's overshoot (p90, measured; specification §1.1)."""


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the pipeline leans on; `bootstrap` builds the real ones, tests pass twins."""

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


class Pipeline:
    """Answers queries. One a process; safe for any number of concurrent requests on one event loop."""

    def __init__(self, settings: Settings, parts: Collaborators, made_by: str) -> None:
        """*made_by*: digest of the settings, for the names of cached slates."""
        self._settings = settings
        self._parts = parts
        self._made_by = made_by
        self._quotas = {source.name: source for source in settings.sources}
        self._weights: Mapping[str, float] = {source.name: source.weight for source in settings.sources}
        self._background: dict[str, asyncio.Task[None]] = {}
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
            # Every stage keeps to its slice, so this never fires; a stage that does not is a bug, and counted as one.
            async with asyncio.timeout(deadline.remaining(started) + BACKSTOP_S):
                slate = await self._answer(query, deadline, report, floor)
        except TimeoutError:
            self._parts.metrics.backstops.inc()
            slate = self._without_calls(query, report, Loss.DEADLINE)
        summarise(query, slate, self._parts.monotonic() - started, self._parts.metrics)
        return slate

    async def _answer(self, query: Query, deadline: Deadline, report: Report, floor: Rung) -> Slate:
        if floor >= Rung.POPULAR:
            return self._without_calls(query, report, Loss.SHED)
        slate = await self._look_up(query, deadline, report)
        if slate is not None:
            return slate
        if floor >= Rung.STALE:
            return self._without_calls(query, report, Loss.SHED)
        slate = await self._compute(query, deadline, report)
        self._remember(query, slate)
        return slate

    async def traced(
        self, query: Query, budget_s: float, *, queued_s: float = 0.0, floor: Rung = Rung.FULL
    ) -> tuple[Slate, list[StageList]]:
        """A slate computed past the cache, and the lists behind it: batch output and explanations."""
        report = Report(rung=self.rung)
        if floor >= Rung.STALE:
            return self._without_calls(query, report, Loss.SHED), report.lists
        deadline = Deadline.after(self._parts.monotonic(), max(0.0, budget_s - queued_s), 0.0)
        return await self._compute(query, deadline, report), report.lists

    async def _compute(self, query: Query, deadline: Deadline, report: Report) -> Slate:
        """Stages 2 to 8 of ARCHITECTURE.md: hydrate, retrieve, fuse, filter, re-rank, select."""
        allowed = self._allowed(query)
        user = await self._hydrate_query(query, deadline, report)
        retrieved = await self._retrieve(query, user, allowed, deadline, report)
        fused = self._fuse(query, retrieved, report)
        facts = self._parts.catalogue.facts(fused.keys)
        may_be_shown, report.removed = eligible(query, user, fused, facts, allowed)
        ranked = await self._rerank(query, user, may_be_shown, deadline, report)
        slate = self._finish(query, user, ranked, allowed, report)
        self._exercise(query, user, may_be_shown, allowed, slate)
        return slate

    def _finish(
        self, query: Query, user: UserContext, ranked: Candidates, allowed: Mask | None, report: Report
    ) -> Slate:
        """Stage 8, select; and what is filled in where candidates run out."""
        selected, _reserve = select(ranked, self._parts.catalogue.facts(ranked.keys), query.count, query.diversity)
        items = self._filled(query, user, slots(selected), allowed)
        return report.slate(items, self._parts.wall())

    def _without_calls(self, query: Query, report: Report, loss: Loss) -> Slate:
        """The last rung: what is popular here, or the caller's own list as it came. Asks nobody and never fails."""
        for source in self._parts.sources:
            report.source(source.name, Lost(loss))
        if query.subject is not None:
            report.lost("user", loss)
        features = self._parts.features
        nobody = UserContext.cold(features.n_numeric, features.n_categorical)
        allowed = self._allowed(query)
        listed = self._fuse(query, {}, report)
        facts = self._parts.catalogue.facts(listed.keys)
        may_be_shown, report.removed = eligible(query, nobody, listed, facts, allowed)
        return self._finish(query, nobody, may_be_shown, allowed, report)

    # Stage 1: look up.

    async def _look_up(self, query: Query, deadline: Deadline, report: Report) -> Slate | None:
        if not self._settings.slate_cache.enabled or query.subject is None or query.explain:
            return None
        subject, field = query.subject, slate_cache.field_name(query, self._made_by)
        outcome = await self._parts.guard.call(
            "slate_cache", self._settings.stages.cache, deadline, lambda s, _: self._parts.slates.get(subject, field, s)
        )
        report.stage("look_up", outcome.took_s)
        match outcome:
            case Lost(loss=loss):
                report.lost("cache", loss)
                decision: object = slate_cache.Compute()
            case Kept(value=entry):
                decision = slate_cache.decide(entry, self._parts.wall())
        self._parts.metrics.slate_cache.labels(type(decision).__name__).inc()
        match decision:
            case slate_cache.Serve(slate):
                return self._as_cached(query, slate, Level.FULL, report)
            case slate_cache.ServeAndRefresh(slate):
                self._refresh_later(query)
                return self._as_cached(query, slate, Level.STALE, report)
            case _:
                return None

    def _as_cached(self, query: Query, slate: Slate, level: Level, report: Report) -> Slate | None:
        """
        *slate* as it may be served now: what sold out since is gone, what may be shown by now fills it up, and it says
        that it was remembered. None when it has to be made anew.
        """
        in_stock = self._parts.catalogue.facts(keys_of(slate.items)).in_stock
        items = tuple(item for item, there in zip(slate.items, in_stock, strict=True) if there or query.only_keys)
        if len(items) < query.count and not query.only_keys:
            kept, items = items, self._filled(query, None, items, self._allowed(query))
            # What the shopper has seen is only known once it is read, so the gap cannot be filled from here.
            if query.exclude_seen and len(items) > len(kept):
                return None
        sources = tuple(replace(source, status="cached", took_ms=0.0) for source in slate.sources)
        stages = tuple(report.stages_ms.items())
        return replace(slate, items=items, level=level, sources=sources, stages_ms=stages, from_cache=True)

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
        self, query: Query, user: UserContext, allowed: Mask | None, deadline: Deadline, report: Report
    ) -> dict[str, Retrieved]:
        """Every source at once, inside one slice of the deadline; a lost one leaves the others their time."""
        started = self._parts.monotonic()
        exclude, within = forbidden_keys(query, user), self._within(query, allowed)

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

    def _within(self, query: Query, allowed: Mask | None) -> np.ndarray | None:
        """Keys the sources may propose, when they are few enough to travel; None: they search everything."""
        if query.only_keys:
            return np.unique(np.asarray(query.only_keys, np.int32))
        if allowed is None or allowed.sum() > self._settings.filters.within_share * len(allowed):
            return None
        # An empty row would mean "everything" on the wire; nobody has key -1, so this one means "nothing".
        return np.flatnonzero(allowed).astype(np.int32) if allowed.any() else np.asarray([-1], np.int32)

    # Stages 4 to 6: fuse, hydrate candidates and filter are pure; what they need is found here.

    def _fuse(self, query: Query, retrieved: Mapping[str, Retrieved], report: Report) -> Candidates:
        names = [source.name for source in self._parts.sources]
        settings = self._settings.fusion
        fused = fuse(retrieved, names, self._weights, settings.method, settings.k)
        if query.only_keys:
            fused = _with_all(fused, query.only_keys)
        report.lists.append(StageList("fused", fused.keys, fused.scores))
        return fused

    def _allowed(self, query: Query) -> Mask | None:
        """(catalogue size,) what the caller's filter and the page's category allow; None: everything."""
        wanted = [] if query.filter.is_empty else [query.filter]
        if query.placement is Placement.CATEGORY and query.category is not None:
            wanted.append(ItemFilter(categories=(query.category,)))
        masks = [self._parts.catalogue.allowed(one) for one in wanted]
        return np.logical_and.reduce(masks) if masks else None

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
        head = candidates.take(np.arange(min(limit, len(candidates))))
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
                scores = np.concatenate([reranked.scores.astype(np.float64), candidates.scores[len(head) :]])
                return ordered(candidates.scored(scores), len(head))
            case Lost():
                return candidates

    # Stage 8: what selection cannot find itself.

    def _filled(
        self, query: Query, user: UserContext | None, items: tuple[SlateItem, ...], allowed: Mask | None
    ) -> tuple[SlateItem, ...]:
        """*items* and popular ones behind them; a ranking is complete as it is."""
        if query.only_keys or len(items) >= query.count:
            return items
        popular = self._parts.catalogue.popular
        if allowed is not None:
            popular = popular[allowed[popular]]
        nobody = UserContext.cold(0, 0)
        return fill(items, popular, forbidden_keys(query, user or nobody), query.count)

    # Stage 9: after the answer.

    def _remember(self, query: Query, slate: Slate) -> None:
        subject = query.subject
        if not self._settings.slate_cache.enabled or subject is None or query.explain:
            return
        if not slate_cache.may_remember(slate):
            return
        settings = self._settings.slate_cache
        entry = slate_cache.remember(slate, self._parts.wall(), settings.fresh_s, settings.stale_s, self._parts.rng)
        field = slate_cache.field_name(query, self._made_by)

        async def put() -> None:
            await self._parts.slates.put(subject, field, entry)

        self._later(f"put {subject} {field}", "cache_fill", put)

    def _refresh_later(self, query: Query) -> None:
        async def refresh() -> None:
            slate = await self._compute(query, self._deadline(self._parts.monotonic()), Report())
            self._remember(query, slate)

        name = f"refresh {query.subject} {slate_cache.field_name(query, self._made_by)}"
        self._later(name, "cache_refresh", refresh)

    def _exercise(
        self, query: Query, user: UserContext, candidates: Candidates, allowed: Mask | None, slate: Slate
    ) -> None:
        """
        Walk the last rungs for a share of the healthy requests, behind the answer, and compare.

        A fallback that is rarely used is where the bugs live: this is what keeps it in use.
        """
        share = self._settings.ladder.exercise_share
        if slate.losses or self.rung > Rung.FULL or not share or self._parts.rng.random() >= share:
            return

        async def walk() -> None:
            lower = {
                Rung.NO_RERANK: self._finish(query, user, candidates, allowed, Report()),
                Rung.POPULAR: self._without_calls(query, Report(), Loss.SHED),
            }
            for rung, fallback in lower.items():
                name = rung.name.lower()
                if len(fallback.items) < len(slate.items):
                    self._parts.metrics.fallback_failures.labels(name).inc()
                    log.error("fallback_short", rung=name, items=len(fallback.items), instead_of=len(slate.items))
                same = np.isin(keys_of(slate.items), keys_of(fallback.items))
                self._parts.metrics.fallback_overlap.labels(name).observe(float(same.mean()) if len(same) else 1.0)

        self._later(f"exercise {query.recommendation_id}", "exercise", walk)

    def _later(self, name: str, effect: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work* behind the answer: once for each name at a time, bounded, its failure counted."""
        if name in self._background:
            return
        if len(self._background) >= MAX_BACKGROUND:
            self._parts.metrics.side_effect_failures.labels(effect).inc()
            return

        async def run() -> None:
            try:
                await work()
            except Exception as error:
                self._parts.metrics.side_effect_failures.labels(effect).inc()
                log.warning("side_effect_failed", effect=effect, error=repr(error))

        task = asyncio.create_task(run())
        self._background[name] = task
        task.add_done_callback(lambda _: self._background.pop(name, None))

    async def drain(self) -> None:
        """Wait for work behind answers already given; called at shutdown."""
        while self._background:
            await asyncio.wait(list(self._background.values()))

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
