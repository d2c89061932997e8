"""
How late the event loop runs, from the lateness of a heartbeat.

Three numbers, because they answer three questions: is it late, as a state one can act upon (smoothed), how bad did it
get (worst), and how long has the turn taken that is not over (overdue). The ladder acts on the smoothed one: a single
stall is over when it is seen, and turning requests away for a second because of it would only make a second stall.
Admission looks at the turn, too, but only at one that calls themselves made long (`core.shedding`).
"""

from __future__ import annotations

from collections import deque

from orchestrator.core.values import value

SMOOTHING = 0.2
"""Weight of the newest beat. Derived from the thresholds of admission: one stall of 150 ms gives 30 ms, below the 35 at
which a shopper notices; a loop that is 100 ms late at every beat passes 70 within six, two thirds of a second."""

WORST_OF_S = 1.0
"""Resilience specification §1.6: the maximum of the last second."""


@value
class Lag:
    """
    Seconds the loop is late.

    smoothed_s  an exponentially weighted mean over beats
    worst_s     of the last second
    overdue_s   how late the next beat is already: the age of a turn that is not over
    beats       how many there were; the same number, the same turn
    """

    smoothed_s: float = 0.0
    worst_s: float = 0.0
    overdue_s: float = 0.0
    beats: int = 0


NOTABLE_S = 0.010
"""A beat that is later stood for a stall. Derived: the heartbeat's own interval; less is the loop's ordinary work."""

REMEMBERED_STALLS = 8
"""Derived: no call takes longer than 0.1 s, and stalls of 10 ms and more do not come closer together than that."""


class LagMeter:
    """Takes in beats, tells the lag."""

    def __init__(self) -> None:
        self._smoothed_s = 0.0
        self._beats = 0
        # Falling lateness only: a beat that is later than those before it makes them irrelevant.
        self._worst: deque[tuple[float, float]] = deque()
        self._stalls: deque[tuple[float, float]] = deque(maxlen=REMEMBERED_STALLS)

    def __repr__(self) -> str:
        return f"<LagMeter {self._smoothed_s * 1000:.1f} ms>"

    def beat(self, now: float, late_s: float) -> None:
        """A heartbeat came at monotonic *now*, *late_s* after it was due."""
        self._beats += 1
        self._smoothed_s += SMOOTHING * (late_s - self._smoothed_s)
        if late_s >= NOTABLE_S:
            self._stalls.append((now, late_s))
        while self._worst and self._worst[-1][1] <= late_s:
            self._worst.pop()
        self._worst.append((now, late_s))
        self._forget(now)

    def read(self, now: float, overdue_s: float = 0.0) -> Lag:
        """The lag at monotonic *now*, when the next beat is *overdue_s* late."""
        self._forget(now)
        return Lag(self._smoothed_s, self._worst[0][1] if self._worst else 0.0, overdue_s, self._beats)

    def stalled_s(self, since: float, now: float) -> float:
        """Seconds between *since* and *now* in which the loop stood still, of stalls that are over."""
        return sum(min(late_s, ended_at - since) for ended_at, late_s in self._stalls if since < ended_at <= now)

    def _forget(self, now: float) -> None:
        while self._worst and self._worst[0][0] < now - WORST_OF_S:
            self._worst.popleft()
