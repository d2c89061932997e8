"""
Judges what would be served: trains on the past of a window, asks the serving pipeline, compares with what happened.

The rule: fused lists and slates come out of `tutti recommend`, a process of its own, so that the figures are those of
the system and not of a copy of its logic. Protocol: split.py; metrics: metrics.py.

    DIR/evaluation/<split>/   a data directory of its own: events before the window, truth.parquet, users.parquet
    DIR/evaluation/<split>/evaluation.json   the figures
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protos import artefacts
from protos import vocabulary as vocabularies
from services.chassis.signals import POSITIVE_TYPES
from services.training import dataset as datasets
from services.training import popular, vocabulary
from services.training.dataset import DAY_US, Dataset, iso
from services.training.metrics import Judged, interval, judge
from services.training.pipeline import Progress, train
from services.training.sources import SourceSpec
from services.training.split import Name, Truth, Window, truth, window

# What is judged is 20 long; asked for is more, because a shopper's history in serving ends at 200 events and what was
# touched before that has still to be taken out of a discovery list.
_JUDGED_K, _ASKED_K = 20, 60
_RECENT_DAYS = 7
MODES = ("discovery", "rebuy")
REPORT_FILE = "evaluation.json"

Recommend = Callable[[Path, Path, Path, bool], None]
"""(data directory, users file, output file, whether to leave out what was seen): writes the output file or raises."""


class EvaluationFailed(Exception):
    """The serving pipeline gave no lists to judge."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures by mode, then method (in the order of a request's way), then metric; and where they were written."""

    split: Name
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]]
    path: Path


def evaluate(
    data: Path,
    sources: Sequence[SourceSpec],
    split: Name = "test",
    seed: int = 7,
    force: bool = False,
    progress: Progress = lambda what: None,
    recommend: Recommend | None = None,
) -> Evaluation:
    """
    Judge every stage of the system on one window of *data*.

    Args:
        recommend: how lists are got; by default `tutti recommend` as a subprocess.

    Raises:
        DatasetUnusable: the data is too short; EvaluationFailed: the pipeline gave no lists.
    """
    progress("splitting the data")
    vocabulary.maintain(data)
    everything = datasets.load(data)
    judged = window(everything, split, _source_of(data))
    wanted = truth(everything, judged)
    if not len(wanted.users):
        raise datasets.DatasetUnusable(
            f"nobody with an event before {iso(judged.start_us)} did anything until {iso(judged.end_us)}: "
            "there is nobody to judge"
        )
    place = data / "evaluation" / split
    _write_split(data, place, everything, judged, wanted)
    train(place, sources, seed, force, progress=progress)
    past = everything.before(judged.start_us)
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for mode in MODES:
        progress(f"asking the pipeline for {mode} lists")
        out = place / f"{mode}.parquet"
        (recommend or _tutti_recommend)(place, place / "users.parquet", out, mode == "discovery")
        lists = _simple(past, wanted) | _read_lists(out, everything, wanted)
        figures[mode] = _compare(lists, wanted, mode, past, seed)
    report = {
        "split": split,
        "from": iso(judged.start_us),
        "until": iso(judged.end_us),
        "seed": seed,
        "sources": [spec.name for spec in sources],
        "figures": figures,
    }
    artefacts.write_json(place / REPORT_FILE, report)
    return Evaluation(split, figures, place / REPORT_FILE)


def _source_of(data: Path) -> str:
    path = data / datasets.INFO_FILE
    return str(json.loads(path.read_text(encoding="utf-8")).get("source", "")) if path.is_file() else ""


def _write_split(data: Path, place: Path, everything: Dataset, judged: Window, wanted: Truth) -> None:
    """A data directory that knows nothing of the window; rewritten only where its content changes."""
    place.mkdir(parents=True, exist_ok=True)
    events = pq.read_table(data / datasets.EVENTS_FILE)
    at_us = events.column("timestamp").cast(pa.timestamp("us", "UTC")).cast("int64")
    past = events.filter(pc.less(at_us, judged.start_us))
    pq.write_table(past, place / datasets.EVENTS_FILE, coerce_timestamps="us", compression="zstd")
    for name in (datasets.ITEMS_FILE, vocabularies.FILE_NAME):
        shutil.copyfile(data / name, place / name)
    files = {name: artefacts.sha256_of(place / name) for name in (datasets.EVENTS_FILE, datasets.ITEMS_FILE)}
    about = everything.before(judged.start_us)
    artefacts.write_json(
        place / datasets.INFO_FILE,
        {**about.describe(), "source": f"{_source_of(data)} before {iso(judged.start_us)}", "sha256": files},
    )
    ids = np.array(everything.user_ids, object)[wanted.users]
    pq.write_table(pa.table({"user_id": pa.array(ids, pa.string())}), place / "users.parquet")
    who = np.repeat(ids, [len(keys) for keys in wanted.rebuy])
    keys = np.concatenate(wanted.rebuy)
    is_new = np.concatenate([np.isin(r, d) for r, d in zip(wanted.rebuy, wanted.discovery, strict=True)])
    items = np.array(everything.item_ids, object)[keys]
    table = {"user_id": pa.array(who, pa.string()), "item_id": pa.array(items, pa.string()), "is_new": is_new}
    pq.write_table(pa.table(table), place / "truth.parquet")


def _tutti_recommend(place: Path, users: Path, out: Path, exclude_seen: bool) -> None:
    """`tutti recommend`, from the same environment as this process."""
    command = [str(Path(sys.executable).with_name("tutti")), "recommend", "--data", str(place), "--users", str(users)]
    command += ["--k", str(_ASKED_K), "--out", str(out), "--stages"] + ["--exclude-seen"] * exclude_seen
    out.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EvaluationFailed(
            f"`{' '.join(command[1:])}` ended with code {done.returncode}: {said[-1] if said else 'no output'}"
        )


def _simple(past: Dataset, wanted: Truth) -> dict[str, list[NDArray[np.int32]]]:
    """The lists everybody must beat: the same for all, by all events and by those of the last week."""
    usable = np.isin(past.types, POSITIVE_TYPES)
    counts = np.bincount(past.keys[usable], minlength=past.n_items)
    recent = usable & (past.at_us >= past.until_us - _RECENT_DAYS * DAY_US)
    lately = np.bincount(past.keys[recent], minlength=past.n_items)
    decayed = popular.ranking(past, popular.Parameters().half_life_days)[0]
    n = len(wanted.users)
    return {
        "popularity": [np.argsort(-counts, kind="stable").astype(np.int32)] * n,
        "recent popularity": [np.argsort(-lately, kind="stable").astype(np.int32)] * n,
        "popular (the last rung)": [decayed] * n,
    }


def _read_lists(path: Path, everything: Dataset, wanted: Truth) -> dict[str, list[NDArray[np.int32]]]:
    """stage → one list a judged shopper, from a file of `tutti recommend --stages`."""
    table = pq.read_table(path, columns=["user_id", "item_id", "rank", "stage"])
    key_of = {item: key for key, item in enumerate(everything.item_ids)}
    row_of = {everything.user_ids[user]: i for i, user in enumerate(wanted.users)}
    stages: dict[str, list[list[tuple[int, int]]]] = {}
    for row in table.to_pylist():
        if (at := row_of.get(row["user_id"])) is not None and row["item_id"] in key_of:
            if row["stage"] not in stages:
                stages[row["stage"]] = [[] for _ in row_of]
            stages[row["stage"]][at].append((row["rank"], key_of[row["item_id"]]))
    if "slate" not in stages:
        raise EvaluationFailed(f"{path} has stages {sorted(stages)}; expected one called 'slate'")
    order = sorted(stages, key=lambda stage: ({"fused": 1, "slate": 2}.get(stage, 0), stage))
    return {s: [np.array([key for _, key in sorted(one)], np.int32) for one in stages[s]] for s in order}


def _compare(
    lists: Mapping[str, Sequence[NDArray[np.int32]]], wanted: Truth, mode: str, past: Dataset, seed: int
) -> dict[str, dict[str, Any]]:
    """Figures of each method, and for the slate the paired difference to every other with its 95 % interval."""
    truths = [keys.tolist() for keys in getattr(wanted, mode)]
    catalogue = len(np.unique(past.keys))
    judged: dict[str, Judged] = {}
    for name, rows in lists.items():
        gone = wanted.touched if mode == "discovery" else [np.empty(0, np.int32)] * len(rows)
        shown = [_without(row, keys)[:_JUDGED_K].tolist() for row, keys in zip(rows, gone, strict=True)]
        judged[name] = judge(shown, truths)
    figures: dict[str, dict[str, Any]] = {name: dict(result.mean(catalogue)) for name, result in judged.items()}
    if "slate" in judged:
        for name, result in judged.items():
            gain = judged["slate"].ndcg_at_10 - result.ndcg_at_10
            figures[name]["slate_gains_ndcg_at_10"] = [float(gain.mean()) if len(gain) else 0.0, *interval(gain, seed)]
    return figures


def _without(row: NDArray[np.int32], gone: NDArray[np.int32]) -> NDArray[np.int32]:
    # Only the head can be judged; a popular list is as long as the catalogue.
    head = row[: _JUDGED_K + len(gone)]
    return head[~np.isin(head, gone)]
