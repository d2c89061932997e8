"""
Lessons for the re-ranker from what it really served: its own candidates, the features it saw, what became of them.

The rule: nothing is looked up again. Candidates, shoppers, item columns and closeness are those of the serving, so that
a model learnt from these has no skew to learn around. What nobody can have seen teaches nothing, and what was clicked
where few look counts for those few (examination.py).
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import artefacts
from protos.arrays import Float32, Rows
from services.chassis import affinity
from services.chassis.affinity import Affinities
from services.chassis.model import RerankQueries, Shoppers
from services.training import examination, slate_log
from services.training.attribution import CLOCKS_APART_US, Outcomes, attribute
from services.training.dataset import Dataset
from services.training.examination import NONE, Examination
from services.training.lessons import Lesson
from services.training.slate_log import Made, Served

LEAST_LISTS = 60
"""Below this the log teaches nothing yet. The re-ranker's own least (services/reranking/train.py)."""

BUCKETS = 20
"""Groups of slots with about the same score, taken to be equally attractive. Judged: 5 % of the slots each."""

RERANKER = "reranking"


@dataclass(frozen=True, slots=True)
class Logged:
    """
    What the log teaches, and what there is to say of it.

    lessons  one for each version that served, empty where the log is too short
    made     every computation in the log, for who compares its features
    report   JSON values: how many slates, lists, events by what they were credited to, examination by placement
    """

    lessons: Sequence[Lesson]
    made: Mapping[str, Made]
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _List:
    """One answer: what the re-ranker was asked, and of each candidate what it gained and how it was seen."""

    made: Made
    user: int
    gains: Float32
    seen: Float32


def learnt(data: Path, dataset: Dataset, feature_digest: str) -> Logged:
    """
    The lessons in the logs of *data*.

    Args:
        dataset: gives users their numbers and items their keys.
        feature_digest: of the read plan that is trained on; what was served by another one has other columns.
    """
    served, made = slate_log.served(data), slate_log.made(data)
    key_of = {item: key for key, item in enumerate(dataset.item_ids)}
    since_us = int(served.slates.at_us.min(initial=np.iinfo(np.int64).max))
    events = slate_log.events(data, key_of, since_us - CLOCKS_APART_US)
    outcomes = attribute(served.slates, events)
    examinations = examined(served, made, outcomes)
    left_out: Counter[str] = Counter()
    lists = _lists(served, made, outcomes, examinations, dataset, left_out)
    by_version: dict[tuple[str, tuple[str, ...]], list[_List]] = defaultdict(list)
    for one in lists:
        if one.made.queries.feature_digest != feature_digest:
            left_out["of_another_plan"] += 1
        else:
            by_version[one.made.version, one.made.queries.sources].append(one)
    lessons, taught = [], 0
    for (version, _), own in sorted(by_version.items()):
        closeness = _closeness(data, version)
        if closeness is None:
            left_out["of_a_model_that_is_gone"] += len(own)
            continue
        lessons.append(_lesson(own, closeness, dataset))
        taught += len(own)
    report = {
        "slates": len(served.slates),
        "made": len(made),
        "shown_slots": int(outcomes.shown.sum()),
        "lists": taught,
        "is_taught": taught >= LEAST_LISTS,
        "left_out": dict(left_out),
        "events": dict(outcomes.counts),
        "examination": {str(placement): one.to_json() for placement, one in examinations.items()},
    }
    return Logged(lessons if taught >= LEAST_LISTS else (), made, report)


def examined(served: Served, made: Mapping[str, Made], outcomes: Outcomes) -> dict[int, Examination]:
    """Placement → how its positions are looked at; where its own clicks are too few, that of all together."""
    slates, rows = served.slates, np.repeat(np.arange(len(served.slates)), np.diff(served.slates.slots.offsets))
    alike = _alike(served, made)
    clicked, positions, placements = outcomes.gains > 0, slates.positions, served.placements[rows]
    # Only what an impression vouches for: a slot known to be seen by its click alone was always clicked.
    seen = outcomes.impressed

    def estimated(chosen: NDArray[np.bool_]) -> Examination:
        of = np.flatnonzero(chosen & seen)
        return examination.estimate(positions[of], clicked[of], alike[of], slates.propensities[of])

    everywhere = estimated(np.ones(len(rows), np.bool_))
    found = {int(placement): estimated(placements == placement) for placement in np.unique(placements)}
    return {placement: everywhere if own.how == NONE else own for placement, own in found.items()}


def _alike(served: Served, made: Mapping[str, Made]) -> NDArray[np.int64]:
    """(n,) group of slots by the score they were re-ranked with, -1 where they were not."""
    scores = np.full(len(served.slates.slots.values), np.nan, np.float32)
    for row, made_as in enumerate(served.made_as):
        of = made.get(made_as)
        if of is not None:
            own = slice(served.slates.slots.offsets[row], served.slates.slots.offsets[row + 1])
            at = _places(of.queries.candidates.values, served.slates.slots.row(row))
            scores[own] = np.where(at >= 0, of.scores[at], np.nan)
    known = np.isfinite(scores)
    alike = np.full(len(scores), -1, np.int64)
    if known.any():
        edges = np.quantile(scores[known], np.linspace(0, 1, BUCKETS + 1)[1:-1])
        alike[known] = np.searchsorted(edges, scores[known], "right")
    return alike


def _lists(
    served: Served,
    made: Mapping[str, Made],
    outcomes: Outcomes,
    examinations: Mapping[int, Examination],
    dataset: Dataset,
    left_out: Counter[str],
) -> list[_List]:
    """One for each answer with something shown and something gained; why others are none goes into *left_out*."""
    number = {f"u:{user}": row for row, user in enumerate(dataset.user_ids)}
    slates, gains, shown = served.slates, outcomes.gains, outcomes.shown
    lists = []
    for row, made_as in enumerate(served.made_as):
        of = made.get(made_as)
        if of is None:
            left_out["without_features" if made_as else "not_reranked"] += 1
            continue
        own = np.arange(slates.slots.offsets[row], slates.slots.offsets[row + 1])
        at = _places(of.queries.candidates.values, slates.slots.row(row))
        kept = shown[own] & (at >= 0) & np.isin(slates.slots.row(row), of.item_keys)
        if not kept.any() or not (gains[own][kept] > 0).any():
            left_out["not_shown" if not kept.any() else "nothing_gained"] += 1
            continue
        n = len(of.queries.candidates.values)
        gained, seen = np.zeros(n, np.float32), np.zeros(n, np.float32)
        gained[at[kept]] = gains[own][kept]
        seen[at[kept]] = examinations[int(served.placements[row])].weights(slates.positions[own][kept])
        # Somebody new has a number of their own too: judged or learnt from, in every lesson alike.
        subject = slates.subjects[row]
        user = number.get(subject, len(number) + zlib.crc32(subject.encode()))
        lists.append(_List(of, user, gained, seen))
    return lists


def _lesson(lists: Sequence[_List], closeness: Affinities, dataset: Dataset) -> Lesson:
    queries = [one.made.queries for one in lists]
    starts = np.cumsum([0, *(len(one.made.item_keys) for one in lists)])
    rows = []
    for one, start in zip(lists, starts, strict=False):
        at = _places(one.made.item_keys, one.made.queries.candidates.values)
        # Behind the last item the table knows nothing, so everything is missing (ItemTable); these are not learnt from.
        rows.append(np.where(at >= 0, start + at, starts[-1]))
    return Lesson(
        together(queries),
        np.concatenate([one.gains for one in lists]),
        np.array([one.user for one in lists], np.int64),
        np.concatenate([one.made.item_numeric for one in lists]),
        np.concatenate([one.made.item_categorical for one in lists]),
        dataset,
        seen=np.concatenate([one.seen for one in lists]),
        item_rows=np.concatenate(rows).astype(np.int64),
        affinities=closeness,
    )


def together(queries: Sequence[RerankQueries]) -> RerankQueries:
    """One after the other; of the same sources and columns."""
    shoppers = [one.shoppers for one in queries]
    return RerankQueries(
        Shoppers(
            _stacked([one.history for one in shoppers]),
            np.concatenate([one.history_types for one in shoppers]),
            np.concatenate([one.history_ages_s for one in shoppers]),
            _stacked([one.context for one in shoppers]),
            np.concatenate([one.placements for one in shoppers]),
        ),
        _stacked([one.candidates for one in queries]),
        queries[0].sources,
        np.concatenate([one.source_scores for one in queries]),
        np.concatenate([one.source_ranks for one in queries]),
        np.concatenate([one.user_numeric for one in queries]),
        np.concatenate([one.user_categorical for one in queries]),
        queries[0].feature_digest,
    )


def _stacked(parts: Sequence[Rows]) -> Rows:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Rows(offsets, np.concatenate([part.values for part in parts]))


def _places(keys: NDArray[np.int32], wanted: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where each of *wanted* stands in *keys*, -1 where it does not."""
    place = {key: at for at, key in enumerate(keys.tolist())}
    return np.array([place.get(key, -1) for key in wanted.tolist()], np.int64)


def _closeness(data: Path, version: str) -> Affinities | None:
    """What that version of the re-ranker knew of closeness; None when it is gone."""
    try:
        artefact = artefacts.load(data / "models", RERANKER, version)
        return Affinities.of_arrays(artefact.arrays(affinity.FILE))
    except artefacts.ArtefactError:
        return None
