"""
A data directory of a larger or smaller shop, made of a trained one: catalogue, vocabulary, models and some shoppers.

Only what serving reads is there; nothing in it can be trained on.
"""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from protos import artefacts, vocabulary
from services.bench.growth.stretched import Clones, stretch
from services.training import dataset as datasets

SHOPPERS_FILE = "shoppers.npz"
SHOPPERS = 512
"""Judged: more than a batch by far, so that no two stretches of a measurement are of the same histories only."""


def grow(trained: Path, place: Path, n: int, names: list[str], seed: int) -> None:
    """
    Write into *place* a shop of *n* items made of the *trained* one.

    Args:
        names: the models to be there: every source and the re-ranker.
    """
    rng = np.random.default_rng(seed)
    old = vocabulary.read(trained / vocabulary.FILE_NAME)
    clones = Clones.of(n, len(old), rng)
    ids = [f"g{i}" for i in range(n)]
    vocabulary.write(place / vocabulary.FILE_NAME, ids)
    _catalogue(trained, place, old, ids, clones)
    digest = vocabulary.digest(ids)
    made: dict[str, Path] = {}
    for name in dict.fromkeys([*names, "popular"]):
        stretch(artefacts.load(trained / "models", name), place / "models", clones, digest, seed, made)
    shutil.copy2(trained / "dataset.json", place / "dataset.json")
    _shoppers(trained, place, clones, rng)


def _catalogue(trained: Path, place: Path, old: list[str], ids: list[str], clones: Clones) -> None:
    items = pq.read_table(trained / "items.parquet")
    row_of = {item_id: row for row, item_id in enumerate(items["item_id"].to_pylist())}
    # An item of the vocabulary that the shop no longer lists has no row: its clones are not listed either.
    rows = np.array([row_of.get(item_id, -1) for item_id in old])[clones.origin]
    listed = np.flatnonzero(rows >= 0)
    grown = items.take(pa.array(rows[listed]))
    column = grown.schema.get_field_index("item_id")
    grown = grown.set_column(column, "item_id", pa.array([ids[i] for i in listed.tolist()], pa.string()))
    pq.write_table(grown, place / "items.parquet")


def _shoppers(trained: Path, place: Path, clones: Clones, rng: np.random.Generator) -> None:
    """Histories of shoppers as of now, drawn by how much they did, of clones of what they touched."""
    everything = datasets.load(trained)
    users = everything.users[rng.integers(0, len(everything), SHOPPERS)]
    shoppers = everything.shoppers(users, np.full(SHOPPERS, everything.until_us))
    keys = clones.drawn(shoppers.history.values, rng)
    stays = keys >= 0
    so_far = np.concatenate([[0], np.cumsum(stays)])
    np.savez(
        place / SHOPPERS_FILE,
        offsets=so_far[shoppers.history.offsets],
        keys=keys[stays].astype(np.int32),
        types=shoppers.history_types[stays],
        ages_s=shoppers.history_ages_s[stays],
    )


def histories(
    place: Path, length: int | None
) -> list[tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.float32]]]:
    """
    Keys, types and ages, oldest first, of each shopper; with *length*, so many events: those of the next shoppers
    where their own do not suffice, the newest where they are more.
    """
    with np.load(place / SHOPPERS_FILE, allow_pickle=False) as found:
        offsets, keys, types, ages_s = (found[name] for name in ("offsets", "keys", "types", "ages_s"))
    if length is None:
        return [(keys[a:b], types[a:b], ages_s[a:b]) for a, b in pairwise(offsets.tolist())]
    made = []
    for start in offsets[:-1].tolist():
        at = (start + np.arange(length)) % max(len(keys), 1)
        at = at[np.argsort(-ages_s[at], kind="stable")]
        made.append((keys[at], types[at], ages_s[at]))
    return made
