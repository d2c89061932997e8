"""
Many seeds on all cores; every fourth, or all if wanted, are run twice.

The second run must leave the same trace; and where no cache is on, even without the jumps of the wall clock, since
nothing but the freshness of remembered slates may depend on it (I10).
"""

import gc
import itertools
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.plan import plan_of
from tests.simulation.world import Outcome, run

CHUNK = 25
"""Seeds a worker takes at a time: a second of work, so that no core waits long for the other at the end."""

TWICE_EVERY = 4
"""So that 2,000 seeds stay under a minute on two cores; the nightly run does all of them twice."""


@dataclass(slots=True)
class Found:
    """What a stretch of seeds came to. *broken*: seed → what it broke."""

    seeds: int = 0
    broken: dict[int, list[str]] = field(default_factory=dict)
    seen: Counter = field(default_factory=Counter)

    def __iadd__(self, other: "Found") -> "Found":
        self.seeds += other.seeds
        self.broken |= other.broken
        self.seen += other.seen
        return self


def judged(seed: int) -> Outcome:
    """One seed, run twice; a difference between the two is a violation of the first."""
    plan = plan_of(seed)
    first = run(plan)
    second = run(plan, jumps=plan.with_cache)
    if first.digest != second.digest:
        why = "a second run" if plan.with_cache else "the same with no jump of the wall clock"
        pairs = itertools.zip_longest(first.trace, second.trace)
        before, after = next(pair for pair in pairs if pair[0] != pair[1])
        first.violations.append(f"I10 {why} went another way: {after} instead of {before}")
    return first


def stretch(first: int, count: int, twice_every: int = TWICE_EVERY) -> Found:
    """Seeds *first* to *first* + *count* - 1, in this process."""
    found = Found(seeds=count)
    for seed in range(first, first + count):
        outcome = judged(seed) if seed % twice_every == 0 else run(plan_of(seed))
        found.seen += outcome.seen
        if outcome.violations:
            found.broken[seed] = outcome.violations
    return found


def explore(first: int, count: int, workers: int | None = None, twice_every: int = TWICE_EVERY) -> Iterator[Found]:
    """The same on *workers* processes (all cores), stretch by stretch in order."""
    starts = range(first, first + count, CHUNK)
    sizes = [min(CHUNK, first + count - start) for start in starts]
    # Not forked: whoever explores may have threads, and gRPC does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context, initializer=_prepare) as pool:
        yield from pool.map(stretch, starts, sizes, itertools.repeat(twice_every))


def _prepare() -> None:
    # What was imported is never looked at again: a full collection falls from 90 ms to 1 ms.
    gc.collect()
    gc.freeze()
