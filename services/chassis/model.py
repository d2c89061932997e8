"""
What a model service is: the two roles, and the arrays that cross between the wire and a model.

Every model of a role has the same shape, so servicers, training and tests are written once. Nothing here knows
gRPC, torch or files. Arrays are columnar over q shoppers; a key a model does not know is ignored by it.

    ModelError
    ├── FeatureSkew        the caller's feature columns are not those the model was trained on
    └── UnusableQueries    arrays that contradict each other
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from protos.arrays import Float32, Rows


class ModelError(ValueError):
    """A model cannot answer these queries; see the tree above."""


class FeatureSkew(ModelError):
    """The caller read its features by another plan than the model was trained on; answered FAILED_PRECONDITION."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(
            f"features were read by plan {found[:12] or '(none)'}…, the model was trained on plan {expected[:12]}…; "
            "let the caller reload the read plan of the model it calls, or train and promote a model on the new plan"
        )
        self.found, self.expected = found, expected


class UnusableQueries(ModelError):
    """Arrays of one request that contradict each other; answered INVALID_ARGUMENT."""


@dataclass(frozen=True, slots=True)
class Shoppers:
    """
    Who asks and what they did, q shoppers at once.

    history         q rows of item keys, oldest first
    history_types   (n,) uint8 EventType of common.proto, aligned with history.values
    history_ages_s  (n,) float32 seconds before the request, >= 0
    context         q rows of item keys looked at now: the page's item, or the basket
    placements      (q,) uint8 Placement of common.proto
    """

    history: Rows
    history_types: NDArray[np.uint8]
    history_ages_s: Float32
    context: Rows
    placements: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.history)

    def take(self, chosen: NDArray[np.integer]) -> Shoppers:
        """These shoppers, in this order."""
        history, at = self.history.take(chosen)
        context, _ = self.context.take(chosen)
        return Shoppers(
            history, self.history_types[at], self.history_ages_s[at], context, self.placements[np.asarray(chosen)]
        )


@dataclass(frozen=True, slots=True)
class GenerateQueries:
    """
    What a generator is asked.

    counts   (q,) int32 candidates wanted, 1 to 1000
    exclude  q rows of keys never to be proposed
    within   q rows; a non-empty row: only these keys may be proposed
    """

    counts: NDArray[np.int32]
    shoppers: Shoppers
    exclude: Rows
    within: Rows


@dataclass(frozen=True, slots=True)
class Candidates:
    """
    What a generator answers: q rows of keys, best first, no key twice in a row, row i <= counts[i].

    scores  (n,) float32 aligned with rows.values, finite, falling within a row
    """

    rows: Rows
    scores: Float32


@dataclass(frozen=True, slots=True)
class RerankQueries:
    """
    What a re-ranker is asked; n = len(candidates.values).

    source_scores     (n, s) float32, NaN where the source did not propose the item
    source_ranks      (n, s) uint16 from 1, 0 where the source did not propose the item
    user_numeric      (q, k) float32 columns of the read plan, NaN where missing
    user_categorical  (q, c) object array of str, "" where missing
    feature_digest    digest of the read plan whose columns these are
    """

    shoppers: Shoppers
    candidates: Rows
    sources: tuple[str, ...]
    source_scores: Float32
    source_ranks: NDArray[np.uint16]
    user_numeric: Float32
    user_categorical: NDArray[np.object_]
    feature_digest: str


@runtime_checkable
class Generator(Protocol):
    """Proposes items. Called from one thread at a time; must not keep the arrays it was given."""

    version: str

    def generate(self, queries: GenerateQueries) -> Candidates:
        """Candidates of every query; a query the model can say nothing about gets an empty row."""
        ...


@runtime_checkable
class Ranker(Protocol):
    """Orders what others proposed. Called from one thread at a time; never drops, never reorders."""

    version: str
    feature_digest: str

    def rank(self, queries: RerankQueries) -> Float32:
        """
        Scores (n,) float32 aligned with `queries.candidates.values`; higher is better, finite.

        Raises:
            FeatureSkew: `queries.feature_digest` is not `self.feature_digest`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure of the model's own for `/metrics`: read whenever somebody looks. A model may have `gauges()`."""

    name: str
    about: str
    read: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a service is given besides its artefact: the data directory, and the online store when there is one."""

    data: Path
    redis_url: str | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """
    What `fit` did beside writing its files.

    parameters  everything that, with data and seed, decides the artefact (JSON values)
    metrics     figures seen while fitting; they do not enter the version
    features    for a model that reads Feast: {"service", "digest", "plan"}
    """

    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, str] | None = None
