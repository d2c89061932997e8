"""
Where the ladder's controller meets the running system: once a second, facts in, rung out.

Only the first rungs are decided here, before anything is lost: leave out what is optional while there is trouble. The
lower ones follow from what a request really lost (core/report.py) or from admission at the edge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from orchestrator.core.breaker import State
from orchestrator.core.dependency import Dependency
from orchestrator.core.ladder import Health, Ladder
from orchestrator.core.model import Rung
from orchestrator.guard import Guard
from orchestrator.pipeline import Pipeline
from orchestrator.settings import Settings
from orchestrator.telemetry import Metrics, log

EVERY_S = 1.0
"""Borrowed: the controller of the specification (§1.8) counts seconds."""


class Degradation:
    """
    Observes guard and event loop, and tells pipeline and guard on which rung to stand.

    Args:
        lag_s: the event loop's lag now, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        guard: Guard,
        metrics: Metrics,
        now: Callable[[], float],
        lag_s: Callable[[], float],
    ) -> None:
        self._pipeline = pipeline
        self._guard = guard
        self._metrics = metrics
        self._now = now
        self._lag_s = lag_s
        self._reranker = settings.reranker.name
        self._ladder = Ladder()

    def observe(self) -> Rung:
        """Take one look and act on it."""
        now = self._now()
        before = self._ladder.rung
        self._ladder.observe(now, self.health(now))
        after = self._ladder.rung
        self._pipeline.rung = after
        self._guard.is_lean = after >= Rung.LEAN
        self._metrics.ladder_rung.set(int(after))
        if after is not before:
            log.warning("ladder", before=before.name.lower(), after=after.name.lower(), health=repr(self.health(now)))
        self._publish(now)
        return after

    def health(self, now: float) -> Health:
        """What the controller is told."""
        known = self._guard.dependencies
        reranker = known.get(self._reranker)
        p95_s = reranker.latencies.percentile(now, 0.95) if reranker is not None else None
        return Health(
            limiter_share=max((one.limiter.share for one in known.values()), default=0.0),
            lag_s=self._lag_s(),
            rerank_p95_share=p95_s / reranker.policy.cap_s if reranker is not None and p95_s is not None else 0.0,
            features_missing=_lost_share(known.get("user"), now),
            rerank_open=reranker is not None and reranker.breaker.state_at(now) is State.OPEN,
        )

    async def keep_observing(self) -> None:
        """`observe` once a second, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.observe()

    def _publish(self, now: float) -> None:
        for name, one in self._guard.dependencies.items():
            self._metrics.limit.labels(name).set(one.limiter.limit)
            self._metrics.in_flight.labels(name).set(one.limiter.in_flight)
            self._metrics.breaker_open.labels(name).set(one.breaker.state_at(now) is not State.CLOSED)
            self._metrics.replicas_ejected.labels(name).set(len(one.replicas.ejected(now)))


def _lost_share(dependency: Dependency | None, now: float) -> float:
    """Share of the calls of the last seconds that failed; 1 while nobody is even asked."""
    if dependency is None:
        return 0.0
    if dependency.breaker.state_at(now) is State.OPEN:
        return 1.0
    counts = dependency.breaker.counts(now)
    return counts.failures / counts.calls if counts.calls else 0.0
