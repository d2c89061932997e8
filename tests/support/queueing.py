"""
A dependency as queueing theory knows it: Poisson arrivals, a few workers, one queue, and a caller that gives up.

Simulations assert here; the ones of Netflix's limiter did not, and its drifts stayed.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.core.limiter import Limiter


@dataclass
class Served:
    """What became of the calls of one period."""

    until: float
    limit: int
    answered: int = 0
    dropped: int = 0
    refused: int = 0
    rtts: list[float] = field(default_factory=list)

    @property
    def mean_rtt_s(self) -> float:
        return sum(self.rtts) / len(self.rtts)


def serve(
    limiter: Limiter,
    *,
    workers: int,
    service_s: Callable[[float], float],
    per_s: float,
    seconds: float,
    cap_s: float = 0.04,
    period_s: float = 10.0,
    seed: int = 1,
) -> list[Served]:
    """Offer *per_s* calls a second through *limiter*; *service_s* is what a worker takes for one at that moment."""
    rng = random.Random(seed)
    free_at = [0.0] * workers
    ends: list = []
    periods = [Served(period_s, limiter.limit)]
    now = 0.0
    for n in range(int(per_s * seconds)):
        now += rng.expovariate(per_s)
        while ends and ends[0][0] <= now:
            at, _, slot, rtt_s = heapq.heappop(ends)
            if rtt_s is None:
                slot.drop(at)
                periods[-1].dropped += 1
            else:
                slot.sample(at, rtt_s)
                periods[-1].answered += 1
                periods[-1].rtts.append(rtt_s)
        if now > periods[-1].until:
            periods.append(Served(periods[-1].until + period_s, limiter.limit))
        periods[-1].limit = limiter.limit
        slot = limiter.try_acquire(now)
        if slot is None:
            periods[-1].refused += 1
            continue
        begins_at = max(now, free_at[0])
        ends_at = begins_at + service_s(now) * rng.uniform(0.8, 1.2)
        # A worker that comes to a call whose deadline has passed does not begin it.
        if begins_at <= now + cap_s:
            heapq.heapreplace(free_at, ends_at)
        in_time = ends_at <= now + cap_s
        heapq.heappush(ends, (min(ends_at, now + cap_s), n, slot, ends_at - now if in_time else None))
    return periods
