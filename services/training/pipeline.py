"""
The offline run, top to bottom: from canonical data to promoted artefacts.

    vocabulary → features → a lesson for each earlier window → re-ranker → generators on everything → popular → aliases

The rule: same data, same sources, same seed, same versions. Aliases move last and together, so a run that was
stopped, or that the gate refused, leaves what served before in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from protos import artefacts
from protos.arrays import Float32
from protos.artefacts import Artefact
from protos.tuned import Tuned
from services.chassis.model import Fitted, Generator, RerankQueries, Resources
from services.training import (
    admission,
    catalogue_log,
    device,
    features,
    from_log,
    headway,
    lessons,
    popular,
    redaction,
    registry,
    sample,
    skew,
    slate_log,
    vocabulary,
)
from services.training import dataset as datasets
from services.training import tuned as tuned_file
from services.training.dataset import Dataset, iso
from services.training.lessons import Asked, Lesson
from services.training.repeatable import repeatable
from services.training.sources import SourceSpec, check, code_of, learns_from_items_only, service
from services.training.split import Window

RERANKER = "reranking"
POPULAR = "popular"
REPORT_FILE = admission.RUN_FILE
UNCHANGED = ".unchanged"
"""Folder, for the length of a run, of what is fitted on the catalogue alone: the same before every window."""

# Raised when training would come out differently from the same data; so a data directory is trained anew.
RECIPE = 5

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """
    What a run left behind: versions by model name, the report as written, whether anything was done, and whether it
    serves now.
    """

    versions: Mapping[str, str]
    report: Mapping[str, Any]
    was_needed: bool
    was_promoted: bool = True


@dataclass
class _Run:
    """One run's collaborators and its growing report."""

    data: Path
    sources: Sequence[SourceSpec]
    seed: int
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    timeless: dict[str, Generator] = field(default_factory=dict)
    unchanged: dict[str, tuple[Fitted, Path]] = field(default_factory=dict)
    parameters: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Tuned = field(default_factory=Tuned)
    log_files: list[str] | None = None
    logged: dict[str, Any] | None = None
    device: str = "cpu"

    @property
    def models(self) -> Path:
        return self.data / registry.MODELS

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce a step and time it."""
        self.progress(what)
        began = time.monotonic()
        with headway.span(0.0, 1.0):
            yield
        self.seconds[what] = round(time.monotonic() - began, 2)


def train(
    data: Path,
    sources: Sequence[SourceSpec],
    seed: int = 7,
    force: bool = False,
    until: datetime | None = None,
    progress: Progress = lambda what: None,
    promote_anyway: bool = False,
    with_log: bool = False,
    on: device.Device = "cpu",
) -> Trained:
    """
    Train *sources*, the re-ranker and the popular list on *data*, and promote them to champion if the gate admits them.

    Args:
        until: only events before this moment count; default all of them.
        force: also when the data directory was trained from the same data, sources and seed already.
        progress: told the name of each step when it begins.
        promote_anyway: whatever the gate says, which is written down all the same.
        on: where factors and networks are trained; "auto" is a GPU where torch sees one.
        with_log: teach the re-ranker what it served as well, where there is enough of it, and compare its features.

    Raises:
        DatasetUnusable, SettingsUnusable, TunedUnusable, FeatureError, DeviceUnusable: what was found, and what to do.
    """
    place = device.chosen(on)
    with device.using(place), _forgetting(data):
        return _trained(data, sources, seed, force, until, progress, promote_anyway, with_log, place)


@contextmanager
def _forgetting(data: Path) -> Iterator[None]:
    """Nothing of UNCHANGED is there when a run begins or ends."""
    kept = data / registry.MODELS / UNCHANGED
    shutil.rmtree(kept, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(kept, ignore_errors=True)


def _trained(
    data: Path,
    sources: Sequence[SourceSpec],
    seed: int,
    force: bool,
    until: datetime | None,
    progress: Progress,
    promote_anyway: bool,
    with_log: bool,
    place: str,
) -> Trained:
    check(sources)
    tuned = tuned_file.of(data, [spec.name for spec in sources])
    run = _Run(data, sources, seed, progress, parameters=dict(tuned.parameters), tuned=tuned, device=place)
    with run.step("reading the data"):
        redaction.honour(data)
        catalogue_log.fold(data)
        vocabulary.maintain(data)
        everything = datasets.load(data)
        if until is not None:
            everything = everything.before(datasets.to_us(until))
        if until is not None and not len(everything):
            raise datasets.DatasetUnusable(f"no event of {data} is before {until}")
    run.log_files = slate_log.files(data) if with_log else None
    fingerprint = _fingerprint(run, everything)
    if not force and (earlier := _still_good(run, fingerprint)) is not None:
        return earlier
    taught = lessons.windows(everything)
    with run.step("applying feature definitions"):
        features.apply(data)
    asked = _asked(run, everything, taught)
    # What was served before is compared with the features of whoever it was served to.
    plan = _computed(run, everything, taught, () if with_log else asked)
    _choose(run, everything.before(taught[0].start_us) if taught else everything)
    learnt = [_lesson(run, everything, plan, w, a, i) for i, (w, a) in enumerate(zip(taught, asked, strict=True), 1)]
    learnt = [lesson for lesson in learnt if (lesson.gains > 0).any()]
    if with_log:
        learnt += _from_log(run, everything, plan)
    published = [_fit_generator(run, run.models, spec, everything) for spec in sources]
    with run.step("fitting popular"):
        staged = registry.staging(run.models, POPULAR)
        fitted = popular.fit(everything, {}, seed, staged)
        published.append(registry.publish(run.models, POPULAR, "popular", staged, fitted, everything, seed))
    with run.step(f"training the re-ranker on {len(learnt)} windows"):
        published.append(_fit_reranker(run, learnt, everything, plan))
    with run.step("passing the gate"):
        last = admission.read(run.models / REPORT_FILE)
        judged = admission.judge(data, everything, published, sources, last, seed, RECIPE, _now_us(), tuned.digest)
    if is_promoted := judged.verdict.admits or promote_anyway:
        for artefact in published:
            registry.promote(run.models, artefact.name, artefact.version)
        sample.write(data / sample.FILE, everything)
    return _report(run, fingerprint, everything, published, judged, is_promoted)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """
    What the re-ranker would be given by a training as of a moment, for who tries parameters without publishing.

    serving  of the re-ranker's train module
    columns  user rows (q,) → numeric (q, k), categorical (q, c) as of that moment
    """

    lessons: Sequence[Lesson]
    serving: Any
    plan: Any
    columns: Callable[[NDArray[np.int64]], tuple[Float32, NDArray[np.object_]]]


def rehearse(
    data: Path,
    sources: Sequence[SourceSpec],
    parameters: Mapping[str, Mapping[str, Any]],
    everything: Dataset,
    until_us: int,
    seed: int,
    progress: Progress = lambda what: None,
) -> Rehearsal:
    """
    Teach as `train` would at *until_us*: features, generators of *parameters*, a lesson for each earlier window.

    Feature tables of *data* are replaced; no artefact is left behind.
    """
    run = _Run(data, sources, seed, progress, parameters=dict(parameters))
    past = everything.before(until_us)
    taught = lessons.windows(past)
    asked = _asked(run, past, taught)
    features.apply(data)
    plan = _computed(run, past, taught, asked)
    with _forgetting(data):
        learnt = [_lesson(run, past, plan, w, a, i) for i, (w, a) in enumerate(zip(taught, asked, strict=True), 1)]
    items = _features(data, plan, past, np.empty(0, np.int64), until_us)
    serving = service(RERANKER, "train", "reranker").Serving(plan, past, items.item_numeric, items.item_categorical)

    def columns(users: NDArray[np.int64]) -> tuple[Float32, NDArray[np.object_]]:
        found = _features(data, plan, everything, users, until_us)
        return found.user_numeric, found.user_categorical

    return Rehearsal([one for one in learnt if (one.gains > 0).any()], serving, plan, columns)


def _choose(run: _Run, past: Dataset) -> None:
    """
    Let generators that can (`train.choose`) choose their parameters once, on what came before every lesson.

    What was tuned is decided already. So all fits of a run are of one kind, and no lesson is taught by what was chosen
    on its own window.
    """
    for spec in run.sources:
        choose = getattr(service(spec.name, "train"), "choose", None)
        if choose is not None and len(past):
            with run.step(f"choosing {spec.name}'s parameters"), repeatable(run.seed):
                given = {**run.parameters.get(spec.name, {}), **spec.parameters}
                run.parameters[spec.name] = choose(past, run.seed, given)


def _fit_generator(run: _Run, models: Path, spec: SourceSpec, dataset: Dataset) -> Artefact:
    with run.step(f"fitting {spec.name} before {iso(dataset.until_us)[:10]}"):
        staged = registry.staging(models, spec.name)
        if spec.name in run.unchanged:
            fitted, files = run.unchanged[spec.name]
            shutil.copytree(files, staged, dirs_exist_ok=True)
        else:
            fitted = _fitted(run, spec, dataset, staged)
        return registry.publish(models, spec.name, "generator", staged, fitted, dataset, run.seed)


def _fitted(run: _Run, spec: SourceSpec, dataset: Dataset, out: Path) -> Fitted:
    """What the source's `fit` says, its files in *out*; kept for later where events do not change them."""
    with repeatable(run.seed):
        parameters = {**run.parameters.get(spec.name, {}), **spec.parameters}
        fitted: Fitted = service(spec.name, "train").fit(dataset, parameters, run.seed, out)
    if learns_from_items_only(spec.name):
        run.unchanged[spec.name] = fitted, run.models / UNCHANGED / spec.name
        shutil.copytree(out, run.models / UNCHANGED / spec.name)
    return fitted


def _asked(run: _Run, everything: Dataset, taught: Sequence[Window]) -> list[Asked]:
    """Who is asked about in each window, before anything is computed for them."""
    with run.step(f"choosing whom to ask about in {len(taught)} windows"):
        # The re-ranker orders home and category pages (ADR 12), and is taught those alone.
        return [lessons.ask(everything, window, run.seed + i, sessions=0) for i, window in enumerate(taught, 1)]


def _computed(run: _Run, everything: Dataset, taught: Sequence[Window], asked: Sequence[Asked]) -> Any:
    """Feature tables at the start of each window and now, and the read plan. At a start *asked*'s shoppers suffice."""
    starts = [_moment(window.start_us) for window in taught]
    only = {
        at: [everything.user_ids[user] for user in np.unique(one.users).tolist()]
        for at, one in zip(starts, asked, strict=bool(asked))
    }
    moments = [*starts, _moment(everything.until_us)]
    with run.step(f"computing features at {len(moments)} moments"):
        features.compute(run.data, moments, only=only, tell=headway.teller())
        return features.compile_plan(run.data)


def _lesson(run: _Run, everything: Dataset, plan: Any, window: Window, asked: Asked, number: int) -> Lesson:
    """One window: generators fitted on its past, what they propose, features as of its start, what was wanted."""
    past = everything.before(window.start_us)
    workshop = run.data / registry.MODELS / ".lessons"
    shutil.rmtree(workshop, ignore_errors=True)
    generators: dict[str, Generator] = {}
    for spec in run.sources:
        generators[spec.name] = run.timeless.get(spec.name) or _generator(run, workshop, spec, past)
    shutil.rmtree(workshop, ignore_errors=True)
    with run.step(f"asking the generators about window {number}"):
        quotas = {spec.name: spec.quota for spec in run.sources}
        candidates, scores, ranks = lessons.propose(generators, quotas, asked.shoppers, asked.exclude)
    with run.step(f"joining features of window {number}"):
        columns = _features(run.data, plan, everything, asked.users, window.start_us)
    queries = RerankQueries(
        asked.shoppers,
        candidates,
        tuple(generators),
        scores,
        ranks,
        columns.user_numeric,
        columns.user_categorical,
        plan.digest,
    )
    gains = lessons.label(candidates, asked.wanted, asked.gains)
    return Lesson(queries, gains, asked.users, columns.item_numeric, columns.item_categorical, past)


def _generator(run: _Run, models: Path, spec: SourceSpec, past: Dataset) -> Generator:
    """A generator that saw only *past*, ready to be asked; kept for later windows when events do not change it."""
    artefact = _fit_generator(run, models, spec, past)
    generator: Generator = service(spec.name, "serve").load(artefact, Resources(run.data))
    if learns_from_items_only(spec.name):
        run.timeless[spec.name] = generator
    return generator


@dataclass(frozen=True, slots=True)
class _Columns:
    user_numeric: Any
    user_categorical: Any
    item_numeric: Any
    item_categorical: Any


def _features(data: Path, plan: Any, dataset: Dataset, users: Any, moment_us: int) -> _Columns:
    """Feast's point-in-time join for all items and these users (q,) as of one moment."""
    distinct, row = np.unique(users, return_inverse=True)
    frame = features.historical(data, lessons.entities(dataset, distinct.tolist(), pd.Timestamp(_moment(moment_us))))
    user_numeric, user_categorical = features.matrices(plan.user, frame.iloc[: len(distinct)])
    item_numeric, item_categorical = features.matrices(plan.item, frame.iloc[: dataset.n_items])
    return _Columns(user_numeric[row], user_categorical[row], item_numeric, item_categorical)


def _from_log(run: _Run, everything: Dataset, plan: Any) -> list[Lesson]:
    """What was served and what became of it, as lessons; and how far its features are from those of the join."""
    with run.step("reading what was served"):
        logged = from_log.learnt(run.data, everything, plan.digest)
    with run.step("comparing features as served with Feast"):
        found = skew.report(logged.made, plan, everything.item_ids, partial(features.historical, run.data))
        skew.write(run.data / skew.FILE, found)
    run.logged = {**logged.report, "skewed": [one.feature for one in found if one.is_skewed]}
    return list(logged.lessons)


def _fit_reranker(run: _Run, learnt: Sequence[Lesson], everything: Dataset, plan: Any) -> Artefact:
    module = service(RERANKER, "train", "reranker")
    columns = _features(run.data, plan, everything, np.empty(0, np.int64), everything.until_us)
    today = module.Serving(plan, everything, columns.item_numeric, columns.item_categorical)
    staged, names = registry.staging(run.models, RERANKER), [spec.name for spec in run.sources]
    with repeatable(run.seed):
        fitted = module.fit(learnt, today, names, run.parameters.get(RERANKER, {}), run.seed, staged)
    if run.logged is not None:
        taught = float(run.logged["lists"] if run.logged["is_taught"] else 0)
        fitted = replace(fitted, metrics={**fitted.metrics, "logged_lists": taught})
    return registry.publish(run.models, RERANKER, "reranker", staged, fitted, everything, run.seed)


def _now_us() -> int:
    return time.time_ns() // 1000


def _moment(at_us: int) -> datetime:
    return pd.Timestamp(at_us, unit="us", tz=UTC).to_pydatetime()


def _fingerprint(run: _Run, dataset: Dataset) -> str:
    """SHA-256 over all that decides a run: data, window, sources, seed, features, models' code, tuning, recipe."""
    definitions = {p.name: artefacts.sha256_of(p) for p in sorted(_feature_repository().glob("*.py"))}
    files = {n: artefacts.sha256_of(run.data / n) for n in (datasets.EVENTS_FILE, datasets.ITEMS_FILE)}
    content = {
        "recipe": RECIPE,
        "files": files,
        "until_us": dataset.until_us,
        "sources": [asdict(spec) for spec in run.sources],
        "seed": run.seed,
        "features": definitions,
        "code": [code_of(name) for name in [*(spec.name for spec in run.sources), RERANKER]],
        "tuned": run.tuned.digest,
        **({} if run.log_files is None else {"log": run.log_files}),
        **({} if run.device == "cpu" else {"device": run.device}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _feature_repository() -> Path:
    from services.training import feature_store

    return feature_store.repository()


def _still_good(run: _Run, fingerprint: str) -> Trained | None:
    """The earlier run's result, when it was made from the same and every champion is intact."""
    path = run.models / REPORT_FILE
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["fingerprint"] != fingerprint:
            return None
        for name in report["versions"]:
            artefacts.load(run.models, name)
    except (OSError, ValueError, KeyError, artefacts.ArtefactError):
        return None
    return Trained(report["versions"], report, was_needed=False)


def _report(
    run: _Run,
    fingerprint: str,
    dataset: Dataset,
    published: Sequence[Artefact],
    judged: admission.Decision,
    is_promoted: bool,
) -> Trained:
    """Write the run's report: as what serves, or as the candidate that was refused."""
    versions = {artefact.name: artefact.version for artefact in published}
    report = {
        "fingerprint": fingerprint,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": run.seed,
        "cpus": os.cpu_count(),
        "device": run.device,
        "data": {**dataset.describe(), "users": len(dataset.user_ids)},
        "sources": [asdict(spec) for spec in run.sources],
        "tuned": run.tuned.to_json() if run.tuned.digest else None,
        "log": run.logged,
        "versions": versions,
        "metrics": {artefact.name: dict(artefact.manifest.metrics) for artefact in published},
        "seconds": {**run.seconds, "total": round(sum(run.seconds.values()), 2)},
        "gate": judged.report,
    }
    admission.remember(run.models, report, is_promoted)
    return Trained(versions, report, was_needed=True, was_promoted=is_promoted)
