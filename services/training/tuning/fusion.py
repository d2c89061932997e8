"""
How the sources' lists are merged: weights and method, on lists that are made once.

The rule: the arithmetic of `orchestrator/core/fusion.py`, over all queries at once; a test holds both to one order. The
fused order is what is shown on an item's page and in the basket, and on home where the re-ranker is lost; so all of
them are what weights are ranked by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Int32
from services.chassis.model import Candidates
from services.chassis.signals import owners
from services.training.metrics import DEEP_CUT
from services.training.sources import Fusion
from services.training.tuning import space as spaces
from services.training.tuning.generators import Answers
from services.training.tuning.grounds import HOME, PAGES, Ground, Sitting
from services.training.tuning.outcome import Outcome, of_lists
from services.training.tuning.space import Space, Value

METHODS = ("z_score", "reciprocal_rank")


@dataclass(frozen=True, slots=True)
class Merged:
    """
    What q queries' lists have in common, whatever the weights; n distinct (query, item) pairs of s sources.

    rows, keys  (n,) query and item of each pair, ascending
    parts       method → (n, s) float64: what each source adds to the score, at weight 1
    """

    rows: NDArray[np.int64]
    keys: Int32
    parts: Mapping[str, NDArray[np.float64]]
    queries: int

    def lists(self, weights: Sequence[float], method: str) -> Int32:
        """The first twenty of every query, (q, 20) int32, -1 where it is shorter; ties go by key."""
        score = self.parts[method] @ np.asarray(weights, np.float64)
        order = np.lexsort((-score, self.rows))
        starts = np.searchsorted(self.rows, np.arange(self.queries))
        place = np.arange(len(order)) - starts[self.rows]
        kept = place < DEEP_CUT
        lists = np.full((self.queries, DEEP_CUT), -1, np.int32)
        lists[self.rows[kept], place[kept]] = self.keys[order[kept]]
        return lists


class FusionStage:
    """Moves the sources' weights."""

    name = "fusion"
    weight = 0.3
    tasks = (*HOME, *PAGES)

    def __init__(
        self,
        fusion: Fusion,
        sources: Sequence[str],
        ground: Ground,
        answers: Callable[[Sitting], Mapping[str, Answers]],
    ) -> None:
        """*answers*: what every source says to a sitting's queries; asked when first needed, once a sitting."""
        self.space: Space = spaces.of_fusion(sources, fusion)
        self._fusion, self._sources, self._ground, self._answers = fusion, tuple(sources), ground, answers
        self._merged: dict[int, Mapping[str, Merged]] = {}

    def attempt(self, values: Mapping[str, Value], so_far: Callable[[float], None]) -> float:
        """Too short to be cut short."""
        del so_far
        return self._outcome(values, self._ground.choosing).value(self.tasks)

    def confirm(self, values: Mapping[str, Value]) -> Outcome:
        """Every task of the confirming window."""
        return self._outcome(values, self._ground.confirming)

    def _outcome(self, values: Mapping[str, Value], sitting: Sitting) -> Outcome:
        weights = [float(values.get(f"weights.{name}", self._fusion.weights[name])) for name in self._sources]
        method = str(values.get("method", self._fusion.method))
        merged = self._merged_of(sitting)
        return of_lists(sitting.tasks, {task.name: merged[task.name].lists(weights, method) for task in sitting.tasks})

    def _merged_of(self, sitting: Sitting) -> Mapping[str, Merged]:
        if sitting.window.start_us not in self._merged:
            said = self._answers(sitting)
            self._merged[sitting.window.start_us] = {
                task.name: merge([said[name][task.name] for name in self._sources], self._fusion.k)
                for task in sitting.tasks
            }
        return self._merged[sitting.window.start_us]


def merge(answers: Sequence[Candidates], k: int) -> Merged:
    """
    Put the sources' answers to the same q queries side by side.

    Args:
        k: flattening constant of reciprocal rank.
    """
    codes = [(owners(one.rows) << 32) + one.rows.values.astype(np.int64) for one in answers]
    union = np.unique(np.concatenate(codes))
    row = union >> 32
    q = len(answers[0].rows)
    parts = {method: np.zeros((len(union), len(answers))) for method in METHODS}
    for s, (one, code) in enumerate(zip(answers, codes, strict=True)):
        at, owner = np.searchsorted(union, code), owners(one.rows)
        rank = np.arange(len(code)) - one.rows.offsets[:-1][owner] + 1
        parts["reciprocal_rank"][at, s] = 1.0 / (k + rank)
        standard, lowest = _standardised(one.scores.astype(np.float64), owner, q)
        # What a list lacks gets its lowest.
        parts["z_score"][:, s] = lowest[row]
        parts["z_score"][at, s] = standard
    return Merged(row, (union & 0xFFFFFFFF).astype(np.int32), parts, q)


def _standardised(
    scores: NDArray[np.float64], owner: NDArray[np.int64], q: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (n,) standardised within their query, and each query's lowest (q,); 0 for a list of equals or of none."""
    counts = np.maximum(np.bincount(owner, minlength=q), 1)
    mean = np.bincount(owner, scores, q) / counts
    centred = scores - mean[owner]
    spread = np.sqrt(np.bincount(owner, centred**2, q) / counts)
    # Sums leave a list of equals a last digit of spread.
    says = spread > 1e-9 * np.maximum(np.abs(mean), 1e-9)
    standard = np.where(says[owner], centred / np.where(says, spread, 1.0)[owner], 0.0)
    lowest = np.zeros(q)
    np.minimum.at(lowest, owner, standard)
    return standard, lowest
