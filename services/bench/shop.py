"""
What is measured on: a trained data directory, made when none is named, and a copy of it that may be written to.

The rule: a measurement leaves no trace in the shop it measures. What it served would otherwise stand in the shop's
slate log, and the next `tutti train --from-log` would learn from a load test.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.bench.options import BenchUnusable

ITEMS, SHOPPERS, EVENTS = 50_000, 20_000, 600_000
"""The shop of whoever names none: the catalogue of the project's objectives, and 30 events a shopper."""

BY_LINK = ("events.parquet", "items.parquet", "models")
"""Large, and only read, or replaced whole."""

BY_COPY = (
    "dataset.json",
    "vocabulary.parquet",
    "shoppers.json",
    "tuned.json",
    "redactions.parquet",
    "features",
    "feature_store",
)
"""Small, or written into. What is in neither list belongs to a running system: logs, status, Redis' files."""

Say = Callable[[str], None]


def default_shop(home: Path | None = None) -> Path:
    """Where the shop of whoever names none lies: `$TUTTI_HOME/bench/shop-50000`."""
    return (home or Path(os.environ.get("TUTTI_HOME") or ".tutti")) / "bench" / f"shop-{ITEMS}"


def made(
    place: Path, say: Say, items: int = ITEMS, shoppers: int = SHOPPERS, events: int = EVENTS, seed: int = 7
) -> Path:
    """*place*, with a shop of that size, made and trained unless it was before."""
    from services.training import pipeline, sources, synthetic

    if not (place / "dataset.json").is_file():
        say(f"making a shop of {items:,} items, {shoppers:,} shoppers and {events:,} events, once")
        synthetic.build(place, seed=seed, shoppers=shoppers, items=items, events=events)
    if not is_trained(place):
        say("training it, once; the default size takes many minutes")
        began = time.monotonic()
        pipeline.train(place, sources.configured(), seed, progress=say, promote_anyway=True)
        say(f"trained in {time.monotonic() - began:.0f} s, and kept in {place}")
    return place


def is_trained(data: Path) -> bool:
    """Whether models of *data* serve."""
    return (data / "models" / "training.json").is_file()


def checked(data: Path) -> Path:
    """
    *data*, absolute.

    Raises:
        BenchUnusable: there is no trained shop.
    """
    if not (data / "events.parquet").is_file():
        raise BenchUnusable(f"no data directory {data}; make one with `tutti data synth --out {data}`")
    if not is_trained(data):
        raise BenchUnusable(f"{data} is not trained; run `tutti train --data {data}`")
    return data.resolve()


@contextmanager
def copied(data: Path) -> Iterator[Path]:
    """A data directory with the shop of *data*, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="tutti-bench-") as folder:
        place = Path(folder) / "shop"
        place.mkdir()
        for name in BY_LINK:
            (place / name).symlink_to((data / name).resolve())
        for name in BY_COPY:
            if (data / name).is_dir():
                shutil.copytree(data / name, place / name)
            elif (data / name).is_file():
                shutil.copy2(data / name, place / name)
        yield place
