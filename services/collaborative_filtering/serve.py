"""Serves collaborative filtering: fold the histories in, search the items."""

from __future__ import annotations

import numpy as np

from protos.artefacts import Artefact
from services.chassis.model import Candidates, GenerateQueries, Resources
from services.chassis.retrieval import VectorIndex
from services.collaborative_filtering.model import Parameters, Solver, user_vectors


class CollaborativeFiltering:
    """A `Generator`: the shopper's history is the user tower."""

    def __init__(self, version: str, index: VectorIndex, n_items: int, parameters: Parameters) -> None:
        self.version = version
        self._index = index
        self._parameters = parameters
        # Dense by key: the vocabulary is one number an item, so gathering needs no second look-up.
        self._factors = np.zeros((n_items, index.vectors.shape[1]), np.float32)
        self._factors[index.keys] = index.vectors
        self._solver = Solver(
            gram=np.float32(parameters.unobserved_weight) * (self._factors.T @ self._factors),
            unobserved_weight=parameters.unobserved_weight,
            regularisation=parameters.regularisation,
            frequency_exponent=parameters.frequency_exponent,
            n=n_items,
        )

    def generate(self, queries: GenerateQueries) -> Candidates:
        """Items by inner product with the folded-in shopper; an empty row for a shopper nothing is known of."""
        vectors, speaks = user_vectors(self._solver, self._factors, queries.shoppers, self._parameters)
        return self._index.candidates(queries, vectors, speaks)


def load(artefact: Artefact, resources: Resources) -> CollaborativeFiltering:
    """Open a verified artefact; *resources* are not needed."""
    del resources
    size = int(artefact.manifest.vocabulary["size"])
    return CollaborativeFiltering(
        artefact.version, VectorIndex.load(artefact), size, Parameters(**artefact.manifest.parameters)
    )
