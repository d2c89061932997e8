"""
Calls that died while the process stood still (a frozen machine, a debugger, SIGSTOP) must not be worked on after it.

A deadline travels as the time that is left, so a call that waited in our socket for a second looks as fresh as one
sent now. Its caller's cancellation lies right behind it in the same socket: once a stall is noticed, each call is
held back for a moment, in which gRPC cancels those nobody waits for. Measured: of 200 calls that died during a stop,
11 reached the model without this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BEAT_S = 0.01
"""Judged: a hundred wake-ups a second are some tenths of a per cent of a core."""

STALL_S = 0.03
"""Derived: the shortest timeout an orchestrator gives a model call (re-ranker: 35 ms less 4)."""

HOLD_S = 0.005
"""Judged: several turns of a loop that has 200 calls to look at; little beside what is left of a fresh call's time."""

SUSPECT_S = 0.25
"""Judged: by then everything that waited in the socket has been read."""


class Stalls:
    """Notices that the loop stood still; `settle` before work that somebody may have stopped waiting for."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._beat_at = monotonic()
        self._suspect_until = self._beat_at

    def __repr__(self) -> str:
        left_s = max(self._suspect_until - self._monotonic(), 0.0)
        return f"<Stalls, calls are held back for {left_s:.3f} s more>"

    def hold_s(self) -> float:
        """How long a call that arrives now is to be held back, in seconds."""
        # Whoever is first after a stall, a call or the beat, notices it.
        self._notice()
        return HOLD_S if self._monotonic() < self._suspect_until else 0.0

    def beat(self) -> None:
        """The loop turns; to be called every `BEAT_S`."""
        self._notice()
        self._beat_at = self._monotonic()

    async def watch(self) -> None:
        """Beat, for ever."""
        while True:
            self.beat()
            await asyncio.sleep(BEAT_S)

    async def settle(self) -> None:
        """Return at once in normal times; after a stall, when a call nobody waits for would have been cancelled."""
        if hold_s := self.hold_s():
            await asyncio.sleep(hold_s)
            # A loop may run its timers before it reads what arrived.
            await asyncio.sleep(0)

    def _notice(self) -> None:
        now = self._monotonic()
        if now - self._beat_at > BEAT_S + STALL_S:
            self._suspect_until = now + SUSPECT_S
