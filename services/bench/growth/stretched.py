"""
The artefacts of a trained shop, made larger or smaller: the files that training writes, without training.

Every item of the larger shop is a clone of one of the trained shop's; where a table says that two items belong
together, clones of theirs do, drawn by chance. So rows keep their lengths, what is popular stays so, and tastes and
categories are those of a shop; an item's neighbours are as many as before, since training bounds them. A clone's
vectors are its original's, shaken a little, so that no two are equal. What does not speak of items (networks, trees,
encoders) stays. The rule: files are written by the writers of training (`write_index`, `Affinities.save`) and read by
those of serving.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import artefacts
from protos.arrays import Float32
from protos.artefacts import Artefact
from services.chassis.affinity import FILE as AFFINITIES
from services.chassis.affinity import Affinities, Demand, Peers, Table
from services.chassis.retrieval import KEYS_FILE, VECTORS_FILE, write_index

SHAKEN_BY = 0.1
"""Length of what is added to a clone's vector, over its own. Judged: near enough to stay among its kind."""

_AT_ONCE = 65_536
"""Rows worked on at once. Derived: of 100 neighbours each, 50 MB; a million at once were 800."""

MAPPED, ITEMS, POPULAR = "mapped_keys.npy", "items.npz", "popular.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Clones:
    """
    Who is a clone of whom; n items of the new shop, m of the trained one.

    origin   (n,) int64 trained key of every new one
    first    (m,) int64 the first clone of every trained item, -1: it has none
    copies   (m,) int64 how many clones it has; they lie m apart
    """

    origin: NDArray[np.int64]
    first: NDArray[np.int64]
    copies: NDArray[np.int64]

    @classmethod
    def of(cls, n: int, m: int, rng: np.random.Generator) -> Clones:
        """A shop of *n* items from one of *m*: each cloned about as often; in a smaller shop, a sample of them."""
        if n >= m:
            every = np.arange(m)
            return cls(np.arange(n) % m, every, (n - 1 - every) // m + 1)
        chosen = np.sort(rng.permutation(m)[:n])
        first = np.full(m, -1)
        first[chosen] = np.arange(n)
        return cls(chosen, first, (first >= 0).astype(np.int64))

    def drawn(self, keys: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
        """For each of *keys* one of its clones by chance, -1 where it has none."""
        number = (rng.random(len(keys)) * self.copies[keys]).astype(np.int64)
        found = self.first[keys] + number * len(self.first)
        return np.where(self.copies[keys] > 0, found, -1)

    def all_of(self, keys: NDArray[np.integer]) -> NDArray[np.int64]:
        """Every clone of *keys*, ascending."""
        is_one = np.zeros(len(self.first), np.bool_)
        is_one[keys] = True
        return np.flatnonzero(is_one[self.origin])


def stretch(
    trained: Artefact, models: Path, clones: Clones, vocabulary_digest: str, seed: int, made: dict[str, Path]
) -> None:
    """
    Write the artefact of the new shop into *models*, as its champion.

    made: digest of a trained file → what was made of it; a file that two models share, like closeness, they go on
        sharing, and it is made once.
    """
    rng = np.random.default_rng(seed)
    staged = models / trained.name / ".staging"
    staged.mkdir(parents=True)
    indexed = [name.removesuffix(VECTORS_FILE) for name in trained.manifest.files if name.endswith(VECTORS_FILE)]
    ours = {AFFINITIES: _affinities, MAPPED: _mapped, ITEMS: _items, POPULAR: _popular}
    for name in trained.manifest.files:
        digest = trained.manifest.files[name]
        if name in ours and digest in made:
            shutil.copy2(made[digest], staged / name)
        elif name in ours:
            ours[name](trained, staged / name, clones, rng)
        elif not any(name.startswith(prefix) and _is_of_index(name.removeprefix(prefix)) for prefix in indexed):
            shutil.copy2(trained.file(name), staged / name)
    for prefix in indexed:
        _index(trained, staged, prefix, clones, rng)
    manifest = replace(
        trained.manifest,
        version="",
        vocabulary={"size": len(clones.origin), "digest": vocabulary_digest},
        files=artefacts.hash_files(staged),
    )
    manifest = replace(manifest, version=manifest.derived_version())
    artefacts.write_manifest(staged, manifest)
    final = models / trained.name / manifest.version
    staged.rename(final)
    artefacts.write_json(models / trained.name / artefacts.ALIASES, {artefacts.CHAMPION: manifest.version})
    made.update({trained.manifest.files[name]: final / name for name in ours if name in trained.manifest.files})


Write = Callable[[Artefact, Path, Clones, np.random.Generator], None]


def _is_of_index(name: str) -> bool:
    """Whether `write_index` writes such a file: vectors, keys, and whatever it searches them by."""
    return name in (VECTORS_FILE, KEYS_FILE) or name.startswith(("index.", "cells."))


def _index(trained: Artefact, out: Path, prefix: str, clones: Clones, rng: np.random.Generator) -> None:
    vectors, keys = trained.array(f"{prefix}{VECTORS_FILE}"), trained.array(f"{prefix}{KEYS_FILE}")
    row_of = np.full(len(clones.first), -1)
    row_of[keys] = np.arange(len(keys))
    rows = row_of[clones.origin]
    findable = np.flatnonzero(rows >= 0)
    write_index(
        out,
        shaken(vectors[rows[findable]], clones.first[clones.origin[findable]] == findable, rng),
        findable.astype(np.int32),
        prefix,
    )


def shaken(vectors: Float32, stays: NDArray[np.bool_], rng: np.random.Generator) -> Float32:
    """*vectors* (n, d), but for those that stay moved by `SHAKEN_BY` of their length, which they keep."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found = np.array(vectors, np.float32)
    # A million vectors of 300 numbers at once would be twice the memory of the index they are for.
    for start in range(0, len(found), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        noise = rng.standard_normal(found[part].shape, np.float32)
        noise *= SHAKEN_BY * lengths[part] / np.sqrt(max(found.shape[1], 1))
        noise[stays[part]] = 0
        found[part] += noise
        now = np.linalg.norm(found[part], axis=1, keepdims=True)
        found[part] *= np.divide(lengths[part], now, out=np.ones_like(now), where=now > 0)
    return found


def _affinities(trained: Artefact, file: Path, clones: Clones, rng: np.random.Generator) -> None:
    found = Affinities.of_arrays(trained.arrays(AFFINITIES))
    tables = {name: _table(table, clones, rng) for name, table in found.tables.items()}
    Affinities(tables, _peers(found.peers, clones, rng), _demand(found.demand, clones), found.half_lives_d).save(file)


def _table(table: Table, clones: Clones, rng: np.random.Generator) -> Table:
    lengths = np.diff(table.offsets)[clones.origin]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    keys, strengths = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.float32)
    for start in range(0, len(lengths), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        own = offsets[start : start + _AT_ONCE + 1]
        here = slice(own[0], own[-1])
        at = np.repeat(table.offsets[clones.origin[rows]] - own[:-1], lengths[rows]) + np.arange(own[0], own[-1])
        keys[here], strengths[here] = clones.drawn(table.keys[at], rng), table.strengths[at]
    offsets, stays = _kept(offsets, keys)
    return Table(offsets, keys[stays], strengths[stays])


def _peers(peers: Peers, clones: Clones, rng: np.random.Generator) -> Peers:
    """The same shoppers, who wanted as many items: one clone of each. Both sides are of the same pairs."""
    n_shoppers = len(peers.shopper_offsets) - 1
    likeness = _likeness_of(peers, n_shoppers)
    drawn = clones.drawn(peers.keys, rng)
    offsets, stays = _kept(peers.shopper_offsets, drawn.astype(np.int32))
    keys = drawn[stays]
    users = np.repeat(np.arange(n_shoppers), np.diff(offsets))
    by_item = np.argsort(keys, kind="stable")
    item_offsets = np.searchsorted(keys[by_item], np.arange(len(clones.origin) + 1))
    return Peers(
        peers.rarity[clones.origin],
        item_offsets,
        users[by_item].astype(np.int32),
        likeness[stays][by_item],
        offsets,
        keys.astype(np.int32),
        peers.wants[stays],
        peers.most,
    )


def _likeness_of(peers: Peers, n_shoppers: int) -> Float32:
    """Likeness in the order of shoppers, where the file has it in the order of items; 0 where a pair has none."""
    keys = np.repeat(np.arange(len(peers.rarity)), np.diff(peers.item_offsets))
    pairs = peers.users.astype(np.int64) * len(peers.rarity) + keys
    order = np.argsort(pairs)
    wanted = np.repeat(np.arange(n_shoppers), np.diff(peers.shopper_offsets)) * len(peers.rarity) + peers.keys
    if not len(pairs):
        return np.zeros(len(wanted), np.float32)
    place = np.minimum(np.searchsorted(pairs[order], wanted), len(pairs) - 1)
    return np.where(pairs[order][place] == wanted, peers.likeness[order][place], 0).astype(np.float32)


def _demand(demand: Demand, clones: Clones) -> Demand:
    wanted, category = demand.wanted[clones.origin], demand.category[clones.origin]
    has_one = category >= 0
    total = np.bincount(category[has_one], wanted[has_one], int(category.max(initial=-1)) + 2)
    whole = total[category]
    share = np.divide(wanted, whole, out=np.zeros(len(wanted), np.float64), where=has_one & (whole > 0))
    return Demand(wanted, category, share.astype(np.float32))


def _mapped(trained: Artefact, file: Path, clones: Clones, rng: np.random.Generator) -> None:
    del rng
    np.save(file, clones.all_of(trained.array(MAPPED)).astype(np.int32), allow_pickle=False)


def _items(trained: Artefact, file: Path, clones: Clones, rng: np.random.Generator) -> None:
    del rng
    m = len(clones.first)
    arrays = {name: array[clones.origin] if len(array) == m else array for name, array in trained.arrays(ITEMS).items()}
    np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes a bool among the arrays


def _popular(trained: Artefact, file: Path, clones: Clones, rng: np.random.Generator) -> None:
    """The same order; clones of one item stand beside each other."""
    del rng
    arrays: dict[str, NDArray[Any]] = trained.arrays(POPULAR)
    place = np.full(len(clones.first), len(arrays["keys"]))
    place[arrays["keys"]] = np.arange(len(arrays["keys"]))
    order = np.argsort(place[clones.origin], kind="stable")
    order = order[place[clones.origin[order]] < len(arrays["keys"])]
    scores = arrays["scores"][place[clones.origin[order]]]
    np.savez(file, keys=order.astype(np.int32), scores=scores)


def _kept(offsets: NDArray[np.int64], keys: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Offsets without entries that lead to no item, key -1, and which (n,) stay. None is twice in a row."""
    stays = keys >= 0
    if stays.all():
        return offsets, stays
    so_far = np.concatenate([[0], np.cumsum(stays)])
    return so_far[offsets], stays
