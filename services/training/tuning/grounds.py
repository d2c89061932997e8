"""
What trials stand on: a data directory of the past, a window to choose on, and a later one to confirm on.

The rule: nothing at or after `until` is looked at, which by default is where the first window that `tutti evaluate`
may judge begins. The catalogue is that of an evaluation's past (evaluation/past.py), without what nobody knew then.

    DIR/tuning/past/    that directory;  DIR/tuning/studies.db  what was tried;  DIR/tuning/report.json  what came of it
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis.model import GenerateQueries
from services.training import dataset as datasets
from services.training import lessons, vocabulary
from services.training.dataset import Dataset, DatasetUnusable, iso
from services.training.evaluation import past as pasts
from services.training.evaluation.tasks import Task, tasks
from services.training.split import Window, window

FOLDER = "tuning"

HOME, PAGES = ("discovery", "rebuy"), ("item", "cart")
"""Tasks of the two kinds of pages: where the re-ranked order is shown, and where the fused one stands (ADR 12)."""

MOST = 2_000
"""Queries a task. Judged: with 5,000 an interval is a third narrower, and a trial asks two and a half times as long."""

_PLACEMENTS = {
    "home": common_pb2.PLACEMENT_HOME,
    "item": common_pb2.PLACEMENT_ITEM,
    "cart": common_pb2.PLACEMENT_CART,
}


@dataclass(frozen=True)
class Sitting:
    """One judged window: what was known before it, and who is asked for on which page."""

    window: Window
    everything: Dataset
    tasks: tuple[Task, ...]

    @cached_property
    def past(self) -> Dataset:
        """One object for as long as the sitting lives, so that what is learnt from it is learnt once."""
        return self.everything.before(self.window.start_us)

    def queries(self, task: Task, count: int, rows: NDArray[np.int64] | None = None) -> GenerateQueries:
        """Ask for *count* candidates for every query of *task*, or those at *rows*, as of the window's start."""
        chosen = task if rows is None else task.only(rows)
        q = len(chosen)
        placements = np.full(q, _PLACEMENTS[task.placement], np.uint8)
        moments = np.full(q, self.window.start_us)
        shoppers = self.everything.shoppers(chosen.users, moments, chosen.context, placements)
        return GenerateQueries(np.full(q, count, np.int32), shoppers, chosen.gone, Rows.empty(q))


@dataclass(frozen=True)
class Ground:
    """
    place    the data directory of the past
    digest   of everything that decides what a trial comes to, but code and parameters
    """

    place: Path
    until_us: int
    choosing: Sitting
    confirming: Sitting
    seed: int
    digest: str


def first_judged(everything: Dataset, source: str) -> int:
    """Where the earliest window that `tutti evaluate` can judge begins (µs); the data's end where it can judge none."""
    for name in ("validation", "test"):
        try:
            return window(everything, name, source).start_us
        except DatasetUnusable:
            continue
    return everything.until_us


def of(data: Path, seed: int, until_us: int | None = None, most: int = MOST) -> Ground:
    """
    The ground under the tuning of *data*.

    Args:
        until_us: no event from here on is looked at; None: `first_judged`.

    Raises:
        DatasetUnusable: there is no such data, or its past holds no two windows with somebody to judge.
    """
    vocabulary.maintain(data)
    whole = datasets.load(data)
    until_us = first_judged(whole, pasts.source_of(data)) if until_us is None else min(until_us, whole.until_us)
    if not len(whole.before(until_us)):
        raise DatasetUnusable(f"no event of {data} is before {iso(until_us)}, where tuning is to end; give --until")
    place = data / FOLDER / "past"
    pasts.write(data, place, until_us)
    vocabulary.maintain(place)
    everything = datasets.load(place)
    windows = lessons.windows(everything)
    earlier = [w for w in windows if w.end_us <= windows[-1].start_us]
    if not earlier:
        raise DatasetUnusable(f"{len(everything)} events until {iso(until_us)} are too few to tune on")
    sittings = []
    for one in (earlier[-1], windows[-1]):
        found = [task for task in tasks(everything, one, seed, most).judged if task.name in (*HOME, *PAGES)]
        if not any(task.name in HOME for task in found) or not len(everything.before(one.start_us)):
            raise DatasetUnusable(
                f"nobody who came before {iso(one.start_us)} wanted anything until {iso(one.end_us)}: tuning needs two "
                f"windows with somebody to judge before {iso(until_us)}"
            )
        sittings.append(Sitting(one, everything, tuple(found)))
    files = json.loads((place / datasets.INFO_FILE).read_text(encoding="utf-8"))["sha256"]
    content = [files, until_us, seed, most, *([s.window.start_us, s.window.end_us] for s in sittings)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Ground(place, until_us, sittings[0], sittings[1], seed, digest)
