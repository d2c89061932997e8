"""
Serves content-based retrieval: a profile from recent items, and the items nearest to it.

With Redis it follows the catalogue: an item that came a second ago is encoded here and found like any other.
"""

from __future__ import annotations

from protos.artefacts import Artefact
from services.chassis.catalogue_tail import CatalogueTail
from services.chassis.model import Candidates, GenerateQueries, Resources
from services.chassis.retrieval import VectorIndex
from services.content_based.encoder import Encoder
from services.content_based.live import LiveIndex
from services.content_based.model import Parameters, profiles


class ContentBased:
    """A `Generator`: finds items like those a shopper touched, whether or not anybody ever bought them."""

    def __init__(self, version: str, live: LiveIndex, parameters: Parameters) -> None:
        self.version = version
        self.live = live
        self._parameters = parameters

    def generate(self, queries: GenerateQueries) -> Candidates:
        """Items by cosine with the shopper's profile; an empty row for a shopper nothing is known of."""
        edition = self.live.edition
        vectors, speaks = profiles(edition.blocks, edition.row_of, queries.shoppers, self._parameters)
        return edition.candidates(queries, vectors, speaks)


def load(artefact: Artefact, resources: Resources) -> ContentBased:
    """Open a verified artefact; with *resources.redis_url* it follows the catalogue from now on."""
    size = int(artefact.manifest.vocabulary["size"])
    parameters = Parameters(**artefact.manifest.parameters)
    encoder = Encoder.load(artefact, parameters)
    live = LiveIndex(VectorIndex.load(artefact), size, encoder)
    if encoder is not None and resources.redis_url is not None:
        CatalogueTail(resources.redis_url, live.take, live.begin_anew).start()
    return ContentBased(artefact.version, live, parameters)
