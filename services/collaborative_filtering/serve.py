"""Serves collaborative filtering: every method's closeness to a shopper's history, blended."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.artefacts import Artefact
from services.chassis.affinity import FILE, IMPERSONAL, NAMES, Affinities
from services.chassis.model import Candidates, GenerateQueries, Resources, Shoppers
from services.chassis.retrieval import VectorIndex
from services.collaborative_filtering.model import (
    METHODS,
    WEIGHTS_OF,
    Parameters,
    Solver,
    blend,
    proposed,
    user_vectors,
)
from services.collaborative_filtering.sequence import SequenceModel

_NOTHING: NDArray[np.int32] = np.empty(0, np.int32)

MAPPED_FILE = "mapped_keys.npy"
"""Keys (n,) int32 of items nobody touched, whose factors are their look-alikes'."""

# The shopper's own items are no company: what nobody else ever touched makes no list. Nor do words alone, which are
# another generator's, or what everybody gets.
_COMPANY = [i for i, name in enumerate(METHODS) if name in NAMES and name not in ("own", "text", *IMPERSONAL)]


class CollaborativeFiltering:
    """A `Generator`: the shopper's history is the user tower."""

    def __init__(
        self,
        version: str,
        index: VectorIndex,
        affinities: Affinities,
        parameters: Parameters,
        sequence: SequenceModel | None = None,
        mapped: NDArray[np.int32] = _NOTHING,
    ) -> None:
        """
        Args:
            sequence: where it won its trial; without it that method is close to nothing.
            mapped: keys whose factors are borrowed (`training.cold`): they are folded in, and no side of the formula.
        """
        self.version = version
        self._sequence = sequence
        self._index, self._affinities, self._parameters = index, affinities, parameters
        # Dense by key: the vocabulary is one number an item, so gathering needs no second look-up.
        self._factors = np.zeros((affinities.n_items, index.vectors.shape[1]), np.float32)
        self._factors[index.keys] = index.vectors
        self._solver = Solver.of(self._factors, mapped, parameters)

    def generate(self, queries: GenerateQueries) -> Candidates:
        """The best by the blend; an empty row for a shopper nothing is known of."""
        rows: list[NDArray[np.int32]] = []
        scores: list[Float32] = []
        for i, (keys, closeness) in enumerate(self.closeness(queries)):
            score = blend(closeness, self._parameters.weights_on(int(queries.shoppers.placements[i])))
            # Ties by key, so that neither the batch nor numpy decides an order that scores leave open.
            order = np.lexsort((keys, -score))[: queries.counts[i]]
            rows.append(keys[order])
            scores.append(score[order])
        return Candidates(Rows.of(rows), np.concatenate([*scores, np.empty(0, np.float32)]))

    def closeness(self, queries: GenerateQueries) -> Iterator[tuple[NDArray[np.int32], Float32]]:
        """For one query after the other: keys (n,) that any method proposes, and their closeness (METHODS, n)."""
        shoppers = queries.shoppers
        vectors, speaks = user_vectors(self._solver, self._factors, shoppers, self._parameters)
        found = self._index.candidates(queries, vectors, speaks).rows
        following = self._sequence.following(queries, self._by_sequence(shoppers)) if self._sequence else None
        methods = self._affinities.of(shoppers, self._parameters.context_strength, self._unasked(shoppers))
        for i, closeness in enumerate(methods):
            if not speaks[i] and not closeness[_COMPANY].any():
                yield np.empty(0, np.int32), np.empty((len(METHODS), 0), np.float32)
                continue
            keys = proposed(closeness, int(queries.counts[i]), self._allowed(queries, i))
            keys = np.union1d(keys, found.row(i))
            if following is not None:
                keys = np.union1d(keys, following.keys(i))
            factors = np.maximum(self._factors[keys] @ vectors[i], 0)
            sequence = following.closeness(i, keys) if following is not None else np.zeros(len(keys), np.float32)
            yield keys, np.vstack([closeness[:, keys], factors[None], sequence[None]])

    def _unasked(self, shoppers: Shoppers) -> frozenset[str]:
        """Methods that have no say on any of these pages: what they would propose is not looked for either."""
        weights = [self._parameters.weights_on(placement) for placement in np.unique(shoppers.placements).tolist()]
        return frozenset(name for i, name in enumerate(METHODS) if not any(weight[i] > 0 for weight in weights))

    def _by_sequence(self, shoppers: Shoppers) -> NDArray[np.bool_]:
        """Which queries (q,) the transformer has a say in: it may have won on some pages only."""
        says = {
            placement: bool(self._parameters.weights_on(placement)[METHODS.index("sequence")] > 0)
            for placement in np.unique(shoppers.placements).tolist()
        }
        return np.array([says[placement] for placement in shoppers.placements.tolist()], np.bool_)

    def _allowed(self, queries: GenerateQueries, i: int) -> NDArray[np.bool_] | None:
        exclude, within = queries.exclude.row(i), queries.within.row(i)
        if not len(within) and not len(exclude):
            return None
        n_items = self._affinities.n_items
        allowed = np.full(n_items, not len(within))
        allowed[within[(within >= 0) & (within < n_items)]] = True
        allowed[exclude[(exclude >= 0) & (exclude < n_items)]] = False
        return allowed


def load(artefact: Artefact, resources: Resources) -> CollaborativeFiltering:
    """Open a verified artefact; *resources* are not needed."""
    del resources
    stored = dict(artefact.manifest.parameters)
    for name in ("weights", *WEIGHTS_OF.values()):
        stored[name] = tuple(stored[name])
    affinities = Affinities.of_arrays(artefact.arrays(FILE))
    parameters = Parameters(**stored)
    sequence = SequenceModel.load(artefact) if parameters.sequence else None
    mapped = artefact.array(MAPPED_FILE)
    index = VectorIndex.load(artefact)
    return CollaborativeFiltering(artefact.version, index, affinities, parameters, sequence, mapped)
