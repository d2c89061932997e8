"""
Asks the serving pipeline for lists: a file of queries out, a file of lists back.

The rule: fused lists and slates come out of `tutti recommend`, a process of its own, so that the figures are those of
the system and not of a copy of its logic (docs/adr/0010).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protos.arrays import Int32, Rows
from services.training.dataset import Dataset
from services.training.evaluation.tasks import Task
from services.training.metrics import DEEP_CUT

Recommend = Callable[[Path, Path, Path, bool, str | None], None]
"""(data directory, queries file, output file, leave out what was seen, diversity level or None): writes or raises."""

SLATE = "slate"


class EvaluationFailed(Exception):
    """The serving pipeline gave no lists to judge."""


def ask(
    tasks: Sequence[Task],
    everything: Dataset,
    place: Path,
    files: Path,
    recommend: Recommend,
    diversity: str | None = None,
) -> dict[str, dict[str, Int32]]:
    """
    Task → stage → lists (q, 20) of keys, -1 where shorter; stages in the order of a request's way.

    Args:
        tasks: all with the same `exclude_seen`, or each kind is asked in a run of its own.
        place: the data directory that is served.
        files: where the queries and the answers are left.

    Raises:
        EvaluationFailed: the pipeline did not answer, or answered without slates.
    """
    lists: dict[str, dict[str, Int32]] = {}
    for exclude_seen in (True, False):
        wanted = [task for task in tasks if task.exclude_seen == exclude_seen]
        if not wanted:
            continue
        name = ("unseen" if exclude_seen else "any") + (f"-{diversity}" if diversity else "")
        queries, out = files / f"queries-{name}.parquet", files / f"lists-{name}.parquet"
        pq.write_table(queries_of(wanted, everything), queries)
        recommend(place, queries, out, exclude_seen, diversity)
        lists |= read(out, wanted, everything)
    return lists


def queries_of(tasks: Sequence[Task], everything: Dataset) -> pa.Table:
    """A users file of `tutti recommend`: the queries of all tasks, one after the other."""
    users = np.concatenate([np.array(everything.user_ids, object)[task.users] for task in tasks])
    pages = [task.placement for task in tasks for _ in range(len(task))]
    context = [ids for task in tasks for ids in _ids(task.context, everything, task.placement == "item")]
    cart = [ids for task in tasks for ids in _ids(task.context, everything, task.placement == "cart")]
    categories = [c for task in tasks for c in (task.categories or [None] * len(task))]
    return pa.table(
        {
            "task": pa.array([task.name for task in tasks for _ in range(len(task))], pa.string()),
            "user_id": pa.array(users, pa.string()),
            "placement": pa.array(pages, pa.string()),
            "context_item_ids": pa.array(context, pa.list_(pa.string())),
            "cart_item_ids": pa.array(cart, pa.list_(pa.string())),
            "category": pa.array(categories, pa.string()),
        }
    )


def read(path: Path, tasks: Sequence[Task], everything: Dataset) -> dict[str, dict[str, Int32]]:
    """Task → stage → lists, from a file of `tutti recommend --stages` for the queries of `queries_of(tasks)`."""
    table = pq.read_table(path)
    stage_of = table.column("stage") if "stage" in table.column_names else pa.array([SLATE] * table.num_rows)
    stages = pc.dictionary_encode(stage_of).combine_chunks()
    names = _array(stages).dictionary.to_pylist()
    if SLATE not in names:
        raise EvaluationFailed(f"{path} has stages {sorted(names)}; expected one called {SLATE!r}")
    stage = _array(stages).indices.to_numpy()
    items = _array(pc.dictionary_encode(table.column("item_id")).combine_chunks())
    number = {item: key for key, item in enumerate(everything.item_ids)}
    # An item only this directory's pipeline knows cannot be: its vocabulary is part of ours.
    key_of = np.array([number[item] for item in items.dictionary.to_pylist()], np.int32)
    keys = key_of[items.indices.to_numpy()] if len(key_of) else np.empty(0, np.int32)
    query, rank = table.column("query").to_numpy(), table.column("rank").to_numpy() - 1
    head = rank < DEEP_CUT
    total = sum(len(task) for task in tasks)
    found: dict[str, Int32] = {}
    for code, name in sorted(enumerate(names), key=lambda pair: _order(pair[1])):
        rows = np.full((total, DEEP_CUT), -1, np.int32)
        own = head & (stage == code)
        rows[query[own], rank[own]] = keys[own]
        found[name] = rows
    starts = np.cumsum([0, *(len(task) for task in tasks)])
    return {
        task.name: {name: rows[starts[i] : starts[i + 1]] for name, rows in found.items()}
        for i, task in enumerate(tasks)
    }


def tutti_recommend(place: Path, queries: Path, out: Path, exclude_seen: bool, diversity: str | None) -> None:
    """`tutti recommend`, from the same environment as this process."""
    command = [str(Path(sys.executable).with_name("tutti")), "recommend", "--data", str(place), "--users", str(queries)]
    command += ["--k", str(DEEP_CUT), "--out", str(out), "--stages"] + ["--exclude-seen"] * exclude_seen
    command += ["--diversity", diversity] if diversity else []
    # Judged is what the code of now makes: parts of a run that was stopped may be of another.
    command += ["--restart"]
    out.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EvaluationFailed(
            f"`{' '.join(command[1:])}` ended with code {done.returncode}: {said[-1] if said else 'no output'}"
        )


def _ids(rows: Rows, everything: Dataset, are_meant: bool) -> list[list[str]]:
    if not are_meant:
        return [[]] * len(rows)
    return [[everything.item_ids[key] for key in rows.row(i).tolist()] for i in range(len(rows))]


def _array(encoded: Any) -> Any:
    """One dictionary array; pyarrow gives a chunked one back where there was no chunk."""
    return encoded.chunk(0) if hasattr(encoded, "num_chunks") else encoded


def _order(stage: str) -> tuple[int, str]:
    """Sources, then other fusions, then the configured one, then whatever comes after it, then the slate."""
    kind = stage.partition(":")[0]
    return {"source": 0, "fused": 2 if stage == "fused" else 1, SLATE: 4}.get(kind, 3), stage
