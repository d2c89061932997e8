"""
Trials of one stage: Optuna proposes, what was tried is kept in SQLite, hopeless trials are cut short.

The rule: a search that was stopped and goes on tries what an unbroken one would have tried. The first trial is always
the defaults; nothing that has finished is tried again; a study is found by a name that holds a digest of what it
stands on, so that trials on other data or other code are never mixed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.training.tuning.space import Space, Value, defaults

if TYPE_CHECKING:
    import optuna

Values = Mapping[str, Value]

_RANDOM = 10
"""Trials by chance before the search models anything; Optuna's default. Source: Bergstra et al., NIPS 2011 (TPE)."""

_BEFORE_PRUNING = 5
"""Trials that are never cut short; Optuna's default. A trial is cut where it lies below their median so far."""


class Pruned(Exception):
    """This trial is not worth finishing. Raised through `Attempt` by the callback it was given."""


Attempt = Callable[[Values, Callable[[float], None]], float]
"""(values, tell the value so far) → the value, higher is better. Telling may raise `Pruned`; pass it on."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One that has finished: what was tried, and what it reached; None where it was cut short."""

    number: int
    values: Values
    reached: float | None


@dataclass(frozen=True, slots=True)
class Search:
    """Where a search stands."""

    trials: tuple[Trial, ...]
    start: Values

    @property
    def default(self) -> Trial | None:
        """The trial of the defaults."""
        return next((t for t in self.trials if t.values == self.start and t.reached is not None), None)

    @property
    def best(self) -> Trial | None:
        """The best that was not cut short; the earliest of equals, so that defaults stay where nothing is better."""
        whole = [trial for trial in self.trials if trial.reached is not None]
        return max(whole, key=lambda trial: (trial.reached, -trial.number), default=None)


def search(
    path: Path,
    name: str,
    space: Space,
    attempt: Attempt,
    seed: int,
    trials: int,
    may_go_on: Callable[[], bool] = lambda: True,
    tell: Callable[[Search], None] = lambda where: None,
    also: Sequence[Values] = (),
) -> Search:
    """
    Go on with the study *name* in the database at *path* until it has *trials* finished trials, or may not.

    Args:
        also: tried right after the defaults, as far as they lie in *space*.
        tell: called after every trial.

    Raises:
        whatever *attempt* raises, KeyboardInterrupt included; the trial then counts as not held.
    """
    import optuna

    study = _opened(path, name)
    started = defaults(space)
    _enqueue(study, space, [started, *also])
    while True:
        where = _where(study, space, started)
        if where.trials:
            tell(where)
        if len(where.trials) >= trials or not may_go_on():
            return where
        # By what has finished, not by what was begun: a trial that was interrupted is then proposed again.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(where.trials), n_startup_trials=_RANDOM)
        trial = study.ask()
        values = {axis.name: axis.suggest(trial) for axis in space}
        known = next((earlier for earlier in where.trials if earlier.values == values), None)
        try:
            reached = attempt(values, _teller(trial)) if known is None else known.reached
        except Pruned:
            reached = None
        except BaseException:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        if reached is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, reached)


def _opened(path: Path, name: str) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name=name,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_BEFORE_PRUNING),
        load_if_exists=True,
    )
    # A process that was killed could not say so.
    for left in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)
    return study


def _enqueue(study: optuna.Study, space: Space, wanted: Sequence[Values]) -> None:
    """Queue what was neither tried nor queued yet."""
    import optuna

    state = optuna.trial.TrialState
    known = [
        trial.params or trial.system_attrs.get("fixed_params", {})
        for trial in study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED, state.WAITING))
    ]
    for values in wanted:
        codes = {axis.name: axis.coded(values.get(axis.name, axis.default)) for axis in space}
        if None not in codes.values() and codes not in known:
            study.enqueue_trial(codes)
            known.append(codes)


def _where(study: optuna.Study, space: Space, started: Values) -> Search:
    import optuna

    state = optuna.trial.TrialState
    held = [
        Trial(
            one.number,
            {axis.name: axis.decoded(one.params[axis.name]) for axis in space},
            one.value if one.state == state.COMPLETE else None,
        )
        for one in study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED))
    ]
    return Search(tuple(held), started)


def _teller(trial: optuna.Trial) -> Callable[[float], None]:
    step = 0

    def so_far(value: float) -> None:
        nonlocal step
        trial.report(value, step)
        step += 1
        if trial.should_prune():
            raise Pruned

    return so_far
