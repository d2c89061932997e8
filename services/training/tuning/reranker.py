"""
The re-ranker's parameters, judged by the order it gives what the tuned generators propose.

The rule: lessons are taught once a window, as training would teach them there (`pipeline.rehearse`); a trial fits,
loads and asks the re-ranker through the functions of training and serving. It cannot be cut short: what it would be
judged by is there only when all of it was fitted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Int32, Rows
from services.chassis.model import Candidates, Generator, Ranker, RerankQueries, Resources
from services.chassis.signals import owners
from services.training import lessons, pipeline, registry
from services.training.evaluation.tasks import Task
from services.training.repeatable import repeatable
from services.training.sources import SourceSpec, service
from services.training.tuning import space as spaces
from services.training.tuning.generators import Answers, Remembered, chosen, workshop
from services.training.tuning.grounds import HOME, Ground, Sitting
from services.training.tuning.outcome import Outcome, heads, of_lists
from services.training.tuning.space import Space, Value

_AT_ONCE = 256
"""Queries ordered at once. Derived: 256 lists of 400 rows and 120 columns are 50 MB."""


@dataclass(frozen=True, slots=True)
class _Desk:
    """What one window's trials share: the rehearsal, and for each task what is to be ordered."""

    rehearsal: pipeline.Rehearsal
    queries: Mapping[str, RerankQueries]
    tasks: Sequence[Task]


class RerankerStage:
    """Moves the re-ranker's parameters; home pages alone, since other pages keep the fused order (ADR 12)."""

    name = pipeline.RERANKER
    weight = 4.0
    tasks = HOME

    def __init__(
        self,
        sources: Sequence[SourceSpec],
        kept: Mapping[str, Mapping[str, Any]],
        ground: Ground,
        answers: Callable[[Sitting], Mapping[str, Answers]],
        progress: Callable[[str], None] = lambda what: None,
    ) -> None:
        """
        Args:
            kept: parameters by model as far as they are decided: the generators', and what of the re-ranker's is not
                this stage's to move.
            answers: what every source says to a sitting's queries.
        """
        self.space: Space = spaces.of(self.name)
        self._sources, self._kept, self._ground = sources, kept, ground
        self._answers, self._progress = answers, progress
        self._desks: dict[int, _Desk] = {}

    def attempt(self, values: Mapping[str, Value], so_far: Callable[[float], None]) -> float:
        """One fit; see above for why it is never cut short."""
        del so_far
        return self._outcome(values, self._ground.choosing).value(self.tasks)

    def confirm(self, values: Mapping[str, Value]) -> Outcome:
        """Both tasks of the confirming window."""
        return self._outcome(values, self._ground.confirming)

    def _outcome(self, values: Mapping[str, Value], sitting: Sitting) -> Outcome:
        desk = self._desk(sitting)
        ranker = self._fitted({**self._kept.get(self.name, {}), **spaces.nested(values)}, desk, sitting)
        lists = {name: _ordered(queries, ranker) for name, queries in desk.queries.items()}
        return of_lists(desk.tasks, lists)

    def _fitted(self, parameters: Mapping[str, Any], desk: _Desk, sitting: Sitting) -> Ranker:
        models, seed = workshop(self._ground), self._ground.seed
        names = [spec.name for spec in self._sources]
        staged = registry.staging(models, self.name)
        with repeatable(seed):
            made = service(self.name, "train", "reranker").fit(
                desk.rehearsal.lessons, desk.rehearsal.serving, names, parameters, seed, staged
            )
        artefact = registry.publish(models, self.name, "reranker", staged, made, sitting.past, seed)
        ranker: Ranker = service(self.name, "serve", "reranker").load(artefact, Resources(self._ground.place))
        shutil.rmtree(artefact.path)
        return ranker

    def _desk(self, sitting: Sitting) -> _Desk:
        if sitting.window.start_us not in self._desks:
            self._desks[sitting.window.start_us] = self._laid(sitting)
        return self._desks[sitting.window.start_us]

    def _laid(self, sitting: Sitting) -> _Desk:
        parameters = {
            spec.name: chosen(spec, self._kept.get(spec.name, {}), self._ground, sitting) for spec in self._sources
        }
        place, seed, start_us = self._ground.place, self._ground.seed, sitting.window.start_us
        rehearsal = pipeline.rehearse(
            place, self._sources, parameters, sitting.everything, start_us, seed, self._progress
        )
        said, tasks = self._answers(sitting), [task for task in sitting.tasks if task.name in HOME]
        quotas = {spec.name: spec.quota for spec in self._sources}
        queries = {}
        for task in tasks:
            asked = sitting.queries(task, 1)
            remembered: dict[str, Generator] = {name: Remembered(answers[task.name]) for name, answers in said.items()}
            candidates, scores, ranks = lessons.propose(remembered, quotas, asked.shoppers, asked.exclude)
            numeric, words = rehearsal.columns(task.users)
            queries[task.name] = RerankQueries(
                asked.shoppers, candidates, tuple(remembered), scores, ranks, numeric, words, rehearsal.plan.digest
            )
        return _Desk(rehearsal, queries, tasks)


def _ordered(queries: RerankQueries, ranker: Ranker) -> Int32:
    """The first twenty of every query as *ranker* orders its candidates, ties by key."""
    parts = []
    for start in range(0, len(queries.candidates), _AT_ONCE):
        asked = _part(queries, np.arange(start, min(start + _AT_ONCE, len(queries.candidates))))
        scores, rows = ranker.rank(asked), asked.candidates
        order = np.lexsort((rows.values, -scores, owners(rows)))
        parts.append(heads(Candidates(Rows(rows.offsets, rows.values[order]), scores[order])))
    return np.concatenate(parts)


def _part(queries: RerankQueries, chosen: NDArray[np.int64]) -> RerankQueries:
    candidates, at = queries.candidates.take(chosen)
    return RerankQueries(
        queries.shoppers.take(chosen),
        candidates,
        queries.sources,
        queries.source_scores[at],
        queries.source_ranks[at],
        queries.user_numeric[chosen],
        queries.user_categorical[chosen],
        queries.feature_digest,
    )
