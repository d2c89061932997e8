"""
What ingestion tells its operators: how far it is behind, in Prometheus' text. Names are fixed here and nowhere else.

Read from the broker every few seconds and not counted here, so that another consumer's work, and an earlier life's,
shows.
"""

from __future__ import annotations

import asyncio

import redis.asyncio
import structlog
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from redis.exceptions import RedisError

from services.ingestion.kafka_lag import TopicWatch
from services.ingestion.lag import Lag, look

EVERY_S = 2.0
"""Judged: well within the shortest usual scrape interval; a look is eight small commands."""


class IngestionMetrics:
    """The gauges of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"tutti_ingestion_{name}", text, registry=self.registry)

        self.unread = gauge("unread", "Entries of the event stream that no consumer was given yet")
        self.pending = gauge("pending", "Entries that were given to a consumer and are not in the log yet")
        self.oldest_s = gauge("lag_seconds", "Age of the oldest entry that is not in the log yet")
        self.features_s = gauge(
            "features_lag_seconds", "Age of the oldest entry whose features are not in the store yet"
        )
        self.rebuilding = gauge("features_rebuilding", "1 while all that the log speaks of is computed anew")
        self.dead = gauge("dead_letters", "Entries that will never be events, as they lie in Redis")
        self.redactions = gauge("redactions", "Orders to take people out that are not carried out")
        self.up = gauge("up", "1 while Redis answers, and Kafka where events are there")

    def show(self, lag: Lag) -> None:
        """Set every gauge."""
        self.unread.set(lag.unread)
        self.pending.set(lag.pending)
        self.oldest_s.set(lag.oldest_s)
        self.features_s.set(lag.features_s or 0.0)
        self.rebuilding.set(lag.features_s is None)
        self.dead.set(lag.dead)
        self.redactions.set(lag.redactions)
        self.up.set(1)

    async def follow(
        self,
        client: redis.asyncio.Redis,
        stop: asyncio.Event,
        log: structlog.stdlib.BoundLogger,
        watch: TopicWatch | None = None,
    ) -> None:
        """Look again and again until *stop*; a broker that is away shows as `up` 0, and the rest as it was."""
        while not stop.is_set():
            try:
                self.show(await look(client, watch))
            except (RedisError, OSError) as error:
                self.up.set(0)
                log.debug("lag unknown", reason=str(error))
            try:
                await asyncio.wait_for(stop.wait(), EVERY_S)
            except TimeoutError:
                continue

    def expose(self, host: str, port: int) -> int:
        """Serve the registry as `/metrics` from a daemon thread; the port that was bound."""
        server, _ = start_http_server(port, addr=host, registry=self.registry)
        return int(server.server_port)
