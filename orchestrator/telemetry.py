"""
Logs and metrics: every metric name and label set of the orchestrator is in this file, and nowhere else.

Label values come from small closed sets (route, status class, stage, source, loss, level): never an id.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson
import prometheus_client
import structlog
from prometheus_client import CollectorRegistry

from orchestrator.core.model import RUNG_NAMES, Query, Slate

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)
"""The promise (0.1 s) and the cap of re-ranking (0.05) are edges, so that a share under them can be read exactly."""

LAG_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.07, 0.1, 0.25, 0.5, 1.0)
"""Every threshold of admission is an edge."""


class _Labelled:
    """Finds children by their labels' values at once; prometheus_client turns them to text under a lock first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._found: dict[tuple[Any, ...], Any] = {}
        super().__init__(*arguments, **options)
        # A child, or without labels: it has a value of its own.
        self._is_one = bool(self._labelvalues) or not self._labelnames  # type: ignore[attr-defined]

    def labels(self, *values: Any, **named: Any) -> Any:
        """The child with these values, in the order of the labels' names, or by name."""
        child = self._found.get(values) if not named else None
        if child is None:
            child = super().labels(*values, **named)  # type: ignore[misc]  # of whom it is mixed into
            if not named:
                self._found[values] = child
        return child


class Counter(_Labelled, prometheus_client.Counter):
    """A counter whose children are found quickly."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Count; of what cannot be counted, the library says why."""
        if amount < 0 or exemplar is not None or not self._is_one:
            super().inc(amount, exemplar)
        else:
            self._value.inc(amount)


class Gauge(_Labelled, prometheus_client.Gauge):
    """A gauge whose children are found quickly."""


class Histogram(_Labelled, prometheus_client.Histogram):
    """A histogram whose children are found quickly."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Put *amount* into its bucket: the first whose bound is not below it."""
        if exemplar is not None or not self._is_one:
            super().observe(amount, exemplar)
        else:
            self._sum.inc(amount)
            self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)


@dataclass(frozen=True, slots=True)
class Metrics:
    """One registry's metrics; tests make their own."""

    registry: CollectorRegistry
    requests: Counter
    request_seconds: Histogram
    requests_in_flight: Gauge
    stage_seconds: Histogram
    losses: Counter
    attempts: Counter
    batch_queries: Histogram
    breaker_changes: Counter
    slates: Counter
    limit: Gauge
    in_flight: Gauge
    breaker_open: Gauge
    replicas_ejected: Gauge
    ladder_rung: Gauge
    rungs: Counter
    backstops: Counter
    fallback_overlap: Histogram
    fallback_failures: Counter
    slate_cache: Counter
    flights: Counter
    refreshes: Counter
    rule_loads: Counter
    side_effect_failures: Counter
    events: Counter
    admitted: Counter
    shed: Counter
    arrivals_expired: Counter
    loop_lag_seconds: Histogram
    loop_stalls: Counter
    catalogue_changes: Counter
    catalogue_reads: Counter


def new_metrics() -> Metrics:
    """Fresh metrics on a registry of their own."""
    r = CollectorRegistry()
    return Metrics(
        registry=r,
        requests=Counter("tutti_requests", "HTTP requests answered.", ["route", "status_class"], registry=r),
        request_seconds=Histogram(
            "tutti_request_seconds", "Time to answer.", ["route"], buckets=LATENCY_BUCKETS_S, registry=r
        ),
        requests_in_flight=Gauge("tutti_requests_in_flight", "HTTP requests being answered.", registry=r),
        stage_seconds=Histogram(
            "tutti_stage_seconds", "Time one stage took.", ["stage"], buckets=LATENCY_BUCKETS_S, registry=r
        ),
        losses=Counter(
            "tutti_losses", "Contributions that are missing, by reason.", ["dependency", "loss"], registry=r
        ),
        attempts=Counter(
            "tutti_attempts", "Calls made, by why and how they ended.", ["dependency", "kind", "outcome"], registry=r
        ),
        batch_queries=Histogram(
            "tutti_batch_queries",
            "Queries one joined call carried.",
            ["dependency"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=r,
        ),
        breaker_changes=Counter(
            "tutti_breaker_changes", "Times a breaker came into a state.", ["dependency", "state"], registry=r
        ),
        slates=Counter("tutti_slates", "Slates answered.", ["placement", "level"], registry=r),
        limit=Gauge("tutti_limit", "Adaptive limit of calls in flight.", ["dependency"], registry=r),
        in_flight=Gauge("tutti_in_flight", "Calls in flight.", ["dependency"], registry=r),
        breaker_open=Gauge("tutti_breaker_open", "1 while a breaker is not closed.", ["dependency"], registry=r),
        replicas_ejected=Gauge("tutti_replicas_ejected", "Replicas not asked for now.", ["dependency"], registry=r),
        ladder_rung=Gauge("tutti_ladder_rung", "Rung of the ladder's controller, 0 is full.", registry=r),
        rungs=Counter("tutti_rungs", "Slates answered, by rung of the degradation ladder.", ["rung"], registry=r),
        backstops=Counter("tutti_backstops", "Requests ended by the last timer; objective zero.", registry=r),
        fallback_overlap=Histogram(
            "tutti_fallback_overlap",
            "Share of a full slate's items that a lower rung would have shown too.",
            ["rung"],
            buckets=(0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0),
            registry=r,
        ),
        fallback_failures=Counter(
            "tutti_fallback_failures", "Lower rungs that came up short; objective zero.", ["rung"], registry=r
        ),
        slate_cache=Counter("tutti_slate_cache", "What the slate cache said.", ["outcome"], registry=r),
        flights=Counter(
            "tutti_flights", "Slates that had to be made, by whether the work was shared.", ["role"], registry=r
        ),
        refreshes=Counter("tutti_refreshes", "Stale slates made anew behind answers.", ["outcome"], registry=r),
        rule_loads=Counter(
            "tutti_rule_loads", "Times the file of rules had changed: taken over or refused.", ["outcome"], registry=r
        ),
        side_effect_failures=Counter(
            "tutti_side_effect_failures", "Work after the answer that failed.", ["effect"], registry=r
        ),
        events=Counter("tutti_events", "Events received.", ["outcome"], registry=r),
        admitted=Counter(
            "tutti_admitted", "Calls for a slate that were let in, and how far.", ["priority", "rung"], registry=r
        ),
        shed=Counter("tutti_shed", "Calls turned away with 503 before they were read.", ["priority"], registry=r),
        arrivals_expired=Counter(
            "tutti_arrivals_expired",
            "Requests whose proxy's stamp left them no time: believed, or doubted because too many said so.",
            ["verdict"],
            registry=r,
        ),
        loop_lag_seconds=Histogram(
            "tutti_loop_lag_seconds", "Lateness of the event loop's heartbeat.", buckets=LAG_BUCKETS_S, registry=r
        ),
        loop_stalls=Counter("tutti_loop_stalls", "Times the event loop was held up for 50 ms or more.", registry=r),
        catalogue_changes=Counter("tutti_catalogue_changes", "Changes of items heard of.", registry=r),
        catalogue_reads=Counter(
            "tutti_catalogue_reads",
            "Times all changed items were read, and why: start, missed, forgotten.",
            ["why"],
            registry=r,
        ),
    )


metrics = new_metrics()
"""The process's own."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("orchestrator")


def configure_logging(level: str, form: str) -> None:
    """Structured lines on stdout: JSON for machines, text for people. Called once a process."""
    processors: list[structlog.typing.Processor]
    factory: Callable[..., structlog.typing.WrappedLogger]
    if form == "json":
        processors, factory = [JsonLine()], TurnLogger
    else:
        processors = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
        ]
        factory = structlog.PrintLoggerFactory()
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


class JsonLine:
    """
    structlog's level, time, trace and JSON in one step: every request leaves a line, and four steps took twice as long.

    wall: seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._second, self._said = -1, ""

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> bytes:
        """The line's JSON."""
        if "exc_info" in event:
            structlog.processors.format_exc_info(logger, method, event)
        structlog.processors.add_log_level(logger, method, event)
        now = self._wall()
        second = int(now)
        if second != self._second:
            # A date is worked out once a second, and not for each of a thousand lines of it.
            self._second, self._said = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        event["timestamp"] = f"{self._said}.{int((now - second) * 1e6):06d}Z"
        return _as_json(event)


class TurnLogger:
    """
    Writes lines to standard output, those of one turn of the event loop together: a write for each costs as much as all
    else about the line. A warning, or what comes where no loop runs, is written at once with all before it, so that
    only the news of a turn in which the process is killed can be lost, and never their order.
    """

    def __init__(self, *_: Any, out: BinaryIO | None = None) -> None:
        """structlog's arguments say nothing here. *out*: None is standard output."""
        self._out = out or sys.stdout.buffer
        self._lines: list[bytes] = []

    def info(self, line: bytes) -> None:
        """At the end of this turn."""
        if not self._lines:
            try:
                asyncio.get_running_loop().call_soon(self._write)
            except RuntimeError:
                self.warning(line)
                return
        self._lines.append(line)

    debug = info

    def warning(self, line: bytes) -> None:
        """Now."""
        self._lines.append(line)
        self._write()

    error = critical = exception = fatal = warn = msg = warning

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._out.write(b"\n".join(lines) + b"\n")
            self._out.flush()


def _as_json(event: structlog.typing.EventDict) -> bytes:
    """A line's JSON. orjson takes a fifth of the time and not everything: half a character, integers beyond 64 bits."""
    try:
        return orjson.dumps(event, repr)
    except TypeError:
        return json.dumps(event, default=repr).encode()


def summarise(query: Query, slate: Slate, took_s: float, to: Metrics) -> None:
    """The one line a request leaves in the log, and its metrics."""
    placement, level, rung = _counted(query, slate, to)
    _timed(slate.stages_ms, to)
    log.info(
        "slate",
        recommendation_id=query.recommendation_id,
        placement=placement,
        items=len(slate.items),
        quality=level,
        rung=rung,
        cached=slate.from_cache,
        losses={name: loss.value for name, loss in slate.losses},
        removed=dict(slate.removed),
        stages_ms=dict(slate.stages_ms),
        ms=round(took_s * 1000, 2),
    )


def summarise_page(
    shelves: Sequence[tuple[Query, Slate]], stages_ms: Sequence[tuple[str, float]], took_s: float, to: Metrics
) -> None:
    """
    The same of slates that were asked for together: one line, with a place in its lists for each.

    stages_ms: of all of them; what they did at once took its time once.
    """
    counted = [_counted(query, slate, to) for query, slate in shelves]
    _timed(stages_ms, to)
    log.info(
        "page",
        recommendation_ids=[query.recommendation_id for query, _ in shelves],
        placements=[placement for placement, _, _ in counted],
        items=[len(slate.items) for _, slate in shelves],
        quality=[level for _, level, _ in counted],
        rungs=[rung for _, _, rung in counted],
        cached=[slate.from_cache for _, slate in shelves],
        losses={name: loss.value for _, slate in shelves for name, loss in slate.losses},
        stages_ms=dict(stages_ms),
        ms=round(took_s * 1000, 2),
    )


def _counted(query: Query, slate: Slate, to: Metrics) -> tuple[str, str, str]:
    """Placement, level and rung of *slate*, which are counted with this."""
    # `_value_` and not `value`: what an enum computes for every look is a fifth of `summarise`.
    placement, level, rung = query.placement._value_, slate.level._value_, RUNG_NAMES[slate.rung]
    to.slates.labels(placement, level).inc()
    to.rungs.labels(rung).inc()
    return placement, level, rung


def _timed(stages_ms: Sequence[tuple[str, float]], to: Metrics) -> None:
    for stage, took_ms in stages_ms:
        to.stage_seconds.labels(stage).observe(took_ms / 1000)


def log_shown(query: Query, slate: Slate, share: float, id_of: Callable[[int], str]) -> None:
    """
    What exploration showed in which slot, with which probability: what off-policy estimates are made from.

    Written for every slate while exploration is on, whether chance had a say in it or not: an estimate from the
    exchanged ones alone would be of another policy.
    """
    log.info(
        "shown",
        recommendation_id=query.recommendation_id,
        placement=query.placement.value,
        share=share,
        items=[id_of(item.key) for item in slate.items],
        propensities=[item.propensity for item in slate.items],
    )
