"""
Stages 1 and 9 of a request: what is remembered of a question, and what will be of its answer.

Decides nothing itself: `core.slate_cache` says what may be served, remembered and fallen back on; this file looks
up, shares a computation among those who ask the same at once, and makes stale slates anew behind the answer. Its
rule: whatever the cache does, a request is never later and never worse off than without it.

Who may compute: a request, which was admitted, and MAX_REFRESHES refreshes, which were not. So an empty cache (a
flush, a new model) makes only requests compute, as many as admission lets in and one for each question; and a night
after which every slate is stale makes MAX_REFRESHES compute at once, the others are refreshed by a later request.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextvars import Context
from dataclasses import replace
from typing import Any, NamedTuple

from orchestrator.adapters.single_flight import Grounded, SingleFlight
from orchestrator.core import slate_cache
from orchestrator.core.backoff import Backoff
from orchestrator.core.deadline import Deadline
from orchestrator.core.limiter import LimiterPolicy
from orchestrator.core.model import Kept, Level, Lost, Query, Rung, Slate
from orchestrator.core.report import Report
from orchestrator.core.values import value
from orchestrator.guard import Guard
from orchestrator.ports import DependencyError, SlateCache
from orchestrator.settings import Settings
from orchestrator.telemetry import Metrics, log

MAX_FILLS = 50
"""Slates being stored at once; more are dropped and counted (resilience specification §1.7, write-back)."""

MAX_REFRESHES = 8
"""Stale slates being made anew at once. Derived: at 20 ms and 1 to 3 ms of CPU each they are 400 a second at most and
about half a core, beside requests that admission does not count them among."""

MAX_FLIGHTS = 256
"""Shared computations at once. Derived: at 1,400 requests a second (measured with 64 in flight) and the 84 ms of the
slowest, 118 are on their way when everything hangs; twice that, so that it never binds before admission does."""

FLIGHT_GRACE_S = 0.05
"""A flight's stages end by their own timers within its budget; this much later it is ended by force: never, we hope."""

Make = Callable[[Deadline, Report], Awaitable[Slate]]
"""Stages 2 to 8 for one query."""

StillShown = Callable[[Query, Slate], Slate | None]
"""A remembered slate as it may be shown now, gaps filled; None when that cannot be told from here."""


class Key(NamedTuple):
    """
    Which slate of whom, as of which event.

    The watermark keeps a promise: who asks after their event was accepted must not get the answer that was begun
    before it, and the look-up reads it anyway.
    """

    subject: str
    field: str
    watermark: int


@value
class Recalled:
    """
    What the look-up brought.

    slate      the answer, if it was remembered
    refresh    it should be made anew behind the answer
    fallback   better than an answer that lost the shopper
    key        None: the answer is this request's alone, neither shared nor remembered
    """

    slate: Slate | None = None
    refresh: bool = False
    fallback: Slate | None = None
    key: Key | None = None
    entry: slate_cache.Entry | None = None


NOTHING = Recalled()


class Remembered:
    """The slate cache as the pipeline sees it. One a process; for one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        slates: SlateCache,
        guard: Guard,
        metrics: Metrics,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
        made_by: str,
        still_shown: StillShown,
    ) -> None:
        """*made_by*: digest of what makes a slate besides query and rules, for the names of cached slates."""
        self._stage, self._enabled = settings.stages.cache, settings.slate_cache.enabled
        cache = settings.slate_cache
        self._lifetimes = slate_cache.Lifetimes(cache.fresh_s, cache.stale_s, cache.kept_s, cache.popular_s)
        self._slates, self._guard, self._metrics = slates, guard, metrics
        cap_s = self._stage.cap_ms / 1000
        guard.dependency("slate_cache", cap_s, limiter=LimiterPolicy.of_reads(cap_s))
        self._monotonic, self._wall, self._rng = monotonic, wall, rng
        self._made_by, self._still_shown = made_by, still_shown
        # What a request has left after the slowest look-up: a budget that no request's own haste shortens.
        left_ms = settings.budget.total_ms - settings.budget.reply_ms - self._stage.cap_ms
        self._flight_s = max(left_ms, self._stage.reserve_after_ms) / 1000
        self._flights: SingleFlight[Slate] = SingleFlight(MAX_FLIGHTS, self._flight_s + FLIGHT_GRACE_S)
        self._backoff = Backoff(rng)
        self._fills: dict[Key, asyncio.Task[None]] = {}
        self._refreshes: dict[Key, asyncio.Task[None]] = {}

    # Stage 1: look up.

    async def look_up(self, query: Query, deadline: Deadline, report: Report, rules: str = "") -> Recalled:
        """
        What is remembered of *query*'s answer; a cache that does not answer is a loss and remembers nothing.

        rules: digest of the rules in force. What is looked up under it has to be made by the same, even when a window
            closes meanwhile.
        """
        if not self._enabled or query.subject is None or query.explain:
            return NOTHING
        subject, field = query.subject, slate_cache.field_name(query, self._made_by + rules)
        outcome = await self._guard.call(
            "slate_cache", self._stage, deadline, lambda s, _: self._slates.get(subject, field, s)
        )
        report.stage("look_up", outcome.took_s)
        match outcome:
            case Lost(loss=loss):
                report.lost("cache", loss)
                self._metrics.slate_cache.labels(slate_cache.Compute.__name__).inc()
                return NOTHING
            case Kept(value=found):
                return self._judged(query, found, Key(subject, field, found.watermark), report)

    def _judged(self, query: Query, found: slate_cache.Found, key: Key, report: Report) -> Recalled:
        decision = slate_cache.decide(found.entry, self._wall(), self._rng)
        self._metrics.slate_cache.labels(type(decision).__name__).inc()
        match decision:
            case slate_cache.Serve(slate):
                shown = self._as_cached(query, slate, slate.level, report)
                return Recalled(shown, key=key)
            case slate_cache.ServeAndRefresh(slate, is_stale):
                shown = self._as_cached(query, slate, Level.STALE if is_stale else slate.level, report)
                return Recalled(shown, refresh=shown is not None, key=key, entry=found.entry)
            case slate_cache.Compute(fallback):
                old = None if fallback is None else self._as_cached(query, fallback, Level.STALE, report)
                return Recalled(fallback=old, key=key)

    def _as_cached(self, query: Query, slate: Slate, level: Level, report: Report) -> Slate | None:
        """*slate* as it may be served now: what sold out since is gone, and it says that it was remembered."""
        shown = self._still_shown(query, slate)
        if shown is None:
            return None
        rung = Rung.STALE if level is Level.STALE else slate.rung
        return shown.recalled(level, rung, tuple(report.stages_ms.items()))

    # Between them: one computation for all who ask the same at once.

    async def make_once(
        self, recalled: Recalled, deadline: Deadline, report: Report, make: Make, manner: Hashable = None
    ) -> Slate | None:
        """
        The slate of *make*, shared with whoever asks the same now; remembered behind the answer.

        Args:
            manner: what else the slate depends on while it is made, such as the rung of the degradation ladder; only
                equals share.

        Returns:
            None when this request's time is over before the shared work's is. Whatever made it late, the caller has
            something better to say than an error.
        """
        now, key = self._monotonic(), recalled.key
        flight_deadline = Deadline(now + self._flight_s * deadline.share, deadline.share)
        flown = None
        # A request in a hurry gets more from its own short computation than from leaving a longer one half done.
        if key is not None and now < flight_deadline.at <= deadline.at:
            who = (key, deadline.share, manner)
            flown = self._flights.of(who, lambda: self._made(key, flight_deadline, Report(), make))
        if flown is None:
            self._metrics.flights.labels("alone").inc()
            return await (make(deadline, report) if key is None else self._made(key, deadline, report, make))
        flight, is_mine = flown
        self._metrics.flights.labels("led" if is_mine else "joined").inc()
        try:
            slate = await flight.wait(deadline.remaining(now))
        except (TimeoutError, Grounded):
            self._metrics.flights.labels("left").inc()
            return None
        return replace(slate, stages_ms=(*report.stages_ms.items(), *slate.stages_ms))

    async def _made(self, key: Key, deadline: Deadline, report: Report, make: Make) -> Slate:
        started = self._monotonic()
        slate = await make(deadline, report)
        entry = self._entry(slate, started)
        if entry is not None:
            self._fill_later(key, entry)
        return slate

    def keep(self, recalled: Recalled, slate: Slate, started: float) -> None:
        """Remember *slate*, which was made alone since *started*, behind the answer, as what *recalled* looked for."""
        self._metrics.flights.labels("alone").inc()
        if recalled.key is not None and (entry := self._entry(slate, started)) is not None:
            self._fill_later(recalled.key, entry)

    def _entry(self, slate: Slate, started: float) -> slate_cache.Entry | None:
        took_s = self._monotonic() - started
        return slate_cache.remember(slate, self._wall(), took_s, self._lifetimes, self._rng)

    # Stage 9: after the answer.

    def _fill_later(self, key: Key, entry: slate_cache.Entry) -> None:
        async def fill() -> None:
            try:
                await self._slates.put(key.subject, key.field, entry)
            except Exception as error:
                self._metrics.side_effect_failures.labels("cache_fill").inc()
                log.warning("side_effect_failed", effect="cache_fill", error=repr(error))

        if key in self._fills:
            return
        if len(self._fills) >= MAX_FILLS:
            self._metrics.side_effect_failures.labels("cache_fill").inc()
            return
        _behind(self._fills, key, fill())

    def refresh_later(self, recalled: Recalled, make: Make) -> None:
        """Make the slate that *recalled* served anew, unless that is under way, failed just now, or is too much."""
        key = recalled.key
        if key is None or key in self._refreshes:
            return
        if not self._backoff.may_try(key, self._monotonic()):
            self._metrics.refreshes.labels("paused").inc()
        elif len(self._refreshes) >= MAX_REFRESHES:
            self._metrics.refreshes.labels("dropped").inc()
        else:
            _behind(self._refreshes, key, self._refresh(key, recalled.entry, make))

    async def _refresh(self, key: Key, served: slate_cache.Entry | None, make: Make) -> None:
        try:
            outcome = await self._refreshed(key, served, make)
        except Exception as error:
            self._metrics.side_effect_failures.labels("cache_refresh").inc()
            outcome, reason = "failed", repr(error)
            is_bug = not isinstance(error, DependencyError | TimeoutError)
        else:
            reason, is_bug = outcome, False
        self._metrics.refreshes.labels(outcome).inc()
        if outcome not in ("failed", "degraded"):
            self._backoff.worked(key)
        elif self._backoff.failed(key, self._monotonic()) == 1:
            log.warning("refresh_failed", reason=reason, exc_info=is_bug)

    async def _refreshed(self, key: Key, served: slate_cache.Entry | None, make: Make) -> str:
        """How it ended: stored, elsewhere (another process does or did it), degraded or overtaken (lease lost)."""
        lease = await self._slates.lease(key.subject, key.field)
        if lease is None:
            return "elsewhere"
        outcome = "degraded"
        # Between our look-up and the lease another process may have stored a new slate, or an event come.
        if (await self._slates.get(key.subject, key.field, self._flight_s)).entry != served:
            outcome = "elsewhere"
        else:
            started = self._monotonic()
            entry = self._entry(await self._shared_refresh(key, make), started)
            if entry is not None:
                is_stored = await self._slates.put(key.subject, key.field, entry, lease)
                return "stored" if is_stored else "overtaken"
        await self._slates.release(key.subject, key.field, lease)
        return outcome

    async def _shared_refresh(self, key: Key, make: Make) -> Slate:
        deadline = Deadline(self._monotonic() + self._flight_s)

        async def work() -> Slate:
            return await make(deadline, Report())

        flown = self._flights.of((key, 1.0, None), work)
        return await (work() if flown is None else flown[0].wait(self._flight_s + 2 * FLIGHT_GRACE_S))

    async def drain(self) -> None:
        """Wait for everything behind answers already given; called at shutdown."""
        while len(self._flights) or self._fills or self._refreshes:
            await self._flights.drain()
            if behind := [*self._fills.values(), *self._refreshes.values()]:
                await asyncio.wait(behind)

    def __repr__(self) -> str:
        return f"<Remembered {self._flights!r}, {len(self._fills)} fills, {len(self._refreshes)} refreshes>"


def _behind(tasks: dict[Key, asyncio.Task[None]], key: Key, work: Coroutine[Any, Any, None]) -> None:
    """Run *work* on its own, under *key* in *tasks* until it ends; nothing of the request's context goes along."""
    task = tasks[key] = asyncio.create_task(work, context=Context())
    task.add_done_callback(lambda _: tasks.pop(key, None))
