"""
Two recipes judged on the same window, query by query: what evaluations keep for the gate.

The rule: a comparison needs the same past, the same queries and the same truth; a digest of them is in the name under
which an evaluation is kept, so that nothing else can be compared.

    DIR/evaluation/kept/<ground>-<recipe>.parquet   every query's metrics of one recipe's slate
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protos import artefacts
from services.training.evaluation.compare import interval
from services.training.gate import Paired

KEPT = "kept"
_SLATE, _METRIC = "slate", "ndcg_at_10"
_DIGITS = 16


def ground(past: Path, queries: Path) -> str:
    """Digest of what an evaluation stood on: the events and items of the *past*, and its *queries* file."""
    files = [past / "events.parquet", past / "items.parquet", *sorted(queries.glob("queries-*.parquet"))]
    return hashlib.sha256("".join(map(artefacts.sha256_of, files)).encode()).hexdigest()[:_DIGITS]


def keep(data: Path, judged: Path, on: str, recipe: str) -> Path:
    """Keep the file *judged* of an evaluation of *recipe* on *ground*; a later one of the same replaces it."""
    folder = data / "evaluation" / KEPT
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{on}-{recipe[:_DIGITS]}.parquet"
    shutil.copyfile(judged, target)
    return target


def of_recipes(data: Path, mine: str, theirs: str, seed: int) -> tuple[Paired, ...] | None:
    """The gain of recipe *mine* on *theirs* by task, on the newest ground both were judged on; None: there is none."""
    folder = data / "evaluation" / KEPT
    found = {path.name.partition("-")[0]: path for path in folder.glob(f"*-{mine[:_DIGITS]}.parquet")}
    both = [
        (path, other)
        for on, path in found.items()
        if theirs and (other := folder / f"{on}-{theirs[:_DIGITS]}.parquet").is_file()
    ]
    if not both:
        return None
    newest, other = max(both, key=lambda pair: min(p.stat().st_mtime for p in pair))
    return pairs(newest, other, seed)


def pairs(mine: Path, theirs: Path, seed: int) -> tuple[Paired, ...]:
    """
    The paired differences of two files of judged queries, task by task, with bootstrap intervals.

    All of them hold at once 95 % of the time (Bonferroni): of six tasks one would else look worse by chance in every
    seventh comparison of equals.
    """
    one, other = _by_task(mine), _by_task(theirs)
    both = [task for task in one if task in other and len(one[task]) == len(other[task])]
    compared = []
    for task in both:
        gains = one[task] - other[task]
        low, high = interval(gains, seed, 1 - 0.05 / len(both))
        compared.append(Paired(task, float(gains.mean()), low, high, len(gains)))
    return tuple(compared)


def _by_task(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path, columns=["task", "method", "query", _METRIC])
    table = table.filter(pc.equal(pc.cast(table["method"], "string"), _SLATE)).sort_by("query")
    tasks = table["task"].to_numpy(zero_copy_only=False).astype(str)
    values = table[_METRIC].to_numpy().astype(np.float64)
    return {task: values[tasks == task] for task in dict.fromkeys(tasks.tolist())}
