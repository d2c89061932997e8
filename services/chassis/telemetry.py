"""
What a service tells its operators: JSON log lines and metrics. The names are fixed here and nowhere else.

Label values come from small closed sets (status code, stage); an item, a user or a request never becomes a label.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from services.chassis.model import Gauge as ModelGauge

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 1.0)
"""Derived from the 100 ms promise: 0.1 s is an edge, and the steps double below the slice a model call gets."""

QUERY_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Queries in one call. Derived: coalescing joins what waits, so powers of two show how well it joins."""


def start_logging(service: str, level: str = "info") -> structlog.stdlib.BoundLogger:
    """
    Make every line of this process one JSON object on stdout, and return its logger.

    Lines of libraries that use the standard logging module take the same way, from warning upwards.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("tutti").setLevel(level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("tutti.service", service=service)
    return logger


class ServiceMetrics:
    """
    The metrics of one service process, in a registry of their own, so that tests may have many.

    `calls` counts answers by status code; `seconds` has the stages `queue` (waiting for the model's thread),
    `model` (inside the model) and `call` (from the decoded request to the encoded answer).
    """

    def __init__(self, service: str, version: str) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("tutti_service_calls", "Calls answered, by status code", ["code"], registry=self.registry)
        self.queries = Histogram(
            "tutti_service_queries", "Queries in one call", buckets=QUERY_BUCKETS, registry=self.registry
        )
        self.seconds = Histogram(
            "tutti_service_stage_seconds",
            "Time spent, by stage",
            ["stage"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.ready = Gauge("tutti_service_ready", "1 while the service answers calls", registry=self.registry)
        info = Gauge(
            "tutti_service_info",
            "Constant 1; which service and model this is",
            ["service", "version"],
            registry=self.registry,
        )
        info.labels(service, version).set(1)

    def watch(self, gauges: Iterable[ModelGauge]) -> None:
        """Show these figures of the model's own."""
        for one in gauges:
            Gauge(one.name, one.about, registry=self.registry).set_function(one.read)

    def expose(self, host: str, port: int) -> int:
        """Serve the registry as `/metrics` from a daemon thread; the port that was bound."""
        server, _ = start_http_server(port, addr=host, registry=self.registry)
        return int(server.server_port)
