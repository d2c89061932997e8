"""
A generator's own parameters, judged by its own lists.

The rule: a trial is what training would do with these parameters: what the generator chooses itself is chosen on what
came before every lesson, it is fitted on the window's past, asked for its quota, and judged by its first twenty. Only
the transformer's trial is left out: it has a verdict of its own, and would cost more than all the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.chassis.model import Candidates, GenerateQueries, Generator, Resources
from services.training import lessons, registry
from services.training.metrics import DEEP_CUT
from services.training.repeatable import repeatable
from services.training.sources import SourceSpec, service
from services.training.tuning import space as spaces
from services.training.tuning.grounds import HOME, PAGES, Ground, Sitting
from services.training.tuning.outcome import Outcome, heads, of_lists
from services.training.tuning.space import Space, Value

Answers = Mapping[str, Candidates]
"""Task → what a generator proposed for each of its queries."""

_CHUNKS = 5
"""Parts in which shoppers are asked, after each of which a trial may be cut short. Judged: a fifth of some thousand
queries tells a hopeless trial from a good one."""


@dataclass(frozen=True)
class GeneratorStage:
    """
    Moves the parameters of one generator.

    ask  parameters, sitting → answers; may remember
    """

    spec: SourceSpec
    ground: Ground
    ask: Callable[[Mapping[str, Any], Sitting], Answers]

    weight = 3.0
    # All pages: ranked by home alone, the best of nine trials on the embedded shop gained there and lost in the basket
    # (ndcg@10 .213 → .162), so that nothing was kept.
    tasks = (*HOME, *PAGES)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def space(self) -> Space:
        return spaces.of(self.spec.name)

    def attempt(self, values: Mapping[str, Value], so_far: Callable[[float], None]) -> float:
        """Ask shoppers in parts."""
        sitting = self.ground.choosing
        generator = fitted(self.spec, spaces.nested(values), self.ground, sitting)
        asked = [task for task in sitting.tasks if task.name in self.tasks]
        lists = {task.name: np.full((len(task), DEEP_CUT), -1, np.int32) for task in asked}
        rows = {task.name: np.empty(0, np.int64) for task in asked}
        value = 0.0
        for part in range(_CHUNKS):
            for task in asked:
                own = np.arange(part, len(task), _CHUNKS)
                if len(own):
                    lists[task.name][own] = heads(generator.generate(sitting.queries(task, self.spec.quota, own)))
                    rows[task.name] = np.sort(np.concatenate([rows[task.name], own]))
            known = [task.only(rows[task.name]) for task in asked if len(rows[task.name])]
            value = of_lists(known, {task.name: lists[task.name][rows[task.name]] for task in known}).value(self.tasks)
            if part < _CHUNKS - 1:
                so_far(value)
        return value

    def confirm(self, values: Mapping[str, Value]) -> Outcome:
        """Every task of the confirming window."""
        sitting = self.ground.confirming
        found = self.ask(spaces.nested(values), sitting)
        return of_lists(sitting.tasks, {name: heads(one) for name, one in found.items()})


def answers(spec: SourceSpec, parameters: Mapping[str, Any], ground: Ground, sitting: Sitting) -> Answers:
    """What the generator proposes for every query of *sitting*, up to its quota."""
    generator = fitted(spec, parameters, ground, sitting)
    return {task.name: generator.generate(sitting.queries(task, spec.quota)) for task in sitting.tasks}


def chosen(spec: SourceSpec, parameters: Mapping[str, Any], ground: Ground, sitting: Sitting) -> Mapping[str, Any]:
    """
    *parameters* and what the generator chooses beside them, on what came before every lesson.

    What the settings say of the source wins, as in training.
    """
    parameters = {**parameters, **spec.parameters}
    choose = getattr(service(spec.name, "train"), "choose", None)
    if choose is None:
        return parameters
    taught = lessons.windows(sitting.past)
    past = sitting.past.before(taught[0].start_us) if taught else sitting.past
    if not len(past):
        return parameters
    with repeatable(ground.seed):
        found: Mapping[str, Any] = choose(past, ground.seed, parameters, True)
    return found


def fitted(spec: SourceSpec, parameters: Mapping[str, Any], ground: Ground, sitting: Sitting) -> Generator:
    """A generator that saw only the sitting's past, ready to be asked."""
    used = chosen(spec, parameters, ground, sitting)
    models = workshop(ground)
    staged = registry.staging(models, spec.name)
    with repeatable(ground.seed):
        made = service(spec.name, "train").fit(sitting.past, used, ground.seed, staged)
    artefact = registry.publish(models, spec.name, "generator", staged, made, sitting.past, ground.seed)
    generator: Generator = service(spec.name, "serve").load(artefact, Resources(ground.place))
    shutil.rmtree(artefact.path)
    return generator


def workshop(ground: Ground) -> Path:
    """Where trials put their artefacts; nothing in it outlives its trial."""
    return ground.place / registry.MODELS / ".trials"


@dataclass(slots=True)
class Remembered:
    """A `Generator` that says again what it said: candidates are merged by the function that merges everybody's."""

    said: Candidates
    version: str = "remembered"

    def generate(self, queries: GenerateQueries) -> Candidates:
        """
        Raises:
            ValueError: other queries are asked than were answered.
        """
        if len(queries.exclude) != len(self.said.rows):
            raise ValueError(f"{len(queries.exclude)} queries are asked, {len(self.said.rows)} were answered")
        return self.said
