"""
From lists to figures: every method on one task, with intervals, slices, and every pair of methods tested.

The rule: all methods of a task are judged on the same queries by the same truth, and what is said of a difference is
said of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Int32
from services.training.dataset import Dataset
from services.training.evaluation.compare import compare, holm, interval, randomisation
from services.training.evaluation.methods import Past
from services.training.evaluation.slices import slices
from services.training.evaluation.tasks import Task
from services.training.metrics import CUT, METRICS, Judged, exposure, judge

TESTED = ("ndcg_at_10", "recall_at_20")
"""Metrics with intervals and paired tests; the goals are stated in these."""


POPULARITY = "popularity"
"""What every slice of the cold is compared with."""


@dataclass(frozen=True)
class Bench:
    """
    What figures are made with, beside lists: keys are those of the whole data.

    holders  (n_items,) shoppers who had each item before the window; shoppers: how many there were
    item_events, user_events  (n_items,), (n_users,) events before the window that say something
    user_visits  (n_users,) visits they came in
    """

    everything: Dataset
    holders: NDArray[np.int64]
    shoppers: int
    item_events: NDArray[np.int64]
    user_events: NDArray[np.int64]
    user_visits: NDArray[np.int64]
    seed: int

    @classmethod
    def of(cls, everything: Dataset, start_us: int, seed: int) -> Bench:
        """The bench of the window that begins at *start_us*."""
        past = Past(everything.before(start_us), seed)
        items = np.bincount(past.interactions.items, minlength=everything.n_items)
        return cls(everything, past.holders, int((past.counts > 0).sum()), items, past.counts, past.visits, seed)


@dataclass(frozen=True, slots=True)
class Lists:
    """One method's lists of a task, one array (q, 20) for each seed it was trained with."""

    by_seed: tuple[Int32, ...]


def judged(task: Task, lists: Mapping[str, Lists], bench: Bench, reference: str) -> tuple[dict[str, Any], Any]:
    """
    The figures of one task.

    Args:
        lists: method → its lists, in the order of the table.
        reference: the method all others are compared with, where it is there.

    Returns:
        the block of the report, and method → Judged averaged over seeds, for whoever wants to compare later.
    """
    results = {name: [judge(one, task.truth) for one in found.by_seed] for name, found in lists.items()}
    means = {name: _averaged(parts) for name, parts in results.items()}
    names = list(means)
    tests = {metric: compare(_columns(means, metric), bench.seed) for metric in TESTED}
    methods: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(names):
        figures: dict[str, Any] = dict(means[name].mean())
        figures |= _averaged_values([_exposed(one, bench) for one in lists[name].by_seed])
        figures["interval"] = {m: [float(t.low[i]), float(t.high[i])] for m, t in tests.items()}
        if len(results[name]) > 1:
            figures["by_seed"] = {m: [one.mean()[m] for one in results[name]] for m in METRICS}
        if reference in means and name != reference:
            r = names.index(reference)
            figures[f"{reference}_gains"] = {
                m: {
                    "mean": float(t.differences[r, i]),
                    "low": float(t.difference_low[r, i]),
                    "high": float(t.difference_high[r, i]),
                    "p": float(t.p[r, i]),
                }
                for m, t in tests.items()
            }
        methods[name] = figures
    main = tests[TESTED[0]]
    block = {
        "objective": task.objective,
        "placement": task.placement,
        "queries": len(task),
        "truth_items": float(np.diff(task.truth.offsets).mean()),
        "methods": methods,
        "pairs": {
            "metric": TESTED[0],
            "methods": names,
            "differences": main.differences.tolist(),
            "p": main.p.tolist(),
        },
        "slices": _sliced(task, lists, means, bench),
    }
    return block, means


def _sliced(
    task: Task, lists: Mapping[str, Lists], means: Mapping[str, Judged], bench: Bench
) -> dict[str, dict[str, Any]]:
    """Slice → queries, and of each method ndcg@10, recall@20 and what it gains on popularity."""
    found: dict[str, dict[str, Any]] = {}
    for one in slices(task, bench.user_events[task.users], bench.user_visits[task.users], bench.item_events):
        results = {
            name: _averaged([judge(rows[one.rows], one.truth) for rows in lists[name].by_seed]) for name in means
        }
        gains = _gains_on_popularity(results, bench.seed)
        found[one.name] = {
            "queries": len(one.rows),
            "methods": {
                name: {**{m: result.mean()[m] for m in TESTED}, **gains.get(name, {})}
                for name, result in results.items()
            },
        }
    return found


def _gains_on_popularity(results: Mapping[str, Judged], seed: int) -> dict[str, dict[str, Any]]:
    """Method → its gain in ndcg@10 on popularity, its 95 % interval, and p, corrected for the methods being many."""
    others = [name for name in results if name != POPULARITY]
    if POPULARITY not in results or not others:
        return {}
    base = results[POPULARITY].ndcg_at_10
    gains = np.column_stack([results[name].ndcg_at_10 - base for name in others])
    p = holm(randomisation(gains, seed))
    return {
        name: {
            "gain_on_popularity": float(gains[:, i].mean()),
            "gain_interval": list(interval(gains[:, i], seed)),
            "gain_p": float(p[i]),
        }
        for i, name in enumerate(others)
    }


def _exposed(lists: Int32, bench: Bench) -> dict[str, float]:
    shown = exposure(lists, bench.holders, bench.shoppers)
    figures = {"coverage_at_10": shown.coverage, "gini_at_10": shown.gini, "novelty_at_10": shown.novelty}
    categories = bench.everything.items.categories
    return {**figures, "categories_at_10": _categories(lists, categories)} if any(categories) else figures


def _categories(lists: Int32, categories: NDArray[np.object_]) -> float:
    """Mean number of distinct categories in a top ten."""
    codes = np.unique(categories.astype(str), return_inverse=True)[1]
    top = lists[:, :CUT]
    rows = np.repeat(np.arange(len(top)), top.shape[1]).reshape(top.shape)
    pairs = np.unique((rows[top >= 0] << 32) + codes[top[top >= 0]])
    return len(pairs) / max(len(lists), 1)


def _averaged(parts: Sequence[Judged]) -> Judged:
    """The mean over seeds of every query: seeds are no further shoppers."""
    return Judged(*(np.mean([getattr(one, metric) for one in parts], axis=0) for metric in METRICS))


def _averaged_values(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in parts])) for name in parts[0]}


def _columns(results: Mapping[str, Judged], metric: str) -> NDArray[np.float64]:
    return np.column_stack([getattr(one, metric) for one in results.values()])
