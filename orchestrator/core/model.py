"""
The nouns of a request: query, user context, candidates, slate; and the two ways a stage can end.

Values only. Candidates are columnar: one array a property, row i of each is candidate i, so that fusion,
filters and selection are array arithmetic and nothing is allocated for each candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.values import value

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

T = TypeVar("T")

IMPRESSION, REMOVED = 3, 5
"""EventTypes of common.proto: what the shopper was shown, and what they took out of the basket; a test holds them
equal."""


class Placement(Enum):
    """A named shelf of the storefront."""

    HOME = "home"
    ITEM = "item"
    CART = "cart"
    CATEGORY = "category"


class Diversity(Enum):
    """How little alike the caller wants the slate's items to be."""

    OFF = "off"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Loss(Enum):
    """
    Why a stage's contribution is missing. Expected, a value, counted; never an exception.

    What the dependency did: DEADLINE, UNAVAILABLE (nobody there), ERROR (it failed), OVERLOADED (it refused for load),
    INVALID_REPLY. What we did wrong: SKEW, REFUSED. What we decided without asking: BREAKER_OPEN, SHED, NO_BUDGET.
    """

    DEADLINE = "deadline"
    UNAVAILABLE = "unavailable"
    ERROR = "error"
    OVERLOADED = "overloaded"
    INVALID_REPLY = "invalid_reply"
    SKEW = "skew"
    REFUSED = "refused"
    BREAKER_OPEN = "breaker_open"
    SHED = "shed"
    NO_BUDGET = "no_budget"
    UNCLASSIFIED = "unclassified"

    @property
    def status(self) -> str:
        """The word of the API's `quality.sources[].status`: timeout, error, open, shed or skipped."""
        return _STATUS.get(self, "error")


_STATUS = {
    Loss.DEADLINE: "timeout",
    Loss.BREAKER_OPEN: "open",
    Loss.SHED: "shed",
    Loss.OVERLOADED: "shed",
    Loss.NO_BUDGET: "skipped",
}


@value
class Kept(Generic[T]):
    """A stage's contribution arrived."""

    value: T
    took_s: float = 0.0


@value
class Lost:
    """A stage's contribution is missing, and why."""

    loss: Loss
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """
    What the caller allows in the slate; an empty field allows everything.

    categories: a path or the beginning of one (`Home > Kitchen` allows `Home > Kitchen > Mugs`).
    attributes: name → allowed values, all names must match.
    """

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    price_min: float | None = None
    price_max: float | None = None
    in_stock: bool | None = None
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def is_empty(self) -> bool:
        return self is ANYTHING or self == ANYTHING


ANYTHING = ItemFilter()
"""The filter of who gives none."""


@value
class Query:
    """
    Who asks, where and in what context; items are interned keys, ids were resolved at the edge.

    `only_keys` makes the request a ranking: nothing but these may appear, and all of them do.
    `exclude_seen` removes every item of the shopper's history (the discovery task).
    """

    recommendation_id: str
    placement: Placement
    count: int
    user_id: str | None = None
    visitor_id: str | None = None
    session_id: str | None = None
    context_keys: tuple[int, ...] = ()
    cart_keys: tuple[int, ...] = ()
    category: str | None = None
    device: str | None = None
    filter: ItemFilter = ANYTHING
    exclude_keys: tuple[int, ...] = ()
    only_keys: tuple[int, ...] = ()
    exclude_seen: bool = False
    diversity: Diversity = Diversity.OFF
    explain: bool = False

    @property
    def subject(self) -> str | None:
        """Whose history, features and cached slates these are: the user before the visitor."""
        if self.user_id is not None:
            return f"u:{self.user_id}"
        return f"v:{self.visitor_id}" if self.visitor_id is not None else None

    @property
    def focus_keys(self) -> tuple[int, ...]:
        """What the shopper looks at now: the page's item, or the basket. Never recommended back."""
        return self.cart_keys if self.placement is Placement.CART else self.context_keys


@dataclass(frozen=True, slots=True)
class UserContext:
    """
    What is known of the shopper when the request arrives.

    numeric      (columns of the read plan,) float32, NaN where missing
    categorical  columns of the read plan, "" where missing
    history_*    aligned, oldest first: item key int32, EventType code uint8, microseconds UTC int64
    watermark    number of this shopper's events accepted so far; a slate carries the one it saw
    as_of_us     the shop's clock when this was read, microseconds UTC; what ages of events are counted from
    """

    numeric: Float32
    categorical: tuple[str, ...]
    history_keys: Int32
    history_types: NDArray[np.uint8]
    history_at_us: NDArray[np.int64]
    watermark: int = 0
    as_of_us: int = 0

    @classmethod
    def cold(cls, n_numeric: int, n_categorical: int) -> UserContext:
        """A shopper of whom nothing is known: new, anonymous, or the store is lost."""
        return cls(
            np.full(n_numeric, np.nan, np.float32),
            ("",) * n_categorical,
            np.empty(0, np.int32),
            np.empty(0, np.uint8),
            np.empty(0, np.int64),
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """
    What every source is asked for.

    exclude  (n,) int32 keys never to be proposed
    within   (n,) int32: only these may be proposed; None allows everything
    """

    count: int
    exclude: Int32
    within: Int32 | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """
    One accepted event on its way to the log.

    key        interned item key, or None for an item this shop does not have (logged, not in the history)
    type_code  EventType of common.proto
    at_us      microseconds since the epoch, UTC
    body       the canonical event as JSON, as it will stand in the log
    """

    event_id: str
    subject: str | None
    key: int | None
    type_code: int
    at_us: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Retrieved:
    """One source's answer: keys (n,) int32 best first, no key twice; scores (n,) float32, finite."""

    keys: Int32
    scores: Float32
    model_version: str


@dataclass(frozen=True, slots=True)
class Reranked:
    """The re-ranker's answer: scores (n,) float32, aligned with the candidates asked about."""

    scores: Float32
    model_version: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """
    What may enter the slate, in the current order, with who found what.

    keys           (n,) int32, no key twice
    sources        s names, the columns of the two matrices
    source_ranks   (n, s) uint16, from 1; 0 where that source did not propose the item
    source_scores  (n, s) float32, NaN where that source did not propose the item
    scores         (n,) float64, of the last stage that scored: fusion, then the re-ranker
    """

    keys: Int32
    sources: tuple[str, ...]
    source_ranks: NDArray[np.uint16]
    source_scores: Float32
    scores: Float64

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, index: NDArray[np.intp] | Mask) -> Candidates:
        """The candidates at *index* (or where the mask is true), in that order."""
        return Candidates(
            self.keys[index], self.sources, self.source_ranks[index], self.source_scores[index], self.scores[index]
        )

    def head(self, n: int) -> Candidates:
        """The first *n*; views, nothing is copied."""
        if n >= len(self):
            return self
        return Candidates(self.keys[:n], self.sources, self.source_ranks[:n], self.source_scores[:n], self.scores[:n])

    def scored(self, scores: Float64) -> Candidates:
        """The same candidates in the same order with other scores."""
        return Candidates(self.keys, self.sources, self.source_ranks, self.source_scores, scores)

    def found_by(self, i: int) -> tuple[str, ...]:
        """Names of the sources that proposed candidate *i*, its best rank first."""
        return proposers(self.source_ranks[i].tolist(), self.sources)


def proposers(ranks: Sequence[int], sources: Sequence[str]) -> tuple[str, ...]:
    """Names of the sources that gave one item a rank, the best first; 0 is no rank."""
    # A handful of numbers: sorted as a list in a tenth of the time it takes as an array.
    found = [(rank, name) for rank, name in zip(ranks, sources, strict=True) if rank]
    return tuple(name for _, name in sorted(found, key=itemgetter(0)))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the re-ranker was asked for a slate, and what it answered: the log learns features as served from it."""

    user: UserContext
    candidates: Candidates
    answer: Reranked


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What the catalogue says of candidates, row i of candidate i.

    in_stock   (n,) bool; an item the catalogue does not know is False
    price      (n,) float32, NaN where unknown
    category   (n,) int32 code of the full path, -1 where unknown
    """

    in_stock: Mask
    price: Float32
    category: Int32


class Level(Enum):
    """How good the answer is, honestly. The API's `quality.level`."""

    FULL = "full"
    PARTIAL = "partial"
    STALE = "stale"
    POPULAR = "popular"


class Rung(IntEnum):
    """
    A step of the degradation ladder, the best first; what each does without is in docs/resilience.md.

    Ordered: the rung of an answer is the lowest of what the controller allows and what the request needs.
    """

    FULL = 0
    LEAN = 1
    NARROW = 2
    NO_RERANK = 3
    STALE = 4
    POPULAR = 5
    SHED = 6


RUNG_NAMES = {rung: rung.name.lower() for rung in Rung}
"""What answers, logs and metrics call a rung."""


class SlateItem(NamedTuple):
    """
    One slot: interned key, score of the last stage that scored, who found it, logged propensity.

    A tuple, since a remembered slate makes twenty to a hundred of them anew: a third of the time of a frozen dataclass.
    """

    key: int
    score: float
    sources: tuple[str, ...]
    propensity: float = 1.0


@value
class SourceReport:
    """What one source did for this slate."""

    name: str
    status: str
    took_ms: float
    candidates: int = 0
    kept: int = 0


@value
class Slate:
    """
    The ordered answer, with everything a caller, a log line or a trace wants to know of how it came.

    degraded   names of the stages whose contribution is missing: a source, `user`, `rerank`, `cache`
    removed    filter → how many candidates it removed
    stages_ms  stage → milliseconds it took, in the order they ran
    created_at wall clock, seconds since the epoch: when the slate was made, not when it was served
    rung       the step of the degradation ladder it stands on
    pinned     positions, from 1, of items that a rule pinned there
    pool       who may be exchanged for an unpinned slot when chance has a say; empty where it has none
    touched    key → what moved, pinned or lowered that item: names of rules, `fatigue`; only of an explained slate
    made_as    recommendation id of the request it was re-ranked for, in whoever's answer it stands; "" where none was

    What a stored slate is long of is `unread` text until somebody looks.
    """

    items: Sequence[SlateItem]
    level: Level
    sources: Sequence[SourceReport]
    degraded: tuple[str, ...]
    losses: tuple[tuple[str, Loss], ...]
    model_versions: Sequence[tuple[str, str]]
    watermark: int
    created_at: float
    removed: Sequence[tuple[str, int]] = ()
    stages_ms: tuple[tuple[str, float], ...] = ()
    from_cache: bool = False
    rung: Rung = Rung.FULL
    pinned: tuple[int, ...] = ()
    pool: Sequence[SlateItem] = ()
    touched: tuple[tuple[int, tuple[str, ...]], ...] = ()
    made_as: str = ""

    def recalled(self, level: Level, rung: Rung, stages_ms: tuple[tuple[str, float], ...]) -> Slate:
        """The same, served from memory now. What `replace` would do, for a third of its time: once for every hit."""
        return Slate(
            items=self.items,
            level=level,
            sources=self.sources,
            degraded=self.degraded,
            losses=self.losses,
            model_versions=self.model_versions,
            watermark=self.watermark,
            created_at=self.created_at,
            removed=self.removed,
            stages_ms=stages_ms,
            from_cache=True,
            rung=rung,
            pinned=self.pinned,
            pool=self.pool,
            touched=self.touched,
            made_as=self.made_as,
        )


@dataclass(frozen=True, slots=True)
class StageList:
    """One list behind a slate, for batch output: stage name (`source:<name>`, `fused`), keys and scores, best first."""

    stage: str
    keys: Int32
    scores: Float64
