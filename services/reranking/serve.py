"""
Serves the re-ranker: features in numpy, network and trees in onnxruntime, items from Feast's online store.

While Redis is down, or when there is none, the item features that training saw are used: a little old, never missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from protos import vocabulary
from protos.arrays import Float32
from protos.artefacts import Artefact
from protos.feast_layout import ReadPlan
from services.chassis import affinity
from services.chassis.affinity import Affinities
from services.chassis.item_matrix import ItemMatrix
from services.chassis.model import FeatureSkew, RerankQueries, Resources
from services.reranking.blend import Blends
from services.reranking.items import ItemTable, Layout
from services.reranking.model import KNOWN_SHARE, Features

NETWORK_FILE = "network.onnx"
TREES_FILE = "trees.onnx"
BLEND_FILE = "blend.json"
LAYOUT_FILE = "layout.json"
AFFINITIES_FILE = affinity.FILE
ITEMS_FILE = "items.npz"
PLAN_FILE = "read_plan.json"


class ItemFeatures(Protocol):
    """All items' columns by key; both arrays are replaced whole when refreshed, never written into."""

    @property
    def numeric(self) -> Float32: ...

    @property
    def categorical(self) -> NDArray[np.object_]: ...


class Reranking:
    """A `Ranker`: one row a candidate, one score a row."""

    def __init__(
        self,
        version: str,
        plan: ReadPlan,
        features: Features,
        learners: Mapping[str, bytes],
        blends: Blends,
        items: ItemFeatures,
    ) -> None:
        """*learners*: ONNX graphs by file name; one that has no say in *blends* may be absent."""
        self.version = version
        self.feature_digest = plan.digest
        self._features, self._blends = features, blends
        options = onnxruntime.SessionOptions()
        # One thread: calls come one at a time, and the machine's other cores belong to the other services.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._network, self._trees = (
            onnxruntime.InferenceSession(learners[name], options, providers=["CPUExecutionProvider"]) if share else None
            for name, share in (
                (NETWORK_FILE, blends.known.network or blends.new.network),
                (TREES_FILE, blends.known.trees or blends.new.trees),
            )
        )
        self._items, self._is_told = items, False
        self._table = self._encode()

    def rank(self, queries: RerankQueries) -> Float32:
        """How likely each candidate is wanted, (n,) float32 in (0, 1); see `Ranker`."""
        if queries.feature_digest != self.feature_digest:
            raise FeatureSkew(queries.feature_digest, self.feature_digest)
        if not len(queries.candidates.values):
            return np.empty(0, np.float32)
        if not self._is_told and self._items.numeric is not self._seen:
            self._table = self._encode()
        rows = self._features.rows(queries, self._table)
        by_network = by_trees = np.zeros(len(rows.dense), np.float32)
        if self._network is not None:
            (by_network,) = self._network.run(None, {"dense": rows.dense, "codes": rows.codes})
        if self._trees is not None:
            (by_trees,) = self._trees.run(None, {"dense": rows.dense})
        return self._blends.of(by_network, by_trees, rows.dense[:, KNOWN_SHARE])

    def follow(self, items: ItemMatrix) -> None:
        """Let *items*, which this one was made with, say what changed: it is encoded in their thread, not in a call."""
        self._is_told = True
        items.start(listener=self._take)

    def _take(self, keys: NDArray[np.int64] | None) -> None:
        """Items *keys* changed, None: all. One thread calls this, and calls read the table once."""
        if keys is None:
            self._table = self._encode()
        else:
            self._table = self._table.updated(keys, self._items.numeric[keys], self._items.categorical[keys])

    def _encode(self) -> ItemTable:
        # Encoded once a refresh instead of once a call: items change by the minute, calls come by the millisecond.
        self._seen = self._items.numeric
        return ItemTable.of(self._features.layout, self._seen, self._items.categorical)


class Snapshot:
    """The item features as training saw them."""

    def __init__(self, numeric: Float32, categorical: NDArray[np.object_]) -> None:
        self.numeric, self.categorical = numeric, categorical


def load(artefact: Artefact, resources: Resources) -> Reranking:
    """Open a verified artefact; with *resources.redis_url* item features follow the online store."""
    plan = ReadPlan.load(artefact.file(PLAN_FILE))
    layout = Layout.from_json(artefact.json(LAYOUT_FILE))
    affinities = Affinities.of_arrays(artefact.arrays(AFFINITIES_FILE))
    stored = artefact.arrays(ITEMS_FILE)
    snapshot = Snapshot(stored["numeric"], stored["categorical"].astype(object))
    blends = Blends.from_json(artefact.json(BLEND_FILE))
    learners = {
        name: artefact.file(name).read_bytes() for name in (NETWORK_FILE, TREES_FILE) if name in artefact.manifest.files
    }
    features = Features(layout, affinities)
    if resources.redis_url is None:
        return Reranking(artefact.version, plan, features, learners, blends, snapshot)
    matrix = _live(plan, snapshot, resources.data, resources.redis_url)
    reranking = Reranking(artefact.version, plan, features, learners, blends, matrix)
    reranking.follow(matrix)
    return reranking


def _live(plan: ReadPlan, snapshot: Snapshot, data: Path, redis_url: str) -> ItemMatrix:
    """The item matrix, not reading yet; the vocabulary may have grown since training."""
    ids = vocabulary.read(data / vocabulary.FILE_NAME)
    return ItemMatrix(plan, ids, redis_url, snapshot=(snapshot.numeric, snapshot.categorical))
