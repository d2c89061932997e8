"""
Who and what the figures are broken down by: shoppers by how much is known of them, items by how long they are known.

The rule: a slice is a fact of the past. Shoppers' slices keep the whole truth of some queries; items' slices keep the
part of every truth that is in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Rows
from services.chassis.signals import owners
from services.training.evaluation.tasks import Task

COLD_EVENTS = 5
"""Below this a shopper, or an item, is cold. Borrowed: the k-core that most published data sets cut off."""

ACTIVE_SHARE = 0.2
"""Share of a task's shoppers called heavy, and light. Judged: large enough for an interval, small enough to differ."""

_LEAST = 5
"""Queries below which a slice says nothing."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Some queries of a task (rows of it) with the truth they are judged by."""

    name: str
    rows: NDArray[np.int64]
    truth: Rows


def slices(
    task: Task,
    shopper_events: NDArray[np.int64],
    shopper_visits: NDArray[np.int64],
    item_events: NDArray[np.int64],
) -> list[Slice]:
    """
    The slices of *task* that hold enough queries.

    Args:
        shopper_events, shopper_visits: (q,) events and visits of each query's shopper before the window.
        item_events: (n_items,) the same of each item.
    """
    known = shopper_events[shopper_events > 0]
    few, many = np.quantile(known, [ACTIVE_SHARE, 1 - ACTIVE_SHARE]) if len(known) else (0.0, 0.0)
    shoppers = {
        "no event before": shopper_events == 0,
        "one event": shopper_events == 1,
        "one visit": shopper_visits == 1,
        f"cold shoppers, 1 to {COLD_EVENTS - 1} events": (shopper_events > 0) & (shopper_events < COLD_EVENTS),
        f"light, up to {few:.0f} events": (shopper_events > 0) & (shopper_events <= few),
        f"heavy, {many:.0f} events or more": (shopper_events > 0) & (shopper_events >= many),
    }
    items = {
        "new items, no event before": item_events == 0,
        f"cold items, 1 to {COLD_EVENTS - 1} events": (item_events > 0) & (item_events < COLD_EVENTS),
    }
    found = [_by_shopper(name, task, np.flatnonzero(mask)) for name, mask in shoppers.items()]
    found += [_by_item(name, task, mask) for name, mask in items.items()]
    # A slice that is the whole task says what the task says.
    return [one for one in found if len(one.rows) >= _LEAST and (one.truth is not task.truth)]


def _by_shopper(name: str, task: Task, rows: NDArray[np.int64]) -> Slice:
    if len(rows) == len(task):
        return Slice(name, rows, task.truth)
    return Slice(name, rows, Rows.of([task.truth.row(int(i)) for i in rows]))


def _by_item(name: str, task: Task, mask: NDArray[np.bool_]) -> Slice:
    kept = mask[task.truth.values]
    counts = np.bincount(owners(task.truth)[kept], minlength=len(task))
    rows = np.flatnonzero(counts)
    offsets = np.concatenate([[0], np.cumsum(counts[rows])]).astype(np.int64)
    return Slice(name, rows, Rows(offsets, task.truth.values[kept]))
