"""
What one set of parameters comes to on one window: every query's figures, and the one number that trials are ranked by.

The rule: lists are judged by the metrics of `tutti evaluate` on its tasks, so that what is tuned is what is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Int32
from services.chassis.model import Candidates
from services.chassis.signals import owners
from services.training.evaluation.tasks import Task
from services.training.metrics import DEEP_CUT, Judged, judge


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    Task → its figures, one a query, and whose query each is.

    users  task → (q,) rows of the dataset's user_ids
    """

    judged: Mapping[str, Judged]
    users: Mapping[str, NDArray[np.int64]]

    def value(self, tasks: Sequence[str]) -> float:
        """The mean over those of *tasks* that have queries: half ndcg@10, half recall@20."""
        present = [worth(self.judged[task]).mean() for task in tasks if task in self.judged]
        return float(np.mean(present)) if present else 0.0

    def figures(self) -> dict[str, dict[str, float]]:
        """Task → metric → mean, for people."""
        return {
            task: {name: round(judged.mean()[name], 5) for name in ("ndcg_at_10", "recall_at_20")}
            for task, judged in self.judged.items()
        }


def worth(judged: Judged) -> NDArray[np.float64]:
    """
    One number a query (q,): ndcg@10 says whether the first are right, recall@20 whether enough is found.

    Judged: half and half, so that an order of ten is not bought with what the next ten lack.
    """
    return np.asarray((judged.ndcg_at_10 + judged.recall_at_20) / 2, np.float64)


def of_lists(tasks: Sequence[Task], lists: Mapping[str, Int32]) -> Outcome:
    """Judge the lists (q, 20) of every task."""
    return Outcome(
        {task.name: judge(lists[task.name], task.truth) for task in tasks},
        {task.name: task.users for task in tasks},
    )


def heads(answers: Candidates) -> Int32:
    """The first twenty of every answer, (q, 20) int32, -1 where it is shorter."""
    rows = np.full((len(answers.rows), DEEP_CUT), -1, np.int32)
    row = owners(answers.rows)
    place = np.arange(len(row)) - answers.rows.offsets[:-1][row]
    kept = place < DEEP_CUT
    rows[row[kept], place[kept]] = answers.rows.values[kept]
    return rows
