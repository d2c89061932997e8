"""
`tutti tune`, top to bottom: ground, then stage by stage trials, a verdict, and the tuned file; at last the whole slate.

    each generator's own parameters → fusion, on their lists → the re-ranker, on theirs → all of it against the defaults

The rule: whenever it is stopped, what was decided is in `DIR/tuned.json` and what was tried is in the study; going on
repeats neither. The file is one run's: it is written anew when the first stage is decided.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from protos import artefacts
from protos import tuned as tuned_file
from protos.tuned import Tuned
from services.training import pipeline
from services.training import sources as configured
from services.training import tuned as tuned_files
from services.training.dataset import DatasetUnusable, iso
from services.training.sources import Fusion, SourceSpec, check, code_of
from services.training.tuning import generators, grounds, space, stages
from services.training.tuning.fusion import FusionStage
from services.training.tuning.generators import Answers, GeneratorStage
from services.training.tuning.grounds import HOME, Ground, Sitting
from services.training.tuning.reranker import RerankerStage
from services.training.tuning.space import Space
from services.training.tuning.stages import Held, Stage
from services.training.tuning.study import Search, search
from services.training.tuning.verdict import decide

FUSION, RERANKER = "fusion", pipeline.RERANKER
STUDIES, REPORT, LOCK = "studies.db", "report.json", "lock"

RECIPE = 1
"""Raised when trials would come out differently from the same data and parameters; so that none is mixed in."""


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is tuned, and for how long.

    trials   finished trials a stage has at the end, those of earlier runs among them
    minutes  about how long all of it may take; None as long as the trials need
    until_us nothing from here on is looked at; None: where the first window that may be evaluated begins
    only     stages; empty: all
    """

    trials: int = 40
    minutes: float | None = None
    seed: int = 7
    until_us: int | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """After a trial: how many of how many, the best value and the defaults', about how many seconds are left."""

    stage: str
    done: int
    of: int
    best: float
    default: float | None
    left_s: float | None


class Listener(Protocol):
    """Who is told how it goes."""

    def step(self, what: str) -> None: ...
    def trial(self, progress: Progress) -> None: ...


class Silent:
    """A `Listener` that tells nobody."""

    def step(self, what: str) -> None:
        """Nothing."""

    def trial(self, progress: Progress) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The report as written, where it is, and what was written into the tuned file."""

    report: Mapping[str, Any]
    path: Path
    tuned: Tuned


@dataclass
class _Run:
    data: Path
    sources: Sequence[SourceSpec]
    fusion: Fusion
    plan: Plan
    listener: Listener
    ground: Ground
    before: Tuned
    ends_at: float
    kept: Tuned
    base: Tuned
    held: list[Held] = field(default_factory=list)
    reranker: Stage | None = None
    remembered: dict[str, Answers] = field(default_factory=dict)

    def ask(self, spec: SourceSpec, parameters: Mapping[str, Any], sitting: Sitting) -> Answers:
        """What a generator of *parameters* proposes; remembered, since fusion and re-ranker stand on the same lists."""
        key = json.dumps([spec.name, sitting.window.start_us, parameters], sort_keys=True)
        if key not in self.remembered:
            self.remembered[key] = generators.answers(spec, parameters, self.ground, sitting)
        return self.remembered[key]

    def answers(self, tuned: Tuned) -> Callable[[Sitting], Mapping[str, Answers]]:
        """Sitting → source → what it proposes with the parameters of *tuned*."""
        return lambda sitting: {
            spec.name: self.ask(spec, tuned.parameters.get(spec.name, {}), sitting) for spec in self.sources
        }


def names(sources: Sequence[SourceSpec]) -> tuple[str, ...]:
    """The stages there are, in their order."""
    return (*(spec.name for spec in sources), FUSION, RERANKER)


def spaces(sources: Sequence[SourceSpec], only: Sequence[str] = ()) -> dict[str, Space]:
    """
    Stage → what may be moved in it; those with nothing to move are left out.

    Raises:
        ValueError: *only* names a stage that there is not.
    """
    if strange := sorted(set(only) - set(names(sources))):
        raise ValueError(f"no stage {', '.join(strange)}; there are {', '.join(names(sources))}")
    found = {name: space.of(name) for name in (*(spec.name for spec in sources), RERANKER)}
    found[FUSION] = space.of_fusion([spec.name for spec in sources], configured.fusion())
    return {name: found[name] for name in names(sources) if found[name] and (not only or name in only)}


def tune(
    data: Path,
    sources: Sequence[SourceSpec],
    plan: Plan | None = None,
    listener: Listener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Tuning:
    """
    Tune *sources*, their fusion and the re-ranker on the past of *data*, and write what is better than the defaults.

    Raises:
        DatasetUnusable, SettingsUnusable, TunedUnusable, ValueError: what was found, and what to do.
    """
    plan, listener = plan or Plan(), listener or Silent()
    check(sources)
    wanted = spaces(sources, plan.only)
    before = tuned_files.of(data, [spec.name for spec in sources])
    ends_at = clock() + 60 * plan.minutes if plan.minutes else float("inf")
    with _alone(data):
        listener.step("reading the past")
        ground = grounds.of(data, plan.seed, plan.until_us)
        base = _without(before, wanted, ground) if plan.only else Tuned(seen_until_us=ground.until_us)
        run = _Run(data, sources, configured.fusion(), plan, listener, ground, before, ends_at, base, base)
        weights = {name: _stage(run, name).weight for name in wanted}
        for name in wanted:
            later = list(wanted)[list(wanted).index(name) :]
            share = weights[name] / sum(weights[one] for one in later)
            stage = _stage(run, name)
            run.reranker = stage if name == RERANKER else None
            held = _held(run, stage, clock, share)
            run.held.append(held)
            run.kept = _with(run.kept, held)
            _write(run, None)
        return _write(run, _whole(run, clock))


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """
    Raises:
        DatasetUnusable: there is no such directory.
        ValueError: another tuning of *data* runs; it would take this one's trial for one that was killed.
    """
    if not data.is_dir():
        raise DatasetUnusable(f"no data directory {data}; `tutti data synth` or `tutti data import` makes one")
    folder = data / grounds.FOLDER
    folder.mkdir(exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{data} is being tuned already; wait for it, or stop it") from None
        yield


def _stage(run: _Run, name: str) -> Stage:
    """The stage as it is now: it stands on what was kept before it."""
    parameters = run.kept.parameters
    if name == RERANKER:
        return RerankerStage(run.sources, parameters, run.ground, run.answers(run.kept), run.listener.step)
    if name == FUSION:
        return FusionStage(run.fusion, [s.name for s in run.sources], run.ground, run.answers(run.kept))
    spec = next(spec for spec in run.sources if spec.name == name)
    return GeneratorStage(spec, run.ground, lambda values, sitting: run.ask(spec, values, sitting))


def _without(before: Tuned, wanted: Mapping[str, Space], ground: Ground) -> Tuned:
    """What the file says of stages that are not tuned now: it stays."""
    parameters = {name: dict(values) for name, values in before.parameters.items() if name not in wanted}
    if any("affinity" in before.parameters.get(name, {}) for name in wanted if name != RERANKER):
        parameters.get(RERANKER, {}).pop("affinity", None)
    elif RERANKER in wanted and "affinity" in before.parameters.get(RERANKER, {}):
        # The generator's, and not the re-ranker's to move.
        parameters[RERANKER] = {"affinity": before.parameters[RERANKER]["affinity"]}
    return Tuned(
        {name: values for name, values in parameters.items() if values},
        None if FUSION in wanted else before.method,
        {} if FUSION in wanted else before.weights,
        max(before.seen_until_us, ground.until_us),
    )


def _held(run: _Run, stage: Stage, clock: Callable[[], float], share: float) -> Held:
    """Try until the trials are done or this stage's share of the time is; then judge."""
    began = clock()
    ends_at = began + max(run.ends_at - began, 0.0) * share
    run.listener.step(f"tuning {stage.name}")
    already: list[int] = []

    def tell(where: Search) -> None:
        done = len(where.trials)
        already.append(done)
        each = (clock() - began) / (done - already[0]) if done > already[0] else None
        left = None if each is None else min(each * (run.plan.trials - done), max(ends_at - clock(), 0.0))
        best, default = where.best, where.default
        run.listener.trial(
            Progress(
                stage.name,
                done,
                run.plan.trials,
                best.reached if best and best.reached is not None else 0.0,
                default.reached if default else None,
                left,
            )
        )

    found = search(
        run.data / grounds.FOLDER / STUDIES,
        f"{stage.name}-{_digest(run, stage)}",
        stage.space,
        stage.attempt,
        run.plan.seed,
        run.plan.trials,
        lambda: clock() < ends_at,
        tell,
        _tuned_before(run, stage.name),
    )
    run.listener.step(f"confirming {stage.name}")
    return replace(stages.judged(stage, found, run.plan.seed), seconds=clock() - began)


def _tuned_before(run: _Run, name: str) -> list[dict[str, space.Value]]:
    """What the last tuning kept is tried right after the defaults: a new month seldom wants something else."""
    if name == FUSION:
        method = {"method": run.before.method} if run.before.method else {}
        found = space.flat({"weights": run.before.weights, **method})
    else:
        found = space.flat(run.before.parameters.get(name, {}))
    return [found] if found else []


def _with(kept: Tuned, held: Held) -> Tuned:
    """*kept* and what a stage found."""
    if not held.kept:
        return kept
    values = space.nested(held.kept)
    if held.stage == FUSION:
        return replace(kept, method=values.get("method"), weights=values.get("weights", {}))
    parameters = {**kept.parameters, held.stage: {**kept.parameters.get(held.stage, {}), **values}}
    if held.stage != RERANKER and "affinity" in values:
        # One arithmetic of closeness (ADR 22): what the generator reads by, the re-ranker reads by.
        parameters[RERANKER] = {**parameters.get(RERANKER, {}), "affinity": values["affinity"]}
    return replace(kept, parameters=parameters)


def _whole(run: _Run, clock: Callable[[], float]) -> dict[str, Any] | None:
    """
    Everything that was kept against everything as it was, by the re-ranked order; where that is worse, nothing is.

    Each stage was better alone; the re-ranker reads closeness by what the generator was tuned to, and nobody has
    looked at that yet.
    """
    if run.reranker is None or not run.kept.parameters:
        return None
    if clock() >= run.ends_at:
        return {"why": "not checked: no time left"}
    run.listener.step("holding all of it against the defaults")
    start = space.defaults(space.of(RERANKER))
    own = {**start, **next((held.kept for held in run.held if held.stage == RERANKER), {})}
    default = RerankerStage(run.sources, {}, run.ground, run.answers(Tuned()), run.listener.step).confirm(start)
    found = run.reranker.confirm(own)
    verdict = decide(default, found, HOME, run.plan.seed)
    is_worse = verdict.high < 0 or bool(verdict.worse)
    if is_worse:
        run.kept = run.base
    return {
        **verdict.to_json(),
        "is_kept": not is_worse,
        "confirmed": {"default": default.figures(), "found": found.figures()},
    }


def _digest(run: _Run, stage: Stage) -> str:
    """Of everything that decides what a trial of *stage* comes to: ground, space, code, and what was kept before."""
    decided: dict[str, Any] = {"parameters": run.kept.parameters, "fusion": asdict(run.fusion) | {"written": None}}
    is_generator = stage.name not in (FUSION, RERANKER)
    content = {
        "recipe": [RECIPE, pipeline.RECIPE],
        "ground": run.ground.digest,
        "stage": [stage.name, stage.tasks],
        # But not the words: a better reason makes no other trial.
        "space": [[a.name, a.default, a.steps, a.low, a.high, a.is_log] for a in stage.space],
        "sources": [asdict(spec) for spec in run.sources if not is_generator or spec.name == stage.name],
        "code": [
            code_of(name) for name in ([stage.name] if is_generator else [*(s.name for s in run.sources), RERANKER])
        ],
        "decided": None if is_generator else decided,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _write(run: _Run, whole: Mapping[str, Any] | None) -> Tuning:
    """The tuned file, where there is something to say or to take back, and the report."""
    report = {
        "until": iso(run.ground.until_us),
        "windows": {
            name: [iso(one.window.start_us), iso(one.window.end_us)]
            for name, one in (("choosing", run.ground.choosing), ("confirming", run.ground.confirming))
        },
        "queries": {task.name: len(task) for task in run.ground.confirming.tasks},
        "seed": run.plan.seed,
        "stages": [held.to_json() for held in run.held],
        "whole": dict(whole) if whole else None,
        "kept": run.kept.to_json(),
    }
    path = run.data / grounds.FOLDER / REPORT
    artefacts.write_json(path, report)
    if run.kept.digest:
        why = {held.stage: held.verdict.why for held in run.held}
        tuned_files.write(run.data, run.kept, {"until": report["until"], "stages": why})
    elif (run.data / tuned_file.FILE).is_file():
        tuned_files.forget(run.data)
    return Tuning(report, path, run.kept)
