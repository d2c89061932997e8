"""
The only place where policy and an await meet: one guarded call to one dependency, Kept or Lost.

Today the policies are the stage's share of the deadline and a backstop timer; breaker, limiter, retry
budget and hedging take their place here and nowhere else. Losses are values; what has no name becomes
UNCLASSIFIED, with its trace, and its objective is zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from orchestrator.core.deadline import Deadline
from orchestrator.core.model import Kept, Loss, Lost
from orchestrator.ports import DependencyError
from orchestrator.settings import Stage
from orchestrator.telemetry import Metrics, log

T = TypeVar("T")

LATE_TURNS = 3
"""Turns of the loop after the timer. Derived: uvloop fires timers before it reads sockets, so an answer is read in the
first turn after, wakes its reader in the second and ends the call in the third."""


class Guard:
    """Calls dependencies under their policies. *now* is the monotonic clock, in seconds."""

    def __init__(self, now: Callable[[], float], metrics: Metrics) -> None:
        self._now = now
        self._metrics = metrics

    async def call(
        self,
        dependency: str,
        stage: Stage,
        deadline: Deadline,
        make_call: Callable[[float], Awaitable[T]],
        share: float = 1.0,
    ) -> Kept[T] | Lost:
        """
        Await `make_call(timeout_s)` within *stage*'s slice of *deadline*.

        Args:
            dependency: metric label and, later, the breaker's name.
            share: of the stage's cap, in (0, 1].

        Returns:
            Kept with the value, or Lost with the reason; both with the seconds it took.

        Raises:
            asyncio.CancelledError: the caller hung up. Nothing else.
        """
        started = self._now()
        grace_s = stage.grace_ms / 1000
        timeout_s = deadline.timeout(started, stage.cap_ms / 1000 * share, stage.reserve_after_ms / 1000, grace_s)
        if timeout_s is None:
            return self._lost(dependency, Loss.NO_BUDGET, started)
        # The dependency times itself (gRPC's own deadline); this timer is for the one that does not.
        try:
            value = await _within(timeout_s + grace_s, make_call(timeout_s))
        except DependencyError as error:
            return self._lost(dependency, error.loss, started)
        except TimeoutError:
            return self._lost(dependency, Loss.DEADLINE, started)
        except Exception:
            log.exception("unclassified_loss", dependency=dependency)
            return self._lost(dependency, Loss.UNCLASSIFIED, started)
        return Kept(value, self._now() - started)

    def _lost(self, dependency: str, loss: Loss, started: float) -> Lost:
        self._metrics.losses.labels(dependency, loss.value).inc()
        return Lost(loss, self._now() - started)


async def _within(timeout_s: float, awaitable: Awaitable[T]) -> T:
    """
    What *awaitable* gives within *timeout_s*; else it is cancelled and has ended before TimeoutError is raised.

    A loop that is late fires the timer in the turn in which it would have read the answer; the answer that lies
    there gets its turn. Under load this is the difference between a slow cache hit and computing a slate for nothing.
    """
    call = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({call}, timeout=timeout_s)
        for _ in range(LATE_TURNS):
            if call.done():
                return call.result()
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        # The caller hung up, or the call cancelled itself.
        call.cancel()
        raise
    call.cancel()
    # One turn to be told; a call that will not listen is left behind rather than waited for.
    await asyncio.wait({call}, timeout=0)
    raise TimeoutError
