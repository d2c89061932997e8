"""
How the stages of a training grow with the shop: CPU seconds at doubled sizes, and the exponent they grow by.

Shops are made in memory, quickly and without the truth that `tutti data synth` keeps: 40 events a shopper, 20 an item,
popularity by Zipf's law, tastes in groups. The rule: processor time of one thread, so that a busy machine matters
little; figures are for comparing sizes, and what is said of larger ones is an extrapolation.

    python -m loadtests.training_growth 2000000
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from services.collaborative_filtering import train as factors
from services.collaborative_filtering.model import Parameters
from services.training import affinity, lessons
from services.training.dataset import DAY_US, US, Dataset, Items
from services.training.repeatable import repeatable

SMALLEST = 250_000
GROUPS = 60
TYPES = np.array([1, 1, 1, 1, 1, 1, 4, 6], np.uint8)
"""EventType drawn from: mostly views, some baskets and purchases."""


def a_shop(n_events: int, seed: int = 1) -> Dataset:
    """A dataset of *n_events* over 200 days."""
    rng = np.random.default_rng(seed)
    n_items, n_users = n_events // 20, n_events // 40
    popularity = 1 / np.arange(1, n_items + 1) ** 0.8
    base = rng.permutation(n_items)[rng.choice(n_items, n_events, p=popularity / popularity.sum())]
    users = rng.zipf(1.6, n_events) % n_users
    users = np.where(rng.random(n_events) < 0.6, rng.integers(0, n_users, n_events), users)
    taste = rng.integers(0, GROUPS, n_users)
    keys = np.where(rng.random(n_events) < 0.7, base // GROUPS * GROUPS + taste[users], base) % n_items
    at_us = np.sort(rng.integers(0, 200 * DAY_US, n_events)) + 1_700_000_000 * US

    def words(text: Callable[[int], str]) -> np.ndarray:
        return np.array([text(i) for i in range(n_items)], object)

    items = Items(
        words(lambda i: f"thing {i % GROUPS} word{i % 997} kind{i % 31}"),
        words(lambda i: ""),
        words(lambda i: f"category {i % GROUPS}"),
        words(lambda i: f"brand {i % 200}"),
        np.ones(n_items, np.float32),
    )
    return Dataset(
        item_ids=[str(i) for i in range(n_items)],
        user_ids=[str(i) for i in range(n_users)],
        items=items,
        users=users.astype(np.int32),
        keys=keys.astype(np.int32),
        types=rng.choice(TYPES, n_events),
        at_us=at_us,
        sessions=np.full(n_events, -1, np.int32),
        until_us=int(at_us[-1]) + 1,
        files={},
    )


def measured(shop: Dataset) -> dict[str, float]:
    """Stage → CPU seconds, once each."""
    shape = len(shop.user_ids), shop.n_items
    wanted = affinity._Pairs.of(shop, shop.users, shape).strongest(shop, 60.0)  # its stages are measured
    sweep = Parameters(sweeps=1)
    stages: dict[str, Callable[[], object]] = {
        "words alike": lambda: affinity.cosines(affinity.texts(shop.items).T.tocsr(), 0.0),
        "pairs": lambda: affinity._Pairs.of(shop, shop.users, shape).strongest(shop, 60.0),
        "wanted by the same": lambda: affinity.cosines(wanted, 2.0),
        "factors, 3 of 13 half sweeps": lambda: factors.als(
            *factors.interactions(shop, 30 * 86_400.0), shape, sweep, 7
        ),
        "queries of a lesson": lambda: lessons.ask(shop, lessons.windows(shop)[-1], 1, sessions=0),
    }
    found = {}
    with repeatable(7):
        for name, stage in stages.items():
            began = time.process_time()
            stage()
            found[name] = time.process_time() - began
    return found


def main(arguments: list[str]) -> int:
    """Print a line a size, up to the number of events given, and each stage's exponent from the first to the last."""
    most = int(arguments[0]) if arguments else 4 * SMALLEST
    sizes = [SMALLEST * 2**i for i in range(32) if SMALLEST * 2**i <= most]
    if len(sizes) < 2:
        sys.stderr.write(f"{most} events: give at least {2 * SMALLEST}, or there is nothing to compare\n")
        return 2
    # Once for nothing: what is imported and compiled at the first call is no growth.
    measured(a_shop(SMALLEST // 5))
    found = []
    for size in sizes:
        found.append(measured(a_shop(size)))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found[-1].items())
        sys.stdout.write(f"{size:,} events, {size // 20:,} items: {told}; peak {peak_mb} MB so far\n")
        sys.stdout.flush()
    for name in found[0]:
        exponent = np.polyfit(np.log(sizes), np.log([max(one[name], 1e-3) for one in found]), 1)[0]
        sys.stdout.write(f"{name}: grows with events ** {exponent:.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
