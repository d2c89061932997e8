"""
`tutti evaluate`, top to bottom: split, baselines, then for each seed train and ask the serving pipeline; judge, report.

The rule: trains on the past of a window, asks what would be served, compares with what happened. Protocol: split.py;
what is judged: tasks.py; what a method may know: past.py; metrics: metrics.py.

    DIR/evaluation/<split>/evaluation.json, judged.parquet, page.html   the figures
    DIR/evaluation/<split>/seed-<n>/   a data directory of the past, trained with that seed
    DIR/evaluation/young-<n>/          the same, of a shop that has just opened
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protos.arrays import Int32
from services.training import comparison, recipe, vocabulary
from services.training import dataset as datasets
from services.training import tuned as tuned_file
from services.training.dataset import Dataset, iso
from services.training.evaluation import page
from services.training.evaluation import past as pasts
from services.training.evaluation.asking import SLATE, Recommend, ask, tutti_recommend
from services.training.evaluation.baseline_lists import HOME, Baselines, baseline_lists, seen_from
from services.training.evaluation.costs import Costs
from services.training.evaluation.judging import Bench, Lists, judged
from services.training.evaluation.methods import PERSONAL, Method
from services.training.evaluation.tasks import MOST, Task, Tasks, tasks
from services.training.metrics import METRICS, Judged
from services.training.pipeline import RECIPE, train
from services.training.pipeline import REPORT_FILE as TRAINING_FILE
from services.training.registry import MODELS
from services.training.sources import SourceSpec
from services.training.split import Name, window

REPORT_FILE, JUDGED_FILE = "evaluation.json", "judged.parquet"

Progress = Callable[[str], None]

Fit = Callable[..., object]
"""As `services.training.pipeline.train`: (data directory, sources, seed, force, progress=…, promote_anyway=…)."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The report as written, and where; `figures`: task → method (in the order of a request's way) → metric."""

    report: Mapping[str, Any]
    path: Path

    @property
    def figures(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return {name: task["methods"] for name, task in self.report["tasks"].items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is evaluated and how.

    seeds      one training each; figures are means over them
    diversity  levels whose slates are judged beside the usual one
    most       queries a task judges at most
    young      judge the shop as if it had opened with its last so many events before the window
    baselines  those that are compared; an empty tuple leaves the popular lists only
    """

    split: Name = "validation"
    seeds: tuple[int, ...] = (7,)
    diversity: tuple[str, ...] = ()
    most: int = MOST
    young: int | None = None
    baselines: Sequence[Method] = PERSONAL
    force: bool = False


def evaluate(
    data: Path,
    sources: Sequence[SourceSpec],
    plan: Plan | None = None,
    progress: Progress = lambda what: None,
    recommend: Recommend = tutti_recommend,
    fit: Fit = train,
) -> Evaluation:
    """
    Judge every stage of the system, and what it is compared with, on one window of *data*.

    Args:
        recommend: how lists are got; by default `tutti recommend` as a subprocess.
        fit: how a data directory of the past is trained.

    Raises:
        DatasetUnusable: the data is too short, or nobody can be judged; EvaluationFailed: the pipeline gave no lists.
    """
    plan = plan or Plan()
    with Costs(progress) as costs:
        costs.begin("splitting the data")
        vocabulary.maintain(data)
        everything = datasets.load(data)
        span = window(everything, plan.split, pasts.source_of(data))
        if plan.young is not None:
            data = pasts.write_young(data, data / "evaluation" / f"young-{plan.young}", span.start_us, plan.young)
            vocabulary.maintain(data)
            everything = datasets.load(data)
        wanted = tasks(everything, span, plan.seeds[0], plan.most)
        if not wanted.judged:
            raise datasets.DatasetUnusable(
                f"nobody wanted anything from {iso(span.start_us)} until {iso(span.end_us)}: there is nobody to judge"
            )
        files = data / "evaluation" / plan.split
        places = [files / f"seed-{seed}" for seed in plan.seeds]
        for place in places:
            pasts.write(data, place, span.start_us)
            vocabulary.maintain(place)
        # The same for every seed.
        said_of_tuning = {tuned_file.hand_on(data, place, span.start_us) for place in places}.pop()
        if said_of_tuning:
            progress(said_of_tuning)
        tuned = tuned_file.of(places[0], [spec.name for spec in sources])
        known = datasets.load(places[0])
        compared = _baselines(everything, known, wanted, plan, costs.begin)
        lists = {name: {m: Lists((rows,)) for m, rows in found.items()} for name, found in compared.lists.items()}
        serving = _Serving(everything, wanted, files, sources, plan, costs.begin, recommend, fit)
        served = [serving.lists(seed, place) for seed, place in zip(plan.seeds, places, strict=True)]
        for task in wanted.judged:
            for stage in served[0][task.name]:
                lists[task.name][stage] = Lists(tuple(one[task.name][stage] for one in served))
        costs.begin("judging")
        bench = Bench.of(everything, span.start_us, plan.seeds[0])
        blocks, by_query = {}, {}
        for task in wanted.judged:
            blocks[task.name], by_query[task.name] = judged(task, lists[task.name], bench, SLATE)
    report: dict[str, Any] = {
        "split": plan.split,
        "from": iso(span.start_us),
        "until": iso(span.end_us),
        "seeds": list(plan.seeds),
        "diversity": list(plan.diversity),
        "young": plan.young,
        "source": pasts.source_of(data),
        "data": {"events": len(everything), "items": everything.n_items, "shoppers": len(everything.user_ids)},
        "past": {
            "events": len(known),
            "shoppers": len(known.user_ids),
            "items_with_events": int((bench.holders > 0).sum()),
        },
        "sources": [spec.name for spec in sources],
        "recipe": recipe.digest(sources, RECIPE, tuned.digest),
        "tuned": {**tuned.to_json(), "said": said_of_tuning} if said_of_tuning else None,
        "ground": comparison.ground(places[0], files),
        "tasks": blocks,
        "left_out": {"tasks": wanted.left_out, "methods": compared.left_out},
        "settings": _settings(compared),
        "trained": _trained(places[0]),
        "costs": [{"stage": c.stage, "seconds": c.seconds, "peak_mb": c.peak_mb} for c in costs.costs],
    }
    _write_report(files / REPORT_FILE, report)
    _write_judged(files / JUDGED_FILE, wanted.judged, by_query, everything)
    comparison.keep(data, files / JUDGED_FILE, report["ground"], report["recipe"])
    page.write(report, files / page.PAGE_FILE)
    return Evaluation(report, files / REPORT_FILE)


def _baselines(everything: Dataset, known: Dataset, wanted: Tasks, plan: Plan, progress: Progress) -> Baselines:
    """Every baseline's lists, from the past's keys back into ours."""
    to_ours = pasts.keys_in(everything, known)
    to_theirs = np.full(everything.n_items, -1, np.int32)
    to_theirs[to_ours] = np.arange(len(to_ours), dtype=np.int32)
    asked = [seen_from(task, pasts.users_in(everything, known, task.users), to_theirs) for task in wanted.judged]
    found = baseline_lists(known, asked, plan.seeds[0], progress, plan.baselines)
    ours = {
        task: {m: np.where(rows >= 0, to_ours[rows], np.int32(-1)) for m, rows in methods.items()}
        for task, methods in found.lists.items()
    }
    return Baselines(ours, found.settings, found.left_out)


@dataclass(frozen=True, slots=True)
class _Serving:
    """Trains and asks: what an evaluation hands on from seed to seed."""

    everything: Dataset
    wanted: Tasks
    files: Path
    sources: Sequence[SourceSpec]
    plan: Plan
    progress: Progress
    recommend: Recommend
    fit: Fit

    def lists(self, seed: int, place: Path) -> dict[str, dict[str, Int32]]:
        """Train in *place* with *seed* and ask: task → stage → lists."""
        said = f" (seed {seed})" if len(self.plan.seeds) > 1 else ""
        self.fit(
            place,
            self.sources,
            seed,
            self.plan.force,
            progress=lambda what: self.progress(f"training{said}: {what}"),
            # What is judged is this recipe, not what an earlier evaluation left here.
            promote_anyway=True,
        )
        self.progress(f"asking the pipeline{said}")
        lists = ask(self.wanted.judged, self.everything, place, self.files, self.recommend)
        at_home = [task for task in self.wanted.judged if task.name in HOME]
        for level in self.plan.diversity:
            self.progress(f"asking the pipeline{said}, diversity {level}")
            for task, stages in ask(at_home, self.everything, place, self.files, self.recommend, level).items():
                lists[task][f"{SLATE}, diversity {level}"] = stages[SLATE]
        return lists


def _settings(compared: Baselines) -> dict[str, dict[str, Any]]:
    """Baseline → task → the settings it was judged with; where they were tuned, what they reached of how many tried."""
    return {
        method: {
            task: {
                "settings": dict(choice.settings),
                "reached": None if np.isnan(choice.reached) else choice.reached,
                "tried": choice.tried,
            }
            for task, choice in tasks_.items()
        }
        for method, tasks_ in compared.settings.items()
    }


def _trained(place: Path) -> dict[str, Any]:
    """What training said of itself: seconds by step, and every model's own figures and version."""
    path = place / MODELS / TRAINING_FILE
    if not path.is_file():
        return {}
    report = json.loads(path.read_text(encoding="utf-8"))
    return {name: report.get(name) for name in ("seconds", "metrics", "versions", "cpus")}


def _write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Replace the report in one step. Not sorted: tasks and methods stand in the order of a request's way."""
    partial = path.with_name(path.name + ".partial")
    text = json.dumps(_finite(report), indent=1, ensure_ascii=False, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _finite(value: Any) -> Any:
    """*value* with null for what is no number: models may say so of themselves, JSON may not."""
    match value:
        case dict():
            return {key: _finite(one) for key, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case float() if not np.isfinite(value):
            return None
        case _:
            return value


def _write_judged(
    path: Path, wanted: Sequence[Task], by_query: Mapping[str, Mapping[str, Judged]], everything: Dataset
) -> None:
    """Every query's metrics under every method: another evaluation of the same window can be compared in pairs."""
    ids = np.array(everything.user_ids, object)
    parts = []
    for task in wanted:
        for method, result in by_query[task.name].items():
            columns: dict[str, Any] = {
                "task": pa.array([task.name] * len(task)).dictionary_encode(),
                "method": pa.array([method] * len(task)).dictionary_encode(),
                "query": pa.array(np.arange(len(task)), pa.int32()),
                "user_id": pa.array(ids[task.users], pa.string()),
            }
            columns |= {metric: pa.array(getattr(result, metric), pa.float32()) for metric in METRICS}
            parts.append(pa.table(columns))
    pq.write_table(pa.concat_tables(parts).unify_dictionaries(), path, compression="zstd")
