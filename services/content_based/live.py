"""
An index that follows the catalogue: items that came, changed or went since training, over the one that training wrote.

The trained index is not touched; what is new lies in rows behind it and is searched exactly, what is gone is left out.
The rule: whoever answers a call holds one edition, which never changes; the one writer publishes the next whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.catalogue import ItemState
from services.chassis.model import Candidates, GenerateQueries
from services.chassis.retrieval import VectorIndex
from services.content_based.encoder import Described, Encoder

MAX_ADDED = 100_000
"""Rows beside the trained index. Derived: they are searched one by one, 130 MB and 7 ms a query at 327 dimensions. What
comes after that waits for the next training."""

MAX_LEAP = 1_000_000
"""Keys that may be missing before a new one, as in the orchestrator's catalogue: beyond it a key is not ours."""

SAME_ABOVE = 0.949
"""Cosine with its trained vector above which an item stays where it is. Derived: the price block is 5 % of a vector's
squared length, so whatever a price becomes, the rest of an unchanged item is 0.95, less rounding."""

log = structlog.get_logger("tutti.content_based")


@dataclass(frozen=True, slots=True, eq=False)
class Edition:
    """
    The index at one moment; nobody writes into it.

    row_of      (n_items,) int64 item key → row, the added ones behind the trained; -1 for a key without one
    alive       (trained rows,) bool; None: all
    added       (m, d) float32, of added_keys (m,) int32
    is_current  (m,) bool: not replaced by a later row, and not gone
    """

    trained: VectorIndex
    row_of: NDArray[np.int64]
    alive: NDArray[np.bool_] | None
    added: Float32
    added_keys: NDArray[np.int32]
    is_current: NDArray[np.bool_]

    @property
    def blocks(self) -> tuple[Float32, ...]:
        """All vectors, as `model.profiles` takes them."""
        return (self.trained.vectors, self.added) if len(self.added) else (self.trained.vectors,)

    def candidates(self, queries: GenerateQueries, towers: Float32, speaks: NDArray[np.bool_]) -> Candidates:
        """As `VectorIndex.candidates`, over trained and added items."""
        found = self.trained.candidates(queries, towers, speaks, self.alive)
        if not self.is_current.any():
            return found
        nearness = towers @ self.added.T
        keys: list[NDArray[np.int32]] = []
        scores: list[Float32] = []
        for i in range(len(queries.shoppers)):
            own = slice(found.rows.offsets[i], found.rows.offsets[i + 1])
            may = self.is_current & speaks[i] & ~np.isin(self.added_keys, queries.exclude.row(i))
            if len(within := queries.within.row(i)):
                may &= np.isin(self.added_keys, within)
            at = np.flatnonzero(may)
            count = int(queries.counts[i])
            if len(at) > count:
                at = at[np.argpartition(-nearness[i, at], count)[:count]]
            both = np.concatenate([found.rows.values[own], self.added_keys[at]])
            score = np.concatenate([found.scores[own], nearness[i, at]])
            order = np.lexsort((both, -score))[:count]
            keys.append(both[order].astype(np.int32))
            scores.append(score[order].astype(np.float32))
        return Candidates(Rows.of(keys), np.concatenate([*scores, np.empty(0, np.float32)]))


class LiveIndex:
    """The one writer of editions. `take` and `begin_anew` belong to one thread, `edition` to any."""

    def __init__(self, trained: VectorIndex, n_items: int, encoder: Encoder | None) -> None:
        """*encoder*: None for an artefact without one, which then stays as it was trained."""
        self._trained, self._encoder = trained, encoder
        self._trained_rows = trained.rows_of(np.arange(n_items))
        self._is_full_told = False
        self.begin_anew()
        if encoder is not None:
            # Now, and not when the first new item waits for it: the first time costs more than all that follow.
            encoder.vectors(_described([{}]))

    def begin_anew(self) -> None:
        """Forget all changes."""
        d = self._trained.vectors.shape[1]
        self._added, self._keys, self._n_added = np.empty((0, d), np.float32), np.empty(0, np.int32), 0
        # Rows that were added and mean nothing any more.
        self._n_stale = 0
        self._row_of = self._trained_rows.copy()
        self._alive = np.ones(len(self._trained), np.bool_)
        self._publish()

    def take(self, states: Sequence[ItemState]) -> None:
        """Take changes over, the last of each item; without a key an item cannot be proposed yet."""
        if self._encoder is None:
            return
        ceiling = len(self._row_of) + MAX_LEAP
        last = {state.key: state.document for state in states if 0 <= state.key < ceiling}
        if not self._has_room():
            # An import of a million: whom there is no room for is not encoded, which is most of what an item costs.
            n_before = len(last)
            last = {key: document for key, document in last.items() if self._has_row(key)}
            self._tell_full(n_before > len(last))
        if not last:
            return
        if (size := max(last) + 1) > len(self._row_of):
            # A quarter more, so that items that come one by one do not copy everything one by one.
            behind = np.full(size + size // 4 - len(self._row_of), -1, np.int64)
            self._row_of = np.concatenate([self._row_of, behind])
        else:
            # The last edition's is being read.
            self._row_of = self._row_of.copy()
        self._alive = self._alive.copy()
        known = {key: document for key, document in last.items() if document is not None}
        vectors = self._encoder.vectors(_described(list(known.values())))
        for key in last.keys() - known.keys():
            self._drop(key)
        for key, vector in zip(known, vectors, strict=True):
            self._put(key, vector)
        self._publish()

    def _has_room(self) -> bool:
        return self._n_added < MAX_ADDED or self._n_stale > 0

    def _has_row(self, key: int) -> bool:
        return self._trained_row(key) >= 0 or (key < len(self._row_of) and bool(self._row_of[key] >= 0))

    def _drop(self, key: int) -> None:
        self._n_stale += bool(self._row_of[key] >= len(self._trained))
        self._row_of[key] = -1
        if (row := self._trained_row(key)) >= 0:
            self._alive[row] = False

    def _put(self, key: int, vector: Float32) -> None:
        row = self._trained_row(key)
        if row >= 0 and float(self._trained.vectors[row] @ vector) >= SAME_ABOVE:
            self._drop(key)
            self._row_of[key], self._alive[row] = row, True
            return
        if not vector.any():
            self._drop(key)
            return
        if (added := int(self._row_of[key]) - len(self._trained)) >= 0 and np.array_equal(self._added[added], vector):
            # Told again, after others were missed.
            return
        if self._n_added == MAX_ADDED and not self._packed():
            return
        self._drop(key)
        if self._n_added == len(self._added):
            room = min(MAX_ADDED, max(64, 2 * self._n_added))
            self._added, self._keys = _with_rows(self._added, room), _with_rows(self._keys, room)
        # Behind every row that an edition has: nobody reads it yet.
        self._added[self._n_added], self._keys[self._n_added] = vector, key
        self._row_of[key] = len(self._trained) + self._n_added
        self._n_added += 1

    def _trained_row(self, key: int) -> int:
        return int(self._trained_rows[key]) if key < len(self._trained_rows) else -1

    def _packed(self) -> bool:
        """Whether leaving out rows that were replaced made room."""
        if not self._n_stale:
            self._tell_full(True)
            return False
        current = self._current()
        added, keys = self._added[: self._n_added][current], self._keys[: self._n_added][current]
        self._added, self._keys, self._n_added = added, keys, len(keys)
        self._row_of[keys] = len(self._trained) + np.arange(len(keys))
        self._n_stale = 0
        return True

    def _tell_full(self, is_full: bool) -> None:
        if is_full and not self._is_full_told:
            log.error("no_room_for_new_items", added=MAX_ADDED, advice="train")
            self._is_full_told = True

    def _current(self) -> NDArray[np.bool_]:
        rows = len(self._trained) + np.arange(self._n_added)
        return np.asarray(self._row_of[self._keys[: self._n_added]] == rows, np.bool_)

    def _publish(self) -> None:
        self.edition = Edition(
            self._trained,
            self._row_of,
            None if self._alive.all() else self._alive,
            self._added[: self._n_added],
            self._keys[: self._n_added],
            self._current(),
        )

    def __repr__(self) -> str:
        gone = int((~self._alive).sum())
        return f"<LiveIndex {len(self._trained)} trained, {gone} of them replaced or gone, {self._n_added} added>"


def _described(documents: Sequence[object]) -> Described:
    """Documents of items as the encoder takes them; a field of another kind than it should be says nothing."""

    def texts(name: str) -> list[str]:
        found = [document.get(name) if isinstance(document, dict) else None for document in documents]
        return [value if isinstance(value, str) else "" for value in found]

    prices = [document.get("price") if isinstance(document, dict) else None for document in documents]
    numbers = [price if isinstance(price, int | float) else np.nan for price in prices]
    return Described(
        texts("title"), texts("description"), texts("category"), texts("brand"), np.asarray(numbers, np.float32)
    )


def _with_rows(table: NDArray[Any], n: int) -> NDArray[Any]:
    larger = np.zeros((n, *table.shape[1:]), table.dtype)
    larger[: len(table)] = table
    return larger
