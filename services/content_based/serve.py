"""Serves content-based retrieval: a profile from recent items, and the items nearest to it."""

from __future__ import annotations

import numpy as np

from protos.artefacts import Artefact
from services.chassis.model import Candidates, GenerateQueries, Resources
from services.chassis.retrieval import VectorIndex
from services.content_based.model import Parameters, profiles


class ContentBased:
    """A `Generator`: finds items like those a shopper touched, whether or not anybody ever bought them."""

    def __init__(self, version: str, index: VectorIndex, n_items: int, parameters: Parameters) -> None:
        self.version = version
        self._index = index
        self._parameters = parameters
        self._row_of = index.rows_of(np.arange(n_items))

    def generate(self, queries: GenerateQueries) -> Candidates:
        """Items by cosine with the shopper's profile; an empty row for a shopper nothing is known of."""
        vectors, speaks = profiles(self._index.vectors, self._row_of, queries.shoppers, self._parameters)
        return self._index.candidates(queries, vectors, speaks)


def load(artefact: Artefact, resources: Resources) -> ContentBased:
    """Open a verified artefact; *resources* are not needed."""
    del resources
    size = int(artefact.manifest.vocabulary["size"])
    return ContentBased(artefact.version, VectorIndex.load(artefact), size, Parameters(**artefact.manifest.parameters))
