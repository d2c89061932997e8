"""Serves collaborative filtering: every method's closeness to a shopper's history, blended."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows
from protos.artefacts import Artefact
from services.chassis.affinity import FILE, IMPERSONAL, NAMES, Affinities
from services.chassis.model import Candidates, GenerateQueries, Resources
from services.chassis.retrieval import VectorIndex
from services.chassis.scatter import distinct
from services.chassis.signals import touched
from services.collaborative_filtering.model import (
    METHODS,
    WEIGHTS_OF,
    Parameters,
    Solver,
    best_first,
    blend,
    user_vectors,
)
from services.collaborative_filtering.sequence import SequenceModel

_NOTHING: NDArray[np.int32] = np.empty(0, np.int32)

MAPPED_FILE = "mapped_keys.npy"
"""Keys (n,) int32 of items nobody touched, whose factors are their look-alikes'."""

# The shopper's own items are no company: what nobody else ever touched makes no list. Nor do words alone, which are
# another generator's, or what everybody gets.
_COMPANY = frozenset(i for i, name in enumerate(NAMES) if name not in ("own", "text", *IMPERSONAL))
_FACTORS, _SEQUENCE = METHODS.index("factors"), METHODS.index("sequence")


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
        self._weights = [parameters.weights_on(placement) for placement in range(256)]
        # Dense by key: the vocabulary is one number an item, so gathering needs no second look-up.
        self._factors = np.zeros((affinities.n_items, index.vectors.shape[1]), np.float32)
        self._factors[index.keys] = index.vectors
        self._solver = Solver.of(self._factors, mapped, parameters)

    def generate(self, queries: GenerateQueries) -> Candidates:
        """The best by the blend; an empty row for a shopper nothing is known of."""
        rows: list[NDArray[np.int32]] = []
        scores: list[Float32] = []
        for i, (keys, closeness) in enumerate(self.closeness(queries)):
            score = blend(closeness, self._weights[int(queries.shoppers.placements[i])])
            order = best_first(score, int(queries.counts[i]))
            rows.append(keys[order])
            scores.append(score[order])
        return Candidates(Rows.of(rows), np.concatenate([*scores, np.empty(0, np.float32)]))

    def closeness(self, queries: GenerateQueries) -> Iterator[tuple[NDArray[np.int32], Float32]]:
        """
        For one query after the other: keys (n,) that any method proposes, ascending, and their closeness
        (len(METHODS), n). A method without a weight on the query's page neither proposes nor is looked at.
        """
        shoppers = queries.shoppers
        strength = self._parameters.context_strength
        known = touched(shoppers, self._affinities.n_items, strength)
        vectors, speaks = user_vectors(self._solver, self._factors, shoppers, self._parameters, known)
        found = self._index.candidates(queries, vectors, speaks).rows
        asked = np.array([self._weights[page] > 0 for page in shoppers.placements.tolist()]).reshape(-1, len(METHODS))
        following = self._sequence.following(queries, asked[:, _SEQUENCE]) if self._sequence else None
        read = self._affinities.reader.read(shoppers, strength, asked[:, : len(NAMES)], known)
        for i, reading in enumerate(read):
            if not speaks[i] and not reading.says(_COMPANY):
                yield np.empty(0, np.int32), np.empty((len(METHODS), 0), np.float32)
                continue
            proposed = reading.best(int(queries.counts[i]), queries.exclude.row(i), queries.within.row(i))
            proposed.append(found.row(i))
            if following is not None:
                proposed.append(following.keys(i))
            keys = distinct(np.concatenate(proposed)).astype(np.int32)
            closeness = np.zeros((len(METHODS), len(keys)), np.float32)
            closeness[: len(NAMES)] = reading.at(keys)
            np.maximum(self._factors.take(keys, 0) @ vectors[i], 0, out=closeness[_FACTORS])
            if following is not None:
                closeness[_SEQUENCE] = following.closeness(i, keys)
            yield keys, closeness


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
