"""
The event loop as something that can be ill: how late it runs, and who held it up.

A heartbeat on the loop measures, since only the loop knows when its turn came; a thread beside it looks at the
loop's stack while a beat is overdue, since a loop that is held up cannot report itself (resilience specification
§6). asyncio's own debug mode tells the same, and costs too much to be left on.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable

from orchestrator.core.lag import NOTABLE_S, Lag, LagMeter
from orchestrator.telemetry import Metrics, log, metrics

INTERVAL_S = 0.010
STALL_S = 0.050
"""Both of the resilience specification, §1.6 and §6: a beat every 10 ms, overdue when the last is 50 ms old."""

HANG_S = 5.0
"""A stall that is not over by then is told without its end. Judged: far beyond what a collection or a full disk takes,
and still before a probe's third failure restarts the process and takes the evidence with it."""

DEPTH = 20
"""Frames of a stack that are told; what is farther out is the loop's own."""

StackOf = Callable[[int], tuple[str, ...]]


def stack_of(thread_id: int) -> tuple[str, ...]:
    """What thread *thread_id* is doing, innermost first, as `file:line function`; () when it is gone."""
    frame = sys._current_frames().get(thread_id)
    found: list[str] = []
    while frame is not None and len(found) < DEPTH:
        found.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(found)


class LoopWatch:
    """
    Watches the loop it is started on; before that, and after `stop`, nothing is late.

    now: monotonic seconds, and finer than the loop's own clock: uvloop's stands still within one turn.
    """

    def __init__(
        self, to: Metrics = metrics, now: Callable[[], float] = time.monotonic, stack_of: StackOf = stack_of
    ) -> None:
        self._metrics = to
        self._now = now
        self._stack_of = stack_of
        self._meter = LagMeter()
        self._thread_id = 0
        self._beaten_at = 0.0
        # What the thread saw: the beat before the stall, and the stack. One tuple, so that it is swapped whole.
        self._seen: tuple[float, tuple[str, ...]] = (0.0, ())
        self._told_of = 0.0
        self._next: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._watchdog: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<LoopWatch {self.lag.smoothed_s * 1000:.1f} ms late, {'on' if self._next else 'off'}>"

    @property
    def lag(self) -> Lag:
        """How late the loop is."""
        now = self._now()
        overdue_s = max(0.0, now - self._beaten_at - INTERVAL_S) if self._next is not None else 0.0
        return self._meter.read(now, overdue_s)

    def stalled_s(self, since: float, now: float) -> float:
        """
        Seconds between monotonic *since* and *now* in which the loop stood still, the stall included whose end only the
        next beat will see: in the turn after one, what ran out and what answered come before the heartbeat.
        """
        if self._next is None:
            return 0.0
        overdue_s = now - self._beaten_at - INTERVAL_S
        unseen_s = min(overdue_s, now - since) if overdue_s >= NOTABLE_S else 0.0
        return self._meter.stalled_s(since, now) + unseen_s

    def start(self) -> None:
        """Begin with the running loop; called on its thread, after start-up's own long turns."""
        self._thread_id = threading.get_ident()
        self._beaten_at = self._now()
        self._next = asyncio.get_running_loop().call_later(INTERVAL_S, self._beat)
        self._watchdog = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
        self._watchdog.start()

    def stop(self) -> None:
        """End both; called on the loop's thread."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._stopped.set()
        if self._watchdog is not None:
            self._watchdog.join(STALL_S)
        self._meter = LagMeter()

    def _beat(self) -> None:
        self.beat(self._now())
        self._next = asyncio.get_running_loop().call_later(INTERVAL_S, self._beat)

    def beat(self, now: float) -> None:
        """Take in the loop's turn at monotonic *now*, and tell when it came too late."""
        before, self._beaten_at = self._beaten_at, now
        late_s = max(0.0, now - before - INTERVAL_S)
        self._meter.beat(now, late_s)
        self._metrics.loop_lag_seconds.observe(late_s)
        if now - before > STALL_S:
            self._tell(late_s, before)

    def _tell(self, late_s: float, before: float) -> None:
        self._metrics.loop_stalls.inc()
        at, stack = self._seen
        # Code that does not let go of the interpreter keeps the thread from looking, too.
        seen = stack if at == before else ()
        culprit = seen[0] if seen else "unseen: the interpreter was held, or the process was stopped"
        # "frames" and not "stack": structlog renders a field of that name itself, and takes text only.
        log.warning("loop_stalled", lasted_s=round(late_s, 3), culprit=culprit, frames=list(seen))

    def _watch(self) -> None:
        """The thread."""
        wait_s = STALL_S
        while not self._stopped.wait(wait_s):
            wait_s = self.look(self._now())

    def look(self, now: float) -> float:
        """
        See whether the heartbeat is overdue at monotonic *now*, and if so, once a stall, by whose fault.

        Returns:
            seconds until there is something to be seen again.
        """
        before = self._beaten_at
        age_s = now - before
        if age_s <= STALL_S:
            return STALL_S - age_s + 0.001
        if self._seen[0] != before:
            self._seen = (before, self._stack_of(self._thread_id))
        elif age_s > HANG_S and self._told_of != before:
            self._told_of = before
            stack = self._seen[1]
            log.error("loop_hangs", since_s=round(age_s - INTERVAL_S, 3), frames=list(stack))
        return STALL_S
