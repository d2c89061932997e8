"""
How many calls one dependency may have in flight: a bulkhead, and inside it a limit that follows the round-trip time.

Gradient2 (Netflix concurrency-limits) with three repairs: a window with drops shrinks the limit; the limit only grows
when nothing queues; and what a call may take bounds what counts as queueing. No waiting room: within 100 ms a queue is
a lie. It has no clock; whoever made the call ends its slot once, with what the call taught.
Source: resilience specification §1.3; the third repair is ours (see `LimiterPolicy`).
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_RTT_S = 1e-6
"""A shorter round trip is a clock that did not tick. Derived: a thousandth of the fastest call there is."""


EASY_SHARE, HARD_SHARE = 0.25, 0.6
"""Of the longest a call may take; see `LimiterPolicy`."""


@dataclass(frozen=True, slots=True)
class LimiterPolicy:
    """
    How the limit moves. All values but max_inflight, easy_s and hard_s are the resilience specification's §1.3.

    max_inflight      the bulkhead; the limit never goes above. Derived: 1,411 requests/s, the most measured on two
                      cores, each 40 ms in a hung dependency are 56 in flight; twice that
    tolerance         round trips may be this much longer than usual before the limit shrinks
    easy_s            a shorter mean round trip is never queueing: a quarter of the 40 ms a source may take. Without it
                      a coalesced dependency, whose round trip grows with the load it carries easily, lost 30 % of its
                      calls for 10 s when the load rose tenfold to 71 % of what it can do (simulated)
    hard_s            a longer one always is, however usual: 0.6 of those 40 ms, well below the 0.8 at which the breaker
                      calls an answer slow. Without it the usual round trip follows our own queue: 10 % overload settled
                      at 33 ms, held only by timeouts; with it at 23 ms, none timed out, as many answered (simulated)
    smoothing         weight of a window's answer
    queue             calls the limit grows by, times smoothing, in a window in which nothing queued
    backoff           factor of the limit for a window with drops
    long_windows      length of the average that is the usual round trip; the first warm_up_windows count equally
    min_samples       a window with fewer teaches nothing
    """

    max_inflight: int = 128
    min_limit: int = 4
    initial: int = 20
    tolerance: float = 1.5
    easy_s: float = 0.010
    hard_s: float = 0.024
    smoothing: float = 0.2
    queue: float = 4.0
    backoff: float = 0.9
    long_windows: int = 600
    warm_up_windows: int = 10
    min_samples: int = 10
    min_window_s: float = 0.1
    max_window_s: float = 1.0

    @classmethod
    def of_cap(cls, cap_s: float, max_inflight: int = 128) -> LimiterPolicy:
        """For calls that may take *cap_s* at most: easy and hard are the same shares of it as of a source's 40 ms."""
        return cls(max_inflight, easy_s=EASY_SHARE * cap_s, hard_s=HARD_SHARE * cap_s)

    @classmethod
    def of_reads(cls, cap_s: float) -> LimiterPolicy:
        """
        For reads that travel together over one pipelined connection: a thousand wait as cheaply as one.

        1024 is the connection's own bound (adapters/redis_pipeline.py); from there drops still bring it down.
        """
        return cls(1024, min_limit=64, initial=1024, easy_s=EASY_SHARE * cap_s, hard_s=HARD_SHARE * cap_s)


class Slot:
    """One place among the calls in flight. Given back once, in one of three ways; later ones are ignored."""

    __slots__ = ("_epoch", "_is_held", "_limiter")

    def __init__(self, limiter: Limiter, epoch: int) -> None:
        self._limiter = limiter
        self._epoch = epoch
        self._is_held = True

    def sample(self, now: float, rtt_s: float) -> None:
        """The call succeeded in *rtt_s*."""
        if self._is_held:
            self._is_held = False
            self._limiter._give_back(now, self._epoch, rtt_s=rtt_s)

    def drop(self, now: float) -> None:
        """The call was dropped for load: a fair deadline passed, or the server refused it."""
        if self._is_held:
            self._is_held = False
            self._limiter._give_back(now, self._epoch, is_drop=True)

    def release(self, now: float) -> None:
        """The call says nothing about load: cancelled, failed fast, a hedge's duplicate."""
        if self._is_held:
            self._is_held = False
            self._limiter._give_back(now, self._epoch)

    def __repr__(self) -> str:
        return f"<Slot {'held' if self._is_held else 'given back'}, epoch {self._epoch}>"


class Limiter:
    """Slots for the calls to one dependency, as many as its limit."""

    __slots__ = (
        "_began_at",
        "_drops",
        "_epoch",
        "_in_flight",
        "_limit",
        "_long_s",
        "_n_long",
        "_peak",
        "_policy",
        "_rtt_sum_s",
        "_rtts",
    )

    def __init__(self, policy: LimiterPolicy) -> None:
        self._policy = policy
        self._in_flight = 0
        self._epoch = 0
        self._limit = self._within(policy.initial)
        self._long_s = 0.0
        self._n_long = 0
        self._began_at = 0.0
        self._rtts = 0
        self._drops = 0
        self._rtt_sum_s = 0.0
        self._peak = 0

    @property
    def limit(self) -> int:
        """Calls that may be in flight now, in [min_limit, max_inflight]."""
        return int(self._limit)

    @property
    def in_flight(self) -> int:
        """Slots held; may be above a limit that has just shrunk."""
        return self._in_flight

    @property
    def share(self) -> float:
        """In flight / limit; above 1 while a shrunken limit drains."""
        return self._in_flight / self.limit

    def try_acquire(self, now: float, ramp: float = 1.0) -> Slot | None:
        """
        A slot, or None when the limit is reached.

        Args:
            ramp: share of the limit that may be used, in [0, 1]: the slow start after an outage. The smallest limit
                always may: with less, a dependency that is well again lost calls to mere chance (25 requests a
                second, two at once) for seconds after it had healed.
        """
        if self._in_flight >= max(min(self._policy.min_limit, self._limit), int(self._limit * ramp)):
            return None
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        return Slot(self, self._epoch)

    def reset(self, now: float) -> None:
        """Forget what was learnt: the dependency is another one now. Calls in flight stay, but will teach nothing."""
        self._epoch += 1
        self._limit = self._within(self._policy.initial)
        self._long_s = 0.0
        self._n_long = 0
        self._open_window(now)

    def _give_back(self, now: float, epoch: int, *, rtt_s: float | None = None, is_drop: bool = False) -> None:
        self._in_flight -= 1
        if epoch != self._epoch or (rtt_s is None and not is_drop):
            return
        policy = self._policy
        n_samples = self._rtts + self._drops
        # Too little traffic to learn from: what it said is no longer true.
        if n_samples and now - self._began_at > policy.max_window_s:
            self._open_window(now)
            n_samples = 0
        # A window begins with its first sample, not in the silence before it.
        if not n_samples:
            self._began_at = now
        if rtt_s is None:
            self._drops += 1
        else:
            self._rtts += 1
            self._rtt_sum_s += max(rtt_s, MIN_RTT_S)
        if n_samples + 1 >= policy.min_samples and now - self._began_at >= policy.min_window_s:
            self._learn()
            self._open_window(now)

    def _learn(self) -> None:
        """Move the limit by what the window that ends now has seen."""
        policy = self._policy
        short_s = self._rtt_sum_s / self._rtts if self._rtts else None
        if short_s is not None:
            self._remember(short_s)
        # Fewer calls than half the limit say nothing about it.
        if self._peak < self._limit / 2:
            return
        if self._drops or short_s is None:
            self._limit = self._within(self._limit * policy.backoff)
            return
        fair_s = min(policy.hard_s, max(policy.easy_s, policy.tolerance * self._long_s))
        gradient = min(1.0, max(0.5, fair_s / short_s))
        # Adding the queue while the gradient is below 1 has a fixed point of queue / (1 - gradient), so that a mild
        # overload never sheds (Netflix concurrency-limits#134).
        wanted = gradient * self._limit + (policy.queue if gradient == 1.0 else 0.0)
        self._limit = self._within((1 - policy.smoothing) * self._limit + policy.smoothing * wanted)

    def _remember(self, short_s: float) -> None:
        """Let the usual round trip follow: a plain mean while warming up, exponential afterwards."""
        policy = self._policy
        if self._n_long < policy.warm_up_windows:
            self._n_long += 1
            self._long_s += (short_s - self._long_s) / self._n_long
        else:
            self._long_s += (short_s - self._long_s) * 2 / (policy.long_windows + 1)
        # Coming out of a long overload the average would take minutes to fall.
        if self._long_s > 2 * short_s:
            self._long_s *= 0.95

    def _open_window(self, now: float) -> None:
        self._began_at = now
        self._rtts = 0
        self._drops = 0
        self._rtt_sum_s = 0.0
        self._peak = self._in_flight

    def _within(self, limit: float) -> float:
        return min(float(self._policy.max_inflight), max(float(self._policy.min_limit), limit))

    def __repr__(self) -> str:
        usual = f"usual {self._long_s * 1000:.1f} ms" if self._n_long else "nothing learnt yet"
        return f"<Limiter {self._in_flight}/{self.limit} in flight, {usual}>"
