"""
redis-py for what needs scripts (events), with the settings that keep a sick Redis from costing seconds.

Its defaults were measured at 4.4 s for a hung server and 4.1 s for a refused connection: ten retries with backoff.
None here. What a page waits for (features, histories, slates) goes over redis_pipeline instead.
"""

from __future__ import annotations

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError
from orchestrator.settings import Redis

POOL_WAIT_S = 0.005
"""Longest wait for a free connection; a queue inside 100 ms is a lie (resilience specification §1.7)."""


def connect(settings: Redis) -> redis.asyncio.Redis:
    """A client on one bounded pool; it connects on first use."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.url,
        max_connections=settings.max_connections,
        timeout=POOL_WAIT_S,
        socket_timeout=settings.event_timeout_ms / 1000,
        socket_connect_timeout=settings.connect_timeout_ms / 1000,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    return redis.asyncio.Redis(connection_pool=pool)


def translate(error: redis.exceptions.RedisError | OSError) -> DependencyError:
    """redis-py's error → the loss it stands for."""
    if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
        return DependencyError(Loss.DEADLINE, str(error))
    if isinstance(error, redis.exceptions.ConnectionError | OSError):
        return DependencyError(Loss.UNAVAILABLE, str(error))
    return DependencyError(Loss.REFUSED, str(error))


def counted(reply: bytes | None) -> int:
    """
    A counter's reply as a number; one that was never counted is 0.

    Raises:
        DependencyError: somebody else wrote there.
    """
    try:
        return int(reply or 0)
    except ValueError as error:
        raise DependencyError(Loss.INVALID_REPLY, f"a counter holds {reply!r:.40}") from error
