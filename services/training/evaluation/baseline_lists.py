"""
The lists of every baseline for every task, fitted on the past and tuned on the window before the judged one.

The rule: everything here is given the data directory of the past as a `Dataset`; the judged window enters as who asks
and what the page shows, never as what was wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Int32, Rows
from services.training import baselines
from services.training.baselines import ContextScorer, Scorer
from services.training.dataset import DAY_US, Dataset
from services.training.evaluation.lists import BatchScorer, rank
from services.training.evaluation.methods import FOR_EVERYBODY, PERSONAL, Method, Past, many_items
from services.training.evaluation.tasks import Task, home, inside
from services.training.evaluation.tuning import Choice, tune
from services.training.metrics import judge
from services.training.split import WINDOW_DAYS, Window

HOME = ("discovery", "rebuy")
MOST_TO_TUNE_ON = 1_000
"""Queries a task is tuned on. ndcg@10 then has a standard error near .007; settings that differ by less are as good."""

Progress = Callable[[str], None]


@dataclass
class Baselines:
    """task → method → lists (q, 20) in the keys of *past*; settings by method and task; what was left out, and why."""

    lists: dict[str, dict[str, Int32]] = field(default_factory=dict)
    settings: dict[str, dict[str, Choice]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def baseline_lists(
    past: Dataset,
    tasks: Sequence[Task],
    seed: int,
    progress: Progress = lambda what: None,
    methods: Sequence[Method] = PERSONAL,
) -> Baselines:
    """
    Lists of every method for every task.

    Args:
        tasks: as *past* sees them: users are its rows (-1 for whom it does not know), keys are its keys, and the truth
            is not looked at.
        methods: those that know the shopper's past.
    """
    known, found = Past(past, seed), Baselines({task.name: {} for task in tasks})
    progress("baselines: popularity")
    for method in FOR_EVERYBODY:
        everybody = _for_whoever_asks(method.fit(known))
        for task in tasks:
            found.lists[task.name][method.name] = _lists(known, task, everybody)
    trial = _trial(known)
    at_home = [task for task in tasks if task.name in HOME]
    for method in methods if at_home else ():
        if (reason := method.refuses(known)) is not None:
            found.left_out[method.name] = reason
            continue
        progress(f"baselines: tuning {method.name}")
        found.settings[method.name] = chosen = _choose(method, trial)
        progress(f"baselines: {method.name}")
        scorers: dict[tuple[Any, ...], Scorer] = {}
        for task in at_home:
            settings = chosen[task.name].settings
            key = tuple(settings.items())
            if key not in scorers:
                scorers[key] = method.fit(known, **settings)
            found.lists[task.name][method.name] = _lists(known, task, _by_user(known, task, scorers[key]))
    progress("baselines: pages")
    pages = _Pages(known)
    if any(task.placement in ("item", "cart") for task in tasks) and (reason := many_items(known)) is not None:
        found.left_out["co-occurrence"] = reason
    for task in tasks:
        for name, score in pages.scorers(task).items():
            found.lists[task.name][name] = _lists(known, task, score)
    return found


@dataclass(frozen=True, slots=True)
class _Trial:
    """The past of the last four weeks of the past, and what was wanted in them."""

    before: Past
    judged: tuple[Task, Task]


def _trial(known: Past) -> _Trial | None:
    """What methods are tuned on; None where the past is too short, too long or nobody came back in it."""
    whole = known.dataset
    start_us = whole.until_us - WINDOW_DAYS * DAY_US
    if not len(whole) or whole.at_us[0] >= start_us or not known.may_be_tuned:
        return None
    judged = home(whole, Window(start_us, whole.until_us), known.seed, MOST_TO_TUNE_ON)
    return _Trial(Past(whole.before(start_us), known.seed), judged) if all(len(task) for task in judged) else None


def _choose(method: Method, trial: _Trial | None) -> dict[str, Choice]:
    """The settings that do best in the trial, for discovery and for re-buy; without one, the defaults."""
    if not method.axes or trial is None or method.refuses(trial.before) is not None:
        defaults = {axis: values[0] for axis, values in method.axes.items()}
        return {name: Choice(defaults, float("nan"), 0) for name in HOME}
    before = trial.before

    def attempt(settings: Mapping[str, object]) -> dict[str, float]:
        scorer = method.fit(before, **settings)
        return {
            task.name: float(judge(_lists(before, task, _by_user(before, task, scorer)), task.truth).ndcg_at_10.mean())
            for task in trial.judged
        }

    return tune(method.axes, HOME, attempt)


def _lists(known: Past, task: Task, score: BatchScorer) -> Int32:
    n_items = known.dataset.n_items
    paths = known.dataset.items.categories
    masks: dict[str, NDArray[np.bool_]] = {}

    def allowed(query: int) -> NDArray[np.bool_] | None:
        if not task.categories:
            return None
        category = task.categories[query]
        if category not in masks:
            masks[category] = np.fromiter((inside(path, category) for path in paths), bool, n_items)
        return masks[category]

    return rank(score, len(task), n_items, task.gone, known.lately, allowed)


def _by_user(known: Past, task: Task, scorer: Scorer) -> BatchScorer:
    """Scores of a batch of queries; nothing for whom the past does not know."""

    def score(batch: NDArray[np.int64]) -> NDArray[np.float32]:
        users = task.users[batch]
        is_known = users >= 0
        if is_known.all():
            return scorer(users)
        scores = np.zeros((len(batch), known.dataset.n_items), np.float32)
        if is_known.any():
            scores[is_known] = scorer(users[is_known])
        return scores

    return score


def _for_whoever_asks(scorer: Scorer) -> BatchScorer:
    """The same for all, also for whom the past does not know."""
    return lambda batch: scorer(np.zeros_like(batch))


@dataclass(frozen=True)
class _Pages:
    """What can be said from the page's item, the basket or the category, without a model of the shopper."""

    known: Past

    def scorers(self, task: Task) -> dict[str, BatchScorer]:
        """Method → scores for the queries of *task*; none on the home page."""
        match task.placement:
            case "item" | "cart":
                return {name: _by_context(task, scorer) for name, scorer in self._of_context.items()}
            case "category":
                return {"repeat": _by_user(self.known, task, baselines.repeat(self.known.interactions))}
            case _:
                return {}

    @cached_property
    def _of_context(self) -> dict[str, ContextScorer]:
        scorers: dict[str, ContextScorer] = {}
        if many_items(self.known) is None:
            scorers["co-occurrence"] = baselines.co_occurrence(self.known.baskets())
        return scorers | ({"content (TF-IDF)": baselines.alike(self.known.texts)} if any(self.known.texts) else {})


def _by_context(task: Task, scorer: ContextScorer) -> BatchScorer:
    return lambda batch: scorer(*_csr(task.context, batch))


def _csr(rows: Rows, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets (b + 1,) and keys of consecutive rows."""
    offsets = rows.offsets[batch[0] : batch[-1] + 2]
    keys = rows.values[offsets[0] : offsets[-1]].astype(np.int64)
    return offsets - offsets[0], keys


def seen_from(task: Task, users: NDArray[np.int64], key_of: NDArray[np.int32]) -> Task:
    """
    *task* in the words of the past, its truth left behind.

    Args:
        users: (q,) rows of the past, -1 for whom it does not know.
        key_of: (n_items,) the past's key of each of our items, -1 where it does not know the item.
    """
    q = len(task)
    empty = Rows.empty(q)
    return replace(task, users=users, truth=empty, gone=_known(task.gone, key_of), context=_known(task.context, key_of))


def _known(rows: Rows, key_of: NDArray[np.int32]) -> Rows:
    values = key_of[rows.values]
    kept = values >= 0
    counts = np.concatenate([[0], np.cumsum(kept)])
    return Rows(counts[rows.offsets].astype(np.int64), values[kept])
