"""
Features as they were served beside what Feast's point-in-time join says of the same moments.

The join is what a model is taught with, the served value what it is asked with: where they differ, it was taught
another shop. Compares and reports; what to do about it is in docs/attribution.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from protos import artefacts
from protos.feast_layout import ReadPlan
from services.training.features import matrices
from services.training.slate_log import Made

FILE = "skew.json"

TOLERANCE = 1e-3
"""Relative. Judged: float32 keeps seven digits, a feature that moved by less than a thousandth moved nobody's order."""

SKEWED_SHARE = 0.01
"""Share of rows above which a feature is called skewed. Judged: a few updates always fall between two readings."""

MOST_SLATES = 2_000
"""Judged: at 1 % of rows that differ twenty are found; the newest, since older ones may be of tables since replaced."""

ITEMS_A_SLATE = 2
"""Items looked at of each, its first. Derived: with MOST_SLATES 4,000 rows to join."""

EXAMPLES = 3

Join = Callable[[pd.DataFrame], pd.DataFrame]
"""Rows user_id, item_id, event_timestamp → the same rows with a column `view__feature` each."""


@dataclass(frozen=True, slots=True)
class Skew:
    """
    One feature: of *rows* values, what share differs, and what share is missing on either side.

    examples  (whose, served, joined), the largest differences first
    """

    feature: str
    rows: int
    differs: float
    missing_served: float
    missing_joined: float
    examples: tuple[tuple[str, Any, Any], ...]

    @property
    def is_skewed(self) -> bool:
        """Whether more rows differ than chance between two readings explains."""
        return self.differs > SKEWED_SHARE

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is missing is null."""
        return {
            "feature": self.feature,
            "rows": self.rows,
            "differs": round(self.differs, 4),
            "missing_served": round(self.missing_served, 4),
            "missing_joined": round(self.missing_joined, 4),
            "is_skewed": self.is_skewed,
            "examples": [{"of": whose, "served": a, "joined": b} for whose, a, b in self.examples],
        }


def report(made: Mapping[str, Made], plan: ReadPlan, item_ids: Sequence[str], join: Join) -> list[Skew]:
    """
    Every column of *plan*, users' first, by the share that differs within either.

    Only slates that were read by this plan, whose shopper was read; of visitors, who have no features, the items.
    """
    chosen = [one for one in made.values() if one.queries.feature_digest == plan.digest and one.as_of_us > 0]
    chosen = sorted(chosen, key=lambda one: one.as_of_us)[-MOST_SLATES:]
    pairs = [
        (one, at)
        for one in chosen
        for at in range(min(ITEMS_A_SLATE, len(one.item_keys)))
        if _is_known(one, at, item_ids)
    ]
    if not pairs:
        return []
    items = [item_ids[one.item_keys[at]] for one, at in pairs]
    joined = join(
        pd.DataFrame(
            {
                "user_id": [one.user_id for one, _ in pairs],
                "item_id": items,
                "event_timestamp": pd.to_datetime([one.as_of_us for one, _ in pairs], unit="us", utc=True),
            }
        )
    )
    first = np.array([at == 0 and one.user_id != "" for one, at in pairs])
    of_users = [one for one, at in pairs if at == 0 and one.user_id != ""]
    found: list[Skew] = []
    if of_users:
        numeric = np.concatenate([one.queries.user_numeric for one in of_users])
        words = np.concatenate([one.queries.user_categorical for one in of_users])
        names = [one.user_id for one in of_users]
        found += _of_entity(plan.user, names, numeric, words, *matrices(plan.user, joined[first]))
    numeric = np.stack([one.item_numeric[at] for one, at in pairs])
    words = np.stack([one.item_categorical[at] for one, at in pairs])
    return found + _of_entity(plan.item, items, numeric, words, *matrices(plan.item, joined))


def compare(feature: str, whose: Sequence[str], served: NDArray[Any], joined: NDArray[Any]) -> Skew:
    """
    One column of n rows: numbers with NaN where missing, or words with "".

    A value on one side only differs; nothing on both sides does not.
    """
    if served.dtype == object:
        gone_a, gone_b = served == "", joined == ""
        gap = (served != joined).astype(np.float64)
        is_other = gap > 0
    else:
        gone_a, gone_b = np.isnan(served), np.isnan(joined)
        size = np.maximum(np.abs(served), np.abs(joined))
        gap = np.where(gone_a | gone_b, np.where(gone_a == gone_b, 0, np.inf), np.abs(served - joined))
        is_other = gap > TOLERANCE * np.where(np.isfinite(size), np.maximum(size, TOLERANCE), 0)
    worst = [i for i in np.argsort(-gap, kind="stable")[:EXAMPLES].tolist() if is_other[i]]
    examples = tuple((whose[i], _said(served[i], gone_a[i]), _said(joined[i], gone_b[i])) for i in worst)
    differs, missing_served, missing_joined = (float(of.mean()) for of in (is_other, gone_a, gone_b))
    return Skew(feature, len(served), differs, missing_served, missing_joined, examples)


def write(path: Path, found: Sequence[Skew]) -> None:
    """*found* as JSON, replacing *path* whole."""
    artefacts.write_json(path, {"tolerance": TOLERANCE, "features": [one.to_json() for one in found]})


def lines(found: Sequence[Skew]) -> list[tuple[str, ...]]:
    """A row a feature for a table: name, rows, differing, missing as served and as joined, the worst example."""
    rows = []
    for one in found:
        worst = "{}: {} served, {} joined".format(*one.examples[0]) if one.examples else ""
        shares = (f"{share:.1%}" for share in (one.differs, one.missing_served, one.missing_joined))
        rows.append((one.feature, str(one.rows), *shares, worst))
    return rows


def _of_entity(
    entity: Any,
    whose: Sequence[str],
    served_numeric: NDArray[Any],
    served_words: NDArray[Any],
    numeric: NDArray[Any],
    words: NDArray[Any],
) -> list[Skew]:
    columns = [
        (name, served_numeric[:, i].astype(np.float64), numeric[:, i].astype(np.float64))
        for i, name in enumerate(entity.numeric)
    ]
    columns += [(name, served_words[:, i], words[:, i]) for i, name in enumerate(entity.categorical)]
    found = [compare(name, whose, served, joined) for name, served, joined in columns]
    return sorted(found, key=lambda one: -one.differs)


def _is_known(one: Made, at: int, item_ids: Sequence[str]) -> bool:
    return at < len(one.item_keys) and 0 <= int(one.item_keys[at]) < len(item_ids)


def _said(value: Any, is_missing: bool) -> Any:
    if is_missing:
        return None
    return value if isinstance(value, str) else float(value)
