"""
Serves the re-ranker: features in numpy, network and trees in onnxruntime, items from Feast's online store.

While Redis is down, or when there is none, the item features that training saw are used: a little old, never missing.
The rule: a call holds one table of items, which never changes; the thread that reads the store publishes the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from protos import vocabulary
from protos.arrays import Float32
from protos.artefacts import Artefact
from protos.catalogue import NO_KEY, ItemState
from protos.feast_layout import ReadPlan
from services.chassis import affinity
from services.chassis.affinity import Affinities
from services.chassis.catalogue_tail import CatalogueTail
from services.chassis.item_matrix import ItemMatrix
from services.chassis.model import FeatureSkew, Gauge, RerankQueries, Resources
from services.reranking import sessions
from services.reranking.blend import Blends
from services.reranking.items import ItemTable, Layout
from services.reranking.model import KNOWN_SHARE, Features

NETWORK_FILE = "network.onnx"
QUANTISED_FILE = "network.int8.onnx"
"""The same network in weights of eight bits; where an artefact has one, it is the one that serves."""
TREES_FILE = "trees.onnx"
BLEND_FILE = "blend.json"
LAYOUT_FILE = "layout.json"
AFFINITIES_FILE = affinity.FILE
ITEMS_FILE = "items.npz"
PLAN_FILE = "read_plan.json"


class Reranking:
    """A `Ranker`: one row a candidate, one score a row."""

    def __init__(
        self,
        version: str,
        plan: ReadPlan,
        features: Features,
        learners: Mapping[str, bytes],
        blends: Blends,
        items: ItemTable,
    ) -> None:
        """*learners*: ONNX graphs by file name; one that has no say in *blends* may be absent."""
        self.version = version
        self.feature_digest = plan.digest
        self._features, self._blends = features, blends
        asks_network = blends.known.network or blends.new.network
        asks_trees = blends.known.trees or blends.new.trees
        self._is_quantised = QUANTISED_FILE in learners
        network = learners[QUANTISED_FILE if self._is_quantised else NETWORK_FILE] if asks_network else None
        self._network = None if network is None else sessions.opened(network)
        self._trees = sessions.opened(learners[TREES_FILE]) if asks_trees else None
        self._table = self._next = items
        self.matrix: ItemMatrix | None = None
        self._catalogue: CatalogueTail | None = None

    def rank(self, queries: RerankQueries) -> Float32:
        """How likely each candidate is wanted, (n,) float32 in (0, 1); see `Ranker`."""
        if queries.feature_digest != self.feature_digest:
            raise FeatureSkew(queries.feature_digest, self.feature_digest)
        if not len(queries.candidates.values):
            return np.empty(0, np.float32)
        rows = self._features.rows(queries, self._table)
        by_network = by_trees = np.zeros(len(rows.dense), np.float32)
        if self._network is not None:
            lists = queries.candidates.offsets if self._is_quantised else None
            by_network = sessions.by_network(self._network, rows.dense, rows.codes, lists)
        if self._trees is not None:
            (by_trees,) = self._trees.run(None, {"dense": rows.dense})
        return self._blends.of(by_network, by_trees, rows.dense[:, KNOWN_SHARE])

    def take(self, keys: NDArray[np.int64], numeric: Float32, categorical: NDArray[np.object_]) -> None:
        """Items *keys* became this: encoded here, in the thread that read it, and seen after `publish`."""
        self._next = self._next.updated(keys, numeric, categorical)

    def publish(self) -> None:
        """From now on calls rank by all that was taken; each reads the table once."""
        self._table = self._next

    def follow(self, matrix: ItemMatrix, redis_url: str) -> None:
        """Let *matrix*, which holds what this one was made with, say what changes, and the catalogue what comes."""
        self.matrix = matrix
        matrix.start(follower=self)
        self._catalogue = CatalogueTail(redis_url, partial(_know, matrix), _forget_nothing)
        self._catalogue.start()

    def close(self) -> None:
        """End what `follow` began."""
        if self._catalogue is not None and self.matrix is not None:
            self._catalogue.stop()
            self.matrix.stop()

    def gauges(self) -> tuple[Gauge, ...]:
        """How old the items' features are at most, and how many items have any."""
        matrix = self.matrix
        if matrix is None:
            return ()
        return (
            Gauge(
                "tutti_service_item_features_age_seconds",
                "Seconds since every item's features were read; +Inf before the first time",
                lambda: math.inf if (age_s := matrix.age_s) is None else age_s,
            ),
            Gauge("tutti_service_items", "Keys that the item features cover", lambda: float(len(matrix))),
        )


def load(artefact: Artefact, resources: Resources) -> Reranking:
    """Open a verified artefact; with *resources.redis_url* item features follow the online store."""
    plan = ReadPlan.load(artefact.file(PLAN_FILE))
    layout = Layout.from_json(artefact.json(LAYOUT_FILE))
    affinities = Affinities.of_arrays(artefact.arrays(AFFINITIES_FILE))
    stored = artefact.arrays(ITEMS_FILE)
    numeric, categorical = stored["numeric"], stored["categorical"].astype(object)
    blends = Blends.from_json(artefact.json(BLEND_FILE))
    learners = {
        name: artefact.file(name).read_bytes()
        for name in (NETWORK_FILE, QUANTISED_FILE, TREES_FILE)
        if name in artefact.manifest.files
    }
    features = Features(layout, affinities)
    table = ItemTable.of(layout, numeric, categorical)
    reranking = Reranking(artefact.version, plan, features, learners, blends, table)
    if resources.redis_url is not None:
        # The vocabulary may have grown since training, and grows on.
        ids = vocabulary.read(resources.data / vocabulary.FILE_NAME)
        matrix = ItemMatrix(plan, ids, resources.redis_url, snapshot=(numeric, categorical))
        reranking.follow(matrix, resources.redis_url)
    return reranking


def _know(matrix: ItemMatrix, states: Sequence[ItemState]) -> None:
    """Tell *matrix* the keys of items that came since training."""
    for state in states:
        if state.key != NO_KEY:
            matrix.know(state.item_id, state.key)


def _forget_nothing() -> None:
    """A key, once given, is never given to another item, so what is known of keys stays true when Redis begins anew."""
