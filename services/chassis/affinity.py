"""
How close every item is to what a shopper touched, by several simple methods that each see something else.

The rule: one arithmetic for everybody (`closeness.py`). The generator asks it for the closest of the whole catalogue,
the re-ranker about the candidates, training about both; so a number means the same wherever it is read. What is needed
is learnt by `services/training/affinity.py` and lies in one file of arrays.

    own      this very item, by how much and how lately the shopper wanted it
    cosine   wanted by the same shoppers (item-kNN)
    linear   what a linear model makes of the whole history (EASE)
    basket   wanted in the same session: what goes together
    text     alike in their words
    peers    wanted lately by the shoppers most like this one (user-kNN)
    trending wanted lately by anybody: the same for every shopper
    category wanted lately in the categories of what was touched
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from services.chassis.closeness import IMPERSONAL, NAMES, TABLES, Reader
from services.chassis.model import Shoppers

__all__ = [
    "FILE",
    "HALF_LIVES_D",
    "IMPERSONAL",
    "NAMES",
    "TABLES",
    "Affinities",
    "Demand",
    "Peers",
    "Table",
    "standardised",
]

FILE = "affinities.npz"

_COMPRESSION = 1
"""zlib's level. Measured: at numpy's 6 a tenth of a fit of 10,000 items went into it; see docs/performance.md."""

HALF_LIVES_D: Mapping[str, float] = {
    "own": 90.0,
    "cosine": 60.0,
    "linear": 60.0,
    "basket": 14.0,
    "text": 30.0,
    "peers": 90.0,
    "trending": 90.0,
    "category": 60.0,
}
"""
Days after which an event of the shopper's history counts half. Compared on Online Retail's validation window: own 60
and 90 (re-buy ndcg@10 .285, .288), linear 30 and 60 (discovery .094, .099; the ridge moved with it), peers 60, 90 and
180 (all within .003). The others are first guesses; trending looks at no history.
"""


@dataclass(frozen=True, slots=True)
class Table:
    """
    What each item speaks for, a sparse n_items × n_items matrix.

    offsets    (n_items + 1,) int64 into keys (m,) int32 and strengths (m,) float32 > 0
    """

    offsets: NDArray[np.int64]
    keys: NDArray[np.int32]
    strengths: Float32


@dataclass(frozen=True, slots=True)
class Peers:
    """
    Shoppers to be compared with; two sparse matrices over them.

    rarity        (n_items,) float32 what an item in common is worth
    by_item       offsets (n_items + 1,) int64 into users (m,) int32 and likeness (m,) float32: unit rows a shopper
    by_shopper    offsets (n_shoppers + 1,) int64 into keys (k,) int32 and wants (k,) float32: wanted, decayed
    most          shoppers, the most alike first, that have a say
    """

    rarity: Float32
    item_offsets: NDArray[np.int64]
    users: NDArray[np.int32]
    likeness: Float32
    shopper_offsets: NDArray[np.int64]
    keys: NDArray[np.int32]
    wants: Float32
    most: int


@dataclass(frozen=True, slots=True)
class Demand:
    """
    What is wanted lately, by whomever.

    wanted    (n_items,) float32 ≥ 0: shoppers who wanted it, each halved with the age of their last event about it
    category  (n_items,) int32 code from 0, -1 for an item without one
    share     (n_items,) float32: *wanted* over that of the item's whole category
    """

    wanted: Float32
    category: NDArray[np.int32]
    share: Float32


@dataclass(frozen=True)
class Affinities:
    """
    Methods over the same n_items: `own`, `peers`, `trending`, `category` and the *tables* there are.

    half_lives_d  as HALF_LIVES_D; part of what was learnt, so that whoever reads the file weighs a history alike
    """

    tables: Mapping[str, Table]
    peers: Peers
    demand: Demand
    half_lives_d: Mapping[str, float] = field(default_factory=lambda: HALF_LIVES_D)

    @property
    def n_items(self) -> int:
        return len(self.peers.rarity)

    @cached_property
    def reader(self) -> Reader:
        """Answers from these arrays; made when first asked."""
        return Reader(self)

    def of(self, shoppers: Shoppers, context_strength: float, unasked: Collection[str] = ()) -> Iterator[Float32]:
        """
        For one shopper after the other: closeness (len(NAMES), n_items) float32 ≥ 0 of every item.

        On the page of an item and in the basket the context decides and the history only breaks ties; elsewhere what is
        in the context counts *context_strength* (a purchase of now counts 5). A row of zeros: nothing is known, or it
        is one of the methods *unasked*. Costs by the catalogue: for looking at, not for answering requests.
        """
        asked = np.tile(np.array([name not in unasked for name in NAMES]), (len(shoppers), 1))
        for reading in self.reader.read(shoppers, context_strength, asked):
            yield reading.at(np.arange(self.n_items))

    def at(self, shoppers: Shoppers, candidates: Rows, context_strength: float) -> Float32:
        """
        Closeness (len(NAMES), n) float32 ≥ 0 of what was proposed, as `of` has it; 0 for keys outside [0, n_items).

        Args:
            candidates: a row of keys a shopper; n = len(candidates.values).
        """
        keys, offsets = candidates.values.astype(np.int64), candidates.offsets.tolist()
        is_known = (keys >= 0) & (keys < self.n_items)
        keys = np.where(is_known, keys, 0)
        out = np.zeros((len(NAMES), len(keys)), np.float32)
        if not is_known.any():
            return out
        for i, reading in enumerate(self.reader.read(shoppers, context_strength)):
            if offsets[i] < offsets[i + 1]:
                out[:, offsets[i] : offsets[i + 1]] = reading.at(keys[offsets[i] : offsets[i + 1]])
        out *= is_known
        return out

    def save(self, path: Path) -> None:
        """Write *path*, a compressed npz; strengths as float16, whose third digit no order needs."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, table in self.tables.items():
            arrays[f"{name}.offsets"], arrays[f"{name}.keys"] = table.offsets, table.keys
            arrays[f"{name}.strengths"] = table.strengths.astype(np.float16)
        for name in Peers.__slots__:
            arrays[f"peers.{name}"] = np.asarray(getattr(self.peers, name))
        for name in Demand.__slots__:
            arrays[f"demand.{name}"] = getattr(self.demand, name)
        arrays |= {f"half_life.{name}": np.asarray(days) for name, days in self.half_lives_d.items()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as file:
            for name, array in arrays.items():
                # As numpy's own npz: the same time for all, so that the same arrays are the same bytes.
                with file.open(f"{name}.npy", "w", force_zip64=True) as part:
                    np.lib.format.write_array(part, np.asanyarray(array), allow_pickle=False)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Affinities:
        """What `save` wrote, read."""
        tables = {
            name: Table(
                np.asarray(arrays[f"{name}.offsets"], np.int64),
                np.asarray(arrays[f"{name}.keys"], np.int32),
                np.asarray(arrays[f"{name}.strengths"], np.float32),
            )
            for name in TABLES
        }
        fields = {name: arrays[f"peers.{name}"] for name in Peers.__slots__}
        peers = Peers(**{**fields, "most": int(fields["most"])})  # type: ignore[arg-type]
        demand = Demand(**{name: arrays[f"demand.{name}"] for name in Demand.__slots__})  # type: ignore[arg-type]
        half_lives_d = {name: float(arrays.get(f"half_life.{name}", days)) for name, days in HALF_LIVES_D.items()}
        return cls(tables, peers, demand, half_lives_d)


def standardised(values: Float32) -> Float32:
    """
    (a, n) → (a, n) float32: each row less its mean, over its standard deviation, cut at ±5; zeros for a row of equals.
    """
    # By hand: numpy's mean and std ask at every call what they were given, and std finds the mean again.
    n = np.float32(max(values.shape[1], 1))
    centred = values - (values.sum(1) / n)[:, None]
    spread = np.sqrt(np.einsum("ij,ij->i", centred, centred) / n)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-9)
    centred *= scale[:, None]
    return np.asarray(np.clip(centred, -5, 5, out=centred), np.float32)
