"""
The hidden truth of a generated shop: what each shopper really likes, what really goes together, who is who.

Rule: written once beside the data in `DIR/truth/`, read by tests and by evaluation, never by a model's training.
Arrays are plain .npy (never pickled), relations are Parquet.

    truth/items.parquet        item_id, leaf, design, born_day, dies_day; row number = row of item_factors.npy
    truth/shoppers.parquet     user_id, visitor_id, logs_in_at, arrives_day, leaves_day; row number = row of the arrays
    truth/item_factors.npy     (n_items, d) float32
    truth/taste_start.npy, taste_end.npy     (n_shoppers, d) float32
    truth/favourites.npy       (n_shoppers, 8) int32 leaves; share_start.npy, share_end.npy (n_shoppers, 8) float32
    truth/complements.parquet  item_id, complement_id, strength
    truth/substitutes.parquet  item_id, substitute_id, strength
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from services.training.synthetic import calendar
from services.training.synthetic.shoppers import Shoppers
from services.training.synthetic.world import N_STYLES, World

Floats = NDArray[np.float32]

N_SUBSTITUTES = 5


@dataclass(frozen=True, slots=True)
class Truth:
    """
    The truth as it was written; row numbers are those of *item_ids* and *shopper_ids*.

    A shopper who began as a guest has one row: *rows_of* finds it by user id and by visitor id.
    """

    item_ids: list[str]
    leaf: NDArray[np.int64]
    shopper_ids: list[str]
    rows_of: dict[str, int]
    item_factors: Floats
    taste_start: Floats
    taste_end: Floats
    favourites: NDArray[np.int32]
    share_start: Floats
    share_end: Floats

    def affinity(self, rows: NDArray[np.int64], position: float) -> Floats:
        """
        True liking of all items, (len(rows), n_items) float32: log share of visits to the item's leaf + utility of the
        item.

        *position* in [0, 1] is the moment in the window; a leaf that is no favourite counts as a tenth of the weakest
        one. What is left out is chance, season, stock, fatigue and the need of things that ran out.
        """
        taste = (1 - position) * self.taste_start[rows] + position * self.taste_end[rows]
        share = (1 - position) * self.share_start[rows] + position * self.share_end[rows]
        floor = 0.1 * float(self.share_start.min())
        visits = np.full((len(rows), int(self.leaf.max()) + 1), floor, np.float32)
        np.put_along_axis(visits, self.favourites[rows].astype(np.int64), share.astype(np.float32), axis=1)
        return np.asarray(taste @ self.item_factors.T + np.log(visits)[:, self.leaf], np.float32)

    @classmethod
    def load(cls, directory: Path) -> Truth:
        """Read what `write_truth` wrote into *directory* (the `truth` folder itself)."""
        if not (directory / "items.parquet").exists():
            raise FileNotFoundError(
                f"{directory} holds no hidden truth; only shops made by `tutti data synth` have one: look in DIR/truth"
            )
        items = pq.read_table(directory / "items.parquet")
        people = pq.read_table(directory / "shoppers.parquet")
        users, visitors = people["user_id"].to_pylist(), people["visitor_id"].to_pylist()
        rows_of = {user: row for row, user in enumerate(users)}
        rows_of |= {visitor: row for row, visitor in enumerate(visitors) if visitor}
        arrays = {name: np.load(directory / f"{name}.npy", allow_pickle=False) for name in _ARRAYS}
        return cls(items["item_id"].to_pylist(), items["leaf"].to_numpy(), users, rows_of, **arrays)


_ARRAYS = ("item_factors", "taste_start", "taste_end", "favourites", "share_start", "share_end")


def write_truth(directory: Path, world: World, shoppers: Shoppers, days: int) -> None:
    """Write the files listed on top into *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = np.array(world.item_ids, object)
    _write(
        directory / "items.parquet",
        {"item_id": ids, "leaf": world.leaf, "design": world.design, "born_day": world.born, "dies_day": world.dies},
    )
    start = calendar.midnight_us(calendar.first_day(days))
    late = (shoppers.logs_in >= 0) & (shoppers.logs_in <= days)
    logs_in_us = start + np.where(late, shoppers.logs_in, 0) * 86_400_000_000
    _write(
        directory / "shoppers.parquet",
        {
            "user_id": shoppers.user_ids,
            "visitor_id": pa.array([v or None for v in shoppers.visitor_ids], pa.string()),
            "logs_in_at": pa.array(logs_in_us, pa.timestamp("us", "UTC"), mask=~late),
            "arrives_day": shoppers.arrives,
            "leaves_day": shoppers.leaves,
        },
    )
    item, column = np.nonzero(world.complements >= 0)
    _write(
        directory / "complements.parquet",
        {
            "item_id": ids[item],
            "complement_id": ids[world.complements[item, column]],
            "strength": world.complement_strength[item, column],
        },
    )
    item, other, strength = substitutes(world)
    _write(directory / "substitutes.parquet", {"item_id": ids[item], "substitute_id": ids[other], "strength": strength})
    arrays = {
        "item_factors": world.factors,
        "taste_start": shoppers.taste_start,
        "taste_end": shoppers.taste_end,
        "favourites": shoppers.favourites.astype(np.int32),
        "share_start": shoppers.share_start,
        "share_end": shoppers.share_end,
    }
    for name in _ARRAYS:
        np.save(directory / f"{name}.npy", arrays[name], allow_pickle=False)


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    pq.write_table(pa.table(dict(columns)), path, compression="zstd")


def substitutes(world: World) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """
    Items that do the same job: same leaf and noun, nearest in style, hidden taste and price position.

    Returns item, substitute and strength in (0, 1], equally long; at most N_SUBSTITUTES an item, strongest first.
    """
    items: list[NDArray[np.int64]] = []
    others: list[NDArray[np.int64]] = []
    strengths: list[Floats] = []
    for k in range(len(world.leaves)):
        mine = np.arange(world.bounds[k], world.bounds[k + 1])
        # A block of rows at a time: at 50,000 items a leaf has hundreds, and this stays small.
        looks = world.factors[mine].copy()
        looks[:, -2] = 0.0
        looks[:, N_STYLES:-3] *= 0.7
        square = (looks**2).sum(axis=1)
        gap = square[:, None] + square[None, :] - 2 * looks @ looks.T
        closeness = np.exp(-np.maximum(gap, 0.0) / 2)
        closeness *= world.noun[mine][:, None] == world.noun[mine][None, :]
        np.fill_diagonal(closeness, 0.0)
        best = np.argsort(-closeness, axis=1, kind="stable")[:, :N_SUBSTITUTES]
        value = np.take_along_axis(closeness, best, axis=1)
        row, column = np.nonzero(value > 0.05)
        items.append(mine[row])
        others.append(mine[best[row, column]])
        strengths.append(value[row, column].astype(np.float32))
    return np.concatenate(items), np.concatenate(others), np.concatenate(strengths)
