"""
Reads what `affinity.py` holds for a batch of shoppers: who is close to whom, without a number for everybody else.

A method adds up a few rows of its table into a vector that stays from call to call; the best are picked from what those
rows reach, and all methods are looked up for what any of them picked. The rule: an answer depends on the shopper and on
nobody else in the batch, and it is the answer of the plain formula over all items (tests/support/dense_closeness.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32
from services.chassis.model import Shoppers
from services.chassis.scatter import Chosen, Rows32, Sums, best, promising
from services.chassis.signals import DAY_S, Touched, focused, touched

if TYPE_CHECKING:
    from services.chassis.affinity import Affinities

TABLES = ("cosine", "linear", "basket", "text")
"""Methods that are a table of each item's nearest items."""

NAMES = ("own", *TABLES, "peers", "trending", "category")
"""Every method, in the order of the rows that are given."""

IMPERSONAL = ("trending",)
"""Methods that say the same to everybody, so that they alone make no list of the shopper's own."""

OWN, PEERS, TRENDING, CATEGORY = (NAMES.index(name) for name in ("own", "peers", "trending", "category"))

_NO_KEYS: NDArray[np.int64] = np.empty(0, np.int64)


class Reader:
    """Answers about one `Affinities`. Any thread may ask; what is written into is taken from `_spare` and put back."""

    def __init__(self, affinities: Affinities) -> None:
        self.n_items = affinities.n_items
        self.half_lives_d = affinities.half_lives_d
        self.demand = affinities.demand
        self.tables = {
            NAMES.index(name): Rows32(table.offsets, table.keys, table.strengths)
            for name, table in affinities.tables.items()
        }
        peers = affinities.peers
        self.rarity, self.most_peers = peers.rarity, peers.most
        self.users_of = Rows32(peers.item_offsets, peers.users, peers.likeness)
        self.wanted_by = Rows32(peers.shopper_offsets, peers.keys, peers.wants)
        self.n_shoppers = len(peers.shopper_offsets) - 1
        # What is wanted most, of all and of each category, as far as it is wanted at all; ties by key.
        wanted, share, category = self.demand.wanted, self.demand.share, self.demand.category
        order = np.argsort(-wanted, kind="stable")
        self.trending = order[: np.count_nonzero(wanted > 0)].astype(np.int32)
        self.trending_wanted = wanted[self.trending]
        order = np.lexsort((-share, category))
        self.by_category = order[(share[order] > 0) & (category[order] >= 0)].astype(np.int32)
        self.shares = share[self.by_category]
        self.n_categories = int(category.max(initial=-1)) + 1
        sizes = np.bincount(category[self.by_category], minlength=self.n_categories)
        self.category_offsets = np.concatenate([[0], np.cumsum(sizes)])
        self._spare: list[_Vectors] = []

    def read(
        self,
        shoppers: Shoppers,
        context_strength: float,
        asked: NDArray[np.bool_] | None = None,
        known: Touched | None = None,
    ) -> Iterator[Reading]:
        """
        For one shopper after the other what can be asked about them; good until the next one is taken.

        Args:
            asked: (q, len(NAMES)) which methods are looked at; the others know nothing. None: all.
            known: `touched` of these shoppers, where the caller has it already.
        """
        if asked is None:
            asked = np.ones((len(shoppers), len(NAMES)), np.bool_)
        known = known or touched(shoppers, self.n_items, context_strength)
        batch = _Batch(self, shoppers, known, context_strength, asked)
        vectors = self._spare.pop() if self._spare else _Vectors(self)
        try:
            for i in range(len(shoppers)):
                reading = Reading(self, batch, vectors, i)
                try:
                    yield reading
                finally:
                    reading.close()
        finally:
            self._spare.append(vectors)


class _Vectors:
    """What is written into while one shopper is answered."""

    def __init__(self, reader: Reader) -> None:
        self.sums = {row: Sums(reader.n_items) for row in (*reader.tables, PEERS)}
        self.own: Float32 = np.zeros(reader.n_items, np.float32)
        self.alike = Sums(max(reader.n_shoppers, 0))


class _Batch:
    """What is worked out for all shoppers of a call at once."""

    def __init__(
        self,
        reader: Reader,
        shoppers: Shoppers,
        known: Touched,
        context_strength: float,
        asked: NDArray[np.bool_],
    ) -> None:
        self.keys, self.asked = known.keys, asked
        self.bounds = np.searchsorted(known.rows, np.arange(len(shoppers) + 1)).tolist()
        self.totals, _ = known.weights(reader.half_lives_d["own"] * DAY_S)
        used = [row for row in np.flatnonzero(asked.any(0)).tolist() if row not in (OWN, TRENDING)]
        half_lives = {row: reader.half_lives_d[NAMES[row]] for row in used}
        weights = {
            days: focused(shoppers, known.rows, known.weights(days * DAY_S)[1], context_strength)
            for days in set(half_lives.values())
        }
        self.weights = {row: weights[days] for row, days in half_lives.items()}
        self.chosen = {
            row: reader.tables[row].chosen(self.keys, self.weights[row]) for row in used if row in reader.tables
        }
        if PEERS in self.weights:
            self.worth = self.weights[PEERS] * reader.rarity[self.keys]
            self.chosen[PEERS] = reader.users_of.chosen(self.keys, self.worth)


class Reading:
    """One shopper: which items are close (`best`), and how close given items are (`at`)."""

    def __init__(self, reader: Reader, batch: _Batch, vectors: _Vectors, i: int) -> None:
        self._reader, self._vectors = reader, vectors
        start, end = batch.bounds[i], batch.bounds[i + 1]
        self._keys = batch.keys[start:end]
        self._asked = np.flatnonzero(batch.asked[i]).tolist()
        self._sums: dict[int, Sums] = {}
        self._taste: Float32 | None = None
        for row in self._asked:
            if row == OWN:
                vectors.own[self._keys] = batch.totals[start:end]
            elif row == CATEGORY:
                self._taste = self._tastes(batch.weights[row][start:end])
            elif row != TRENDING and row in batch.chosen:
                self._sums[row] = vectors.sums[row]
                chosen = batch.chosen[row].part(start, end)
                if row == PEERS:
                    chosen = self._of_peers(chosen, batch.worth[start:end])
                self._sums[row].add(chosen)

    def close(self) -> None:
        """Leave zeros behind, for the next."""
        for sums in self._sums.values():
            sums.clear()
        self._vectors.own[self._keys] = 0

    def at(self, keys: NDArray[np.integer]) -> Float32:
        """Closeness (len(NAMES), n) float32 ≥ 0 of *keys* (n,), each in [0, n_items)."""
        wide = keys.astype(np.int64, copy=False)
        out = np.zeros((len(NAMES), len(wide)), np.float32)
        for row in self._asked:
            if row in self._sums:
                self._sums[row].values.take(wide, out=out[row], mode="clip")
            else:
                out[row] = self._at_one(row, wide)
        return out

    def says(self, rows: Collection[int]) -> bool:
        """Whether any of these methods, *rows* of NAMES, is above 0 for any item."""
        for row in self._asked:
            if row not in rows:
                continue
            if row in self._sums:
                if self._sums[row].is_above_zero():
                    return True
            elif (self._proposed(row, 1, 0)[1] > 0).any():
                return True
        return False

    def best(self, each: int, exclude: NDArray[np.integer], within: NDArray[np.integer]) -> list[NDArray[np.integer]]:
        """
        For each method the keys of the *each* closest items above 0; the smaller key where that is open.

        Args:
            exclude: keys left out, known ones or not; from then on nothing is close about them.
            within: where not empty, nothing else is looked at.
        """
        n_items = self._reader.n_items
        exclude = exclude[(exclude >= 0) & (exclude < n_items)] if len(exclude) else exclude
        if len(within):
            allowed = np.unique(within[(within >= 0) & (within < n_items)])
            if len(exclude):
                allowed = allowed[~np.isin(allowed, exclude)]
            values = self.at(allowed)
            return [best(values[row], allowed, each) for row in self._asked]
        found = []
        for row in self._asked:
            if row in self._sums:
                sums = self._sums[row]
                if len(exclude):
                    # Zeros are not proposed.
                    sums.values[exclude] = 0
                found.append(sums.best(each))
                continue
            keys, values = self._proposed(row, each, len(exclude))
            if len(exclude):
                stays = ~np.isin(keys, exclude)
                keys, values = keys[stays], values[stays]
            if row == TRENDING:
                # In this order already.
                found.append(keys[:each])
                continue
            places = promising(values, each)
            found.append(best(values[places], keys[places], each))
        return found

    def _at_one(self, row: int, keys: NDArray[np.integer]) -> Float32:
        """One row of `at`, of a method without a table."""
        if row == OWN:
            return self._vectors.own.take(keys)
        demand = self._reader.demand
        if row == TRENDING:
            return demand.wanted.take(keys)
        if self._taste is None:
            return np.zeros(len(keys), np.float32)
        return np.asarray(self._taste[demand.category[keys]] * demand.share[keys], np.float32)

    def _proposed(self, row: int, each: int, more: int) -> tuple[NDArray[np.integer], Float32]:
        """
        Keys among which the *each* closest by a method without a table are, however many of *more* are left out, and
        how close they are.
        """
        reader = self._reader
        if row == OWN:
            return self._keys, self._vectors.own[self._keys]
        if row == TRENDING:
            return reader.trending[: each + more], reader.trending_wanted[: each + more]
        if self._taste is None:
            return reader.by_category[:0], reader.shares[:0]
        codes = np.flatnonzero(self._taste > 0)
        starts = reader.category_offsets[codes]
        lengths = np.minimum(reader.category_offsets[codes + 1] - starts, each + more)
        own = [slice(s, s + n) for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        keys = np.concatenate([reader.by_category[:0], *(reader.by_category[one] for one in own)])
        shares = np.concatenate([reader.shares[:0], *(reader.shares[one] for one in own)])
        return keys, np.repeat(self._taste[codes], lengths) * shares

    def _tastes(self, weights: Float32) -> Float32 | None:
        """Say of each category among what was touched (n_categories + 1,); None where there is none."""
        codes = self._reader.demand.category[self._keys]
        has_one = codes >= 0
        if not has_one.any():
            return None
        # One more than there are codes: an item without a category, -1, reads the last place, which stays 0.
        taste = np.bincount(codes[has_one], weights[has_one], self._reader.n_categories + 1)
        return taste.astype(np.float32)

    def _of_peers(self, chosen: Chosen, worth: Float32) -> Chosen:
        """What those most like this shopper want, and how much each of them counts."""
        reader, alike = self._reader, self._vectors.alike
        if not len(self._keys) or not reader.n_shoppers:
            return reader.wanted_by.chosen(_NO_KEYS, np.empty(0, np.float32))
        alike.add(chosen)
        who = np.sort(alike.best(reader.most_peers))
        # Over the length of the shopper's own vector: a cosine, comparable between shoppers.
        likeness = alike.values[who] / np.float32(max(float(np.sqrt(worth @ worth)), 1e-9))
        alike.clear()
        return reader.wanted_by.chosen(who, likeness)
