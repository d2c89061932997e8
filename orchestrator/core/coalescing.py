"""
Joining calls: when the next batch to one method of one replica may leave, and how many queries it carries.

Nobody waits while nothing is in flight; while a batch is, the next one gathers. One batch in flight *while it is on
time*: when the newest is older than batches usually take, another may leave, so a hung one holds nobody back.

What is usual is learnt as TCP learns its retransmission time (RFC 6298): mean + 4 · mean deviation of what answered.
Source of the rule: DESIGN §5, measured there (64 in flight, CPU a request: 2.77 ms apart, 0.88 with one batch in
flight, 1.22 with two, 1.65 with four).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

GAIN, DEVIATION_GAIN, DEVIATIONS = 1 / 8, 1 / 4, 4.0
"""Borrowed: RFC 6298."""

LEAST_SPREAD = 0.1
"""Variance of batch sizes below which their times say nothing of what one query more costs. Judged."""

LEAST_SHARE = 0.1
"""Of the mean: a query more costs at least that. Judged; a slope through noise may be anything."""


LONGEST_S = 0.06
"""Longer batches save nothing more and make everybody wait for the same service while other cores idle. Measured, 64
in flight on two cores with caps of 2 s, full slates a second: 132 cut at 13 ms, 184 at 30, 256 at 60, 181 uncut."""


@dataclass(frozen=True, slots=True)
class LanePolicy:
    """
    What a lane may do; seconds.

    first_late_s   what counts as late before anything is known. Judged: a batch of one of our models takes 1 to 5 ms
    soonest_s      nothing younger is late. Derived: timers count whole milliseconds and are a turn of the loop late
    latest_s       whatever is older is late. `of_cap` derives it: a third of the cap, so that who gathered behind a
                   hung batch has two thirds of the time left
    longest_s      a batch is cut so that it should take no longer: half the cap, for who comes just after one left
                   waits for it and for its own. A third was too little: what a query costs is learnt under load, so the
                   more there was to do, the smaller batches got and the more each query cost, until the breaker
                   opened (8 in flight on two cores, 200 candidates: 17 of 1,153 slates full, with half 765 of 778; with
                   400 neither, until the cap was longer). And `LONGEST_S`, whatever the cap
    most           queries a batch. Derived: 64 queries of 400 candidates are 0.8 MB, a fifth of what gRPC takes
    """

    first_late_s: float = 0.005
    soonest_s: float = 0.002
    latest_s: float = 0.012
    longest_s: float = 0.018
    most: int = 64

    @classmethod
    def of_cap(cls, cap_s: float) -> LanePolicy:
        """For calls that may take *cap_s*."""
        return cls(latest_s=cap_s / 3, longest_s=min(cap_s / 2, LONGEST_S))


class Lane:
    """
    The batches of one method and replica that are in flight.

    Whoever sends asks `may_carry`, says `leave` and later `arrived` with the ticket it was given.
    """

    __slots__ = ("_cost", "_deviation_s", "_in_flight", "_mean_s", "_policy", "_tickets")

    def __init__(self, policy: LanePolicy | None = None) -> None:
        self._policy = policy or LanePolicy()
        self._in_flight: dict[int, tuple[float, int]] = {}
        self._tickets = 0
        self._mean_s: float | None = None
        self._deviation_s = 0.0
        self._cost = _Cost()

    @property
    def late_after_s(self) -> float:
        """The age at which a batch in flight no longer holds back the next."""
        policy = self._policy
        if self._mean_s is None:
            return min(policy.first_late_s, policy.latest_s)
        usual_s = self._mean_s + DEVIATIONS * self._deviation_s
        return max(min(usual_s, policy.latest_s), policy.soonest_s)

    @property
    def in_flight(self) -> int:
        """Batches that have left and not arrived."""
        return len(self._in_flight)

    def may_carry(self, now: float) -> int:
        """Queries that may leave in one batch now; 0: gather."""
        if now < self.late_at:
            return 0
        return self._cost.most_within(self._policy.longest_s, self._policy.most)

    @property
    def late_at(self) -> float:
        """When the newest batch will be late; long ago if it has arrived: older ones were late when it left."""
        newest = self._in_flight.get(self._tickets)
        return -math.inf if newest is None else newest[0] + self.late_after_s

    def leave(self, now: float, queries: int) -> int:
        """A batch of so many *queries* leaves; its ticket."""
        self._tickets += 1
        self._in_flight[self._tickets] = (now, queries)
        return self._tickets

    def arrived(self, now: float, ticket: int, *, answered: bool) -> None:
        """
        The batch of *ticket* is over. Only what was answered teaches: of a service that hangs, the time until nobody
        waited any more would make hanging usual.
        """
        left_at, queries = self._in_flight.pop(ticket)
        if not answered:
            return
        took_s = max(0.0, now - left_at)
        self._learn(took_s)
        self._cost.learn(queries, took_s)

    def _learn(self, took_s: float) -> None:
        if self._mean_s is None:
            self._mean_s, self._deviation_s = took_s, took_s / 2
            return
        self._deviation_s += DEVIATION_GAIN * (abs(took_s - self._mean_s) - self._deviation_s)
        self._mean_s += GAIN * (took_s - self._mean_s)

    def __repr__(self) -> str:
        return f"<Lane: {len(self._in_flight)} in flight, late after {self.late_after_s * 1000:.1f} ms>"


class _Cost:
    """
    What a batch takes: so much for itself and so much a query. The line of least squares through what was seen, the
    newest weighing most; most of what one query alone takes is there only once in a batch.
    """

    __slots__ = ("_queries", "_queries_squared", "_seconds", "_together")

    def __init__(self) -> None:
        self._queries = self._seconds = self._queries_squared = self._together = 0.0

    def learn(self, queries: int, seconds: float) -> None:
        """One more batch was seen."""
        gain = GAIN if self._queries else 1.0
        self._queries += gain * (queries - self._queries)
        self._seconds += gain * (seconds - self._seconds)
        self._queries_squared += gain * (queries * queries - self._queries_squared)
        self._together += gain * (queries * seconds - self._together)

    def most_within(self, seconds: float, most: int) -> int:
        """Queries of a batch that should take no longer; two at least, or it is never learnt what a second costs."""
        if not self._queries:
            return most
        mean_s = self._seconds / self._queries
        spread = self._queries_squared - self._queries**2
        each_s = (self._together - self._queries * self._seconds) / spread if spread > LEAST_SPREAD else mean_s
        each_s = min(max(each_s, LEAST_SHARE * mean_s), mean_s)
        if each_s <= 0.0:
            return most
        own_s = self._seconds - each_s * self._queries
        return max(2, min(most, int((seconds - own_s) / each_s)))
