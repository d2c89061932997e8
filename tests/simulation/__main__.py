"""
Explore seeds, or replay one.

    python -m tests.simulation --seeds 50000 --first 1
    python -m tests.simulation --replay 4711 --verbose

Exits with 1 when an invariant is broken; the first such seed is shown with its plan.
"""

import argparse
import sys
import time

from tests.simulation.explore import TWICE_EVERY, Found, explore, judged
from tests.simulation.plan import plan_of

TOLD_EVERY = 1000
"""Seeds between two lines of progress: twenty seconds."""


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default 2000)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    parser.add_argument("--twice", action="store_true", help="run every seed twice, not only every fourth")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run this one and show its plan")
    parser.add_argument("--verbose", action="store_true", help="with --replay: the whole trace")
    given = parser.parse_args()
    if given.replay is not None:
        return replay(given.replay, given.verbose)
    began_at, found = time.monotonic(), Found()
    for part in explore(given.first, given.seeds, given.workers, 1 if given.twice else TWICE_EVERY):
        found += part
        if found.seeds % TOLD_EVERY == 0:
            print(f"{found.seeds} seeds, {len(found.broken)} broken", file=sys.stderr, flush=True)
        if part.broken:
            break
    print(f"{found.seeds} seeds from {given.first} in {time.monotonic() - began_at:.1f} s, {len(found.broken)} broken")
    if not found.broken:
        for what, count in sorted(found.seen.items()):
            print(f"  {count:8d}  {what}")
        return 0
    print(f"broken: {sorted(found.broken)}\n")
    return replay(min(found.broken), given.verbose)


def replay(seed: int, verbose: bool) -> int:
    """Run *seed* and print what it is, what it did and what it broke."""
    print(plan_of(seed))
    outcome = judged(seed)
    if verbose:
        for at_us, *what in outcome.trace:
            print(f"  {at_us / 1e6:10.6f} s  {' '.join(map(str, what))}")
    print(f"trace {outcome.digest}, {len(outcome.trace)} lines")
    for violation in outcome.violations:
        print(f"BROKEN {violation}")
    print(f"again: python -m tests.simulation --replay {seed} --verbose")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
