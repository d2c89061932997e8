"""
The shopper as the FeatureReader port wants it, from the direct reader of Feast's Redis layout.

Feast's own SDK costs 20 times the CPU for the same values (docs/features.md); a parity test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable

import hiredis

from orchestrator.adapters.feast_reader import FeastRedisReader
from orchestrator.core.model import Loss, Query, UserContext
from orchestrator.ports import DependencyError


class RedisUserReader:
    """Features, history and watermark of one shopper in one round trip."""

    def __init__(self, reader: FeastRedisReader, wall: Callable[[], float]) -> None:
        self._reader = reader
        self._wall = wall
        plan = reader.plan
        self._n_numeric = len(plan.user.numeric) if plan is not None else 0
        self._n_categorical = len(plan.user.categorical) if plan is not None else 0

    @property
    def n_numeric(self) -> int:
        return self._n_numeric

    @property
    def n_categorical(self) -> int:
        return self._n_categorical

    async def read(self, query: Query, timeout_s: float) -> UserContext:
        """
        See the port; the guard's timer is the timer.

        Raises:
            DependencyError: Redis is not there or answers with an error.
        """
        if query.subject is None:
            return UserContext.cold(self.n_numeric, self.n_categorical)
        now_s = self._wall()
        try:
            # A visitor has a history but no features: Feast's entity is the user.
            row = await self._reader.read(query.subject, query.user_id, now_s)
        except (ConnectionError, OSError) as error:
            raise DependencyError(Loss.UNAVAILABLE, str(error)) from error
        except (hiredis.HiredisError, ValueError) as error:
            raise DependencyError(Loss.INVALID_REPLY, str(error)) from error
        return UserContext(
            row.numeric,
            row.categorical,
            row.history_keys,
            row.history_types,
            row.history_at_us,
            row.watermark,
            int(now_s * 1e6),
        )
