"""
What the pipeline leans on, as Protocols; each has an adapter for the real thing and a twin in memory.

One rule for all that leaves the process: it raises `DependencyError` with a named loss when it fails, it
honours cancellation, and it does not time itself out unless it is handed `timeout_s`. What has replicas is told
which one to ask (the guard chooses; 0 where there is one). `tests/contract`
says what every implementation must do and runs it on adapter and twin alike.

    DependencyError   a remote thing did not contribute; the guard turns it into Lost
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from orchestrator.core.likeness import Marks
from orchestrator.core.model import (
    Ask,
    Asked,
    Candidates,
    Event,
    Facts,
    Int32,
    ItemFilter,
    Loss,
    Mask,
    Query,
    Reranked,
    Retrieved,
    Slate,
    UserContext,
)
from orchestrator.core.people import Erased, Held, Merged
from orchestrator.core.slate_cache import Entry, Found
from protos.catalogue import ItemState, Outcome, Wish


class DependencyError(Exception):
    """A dependency failed in a way we have a name for. *loss* is what the slate will report."""

    def __init__(self, loss: Loss, detail: str) -> None:
        super().__init__(detail)
        self.loss = loss


class CandidateSource(Protocol):
    """Proposes items for one query; a remote model, or a twin."""

    @property
    def name(self) -> str:
        """Folder, metric label and breaker name of the source."""

    async def retrieve(
        self, query: Query, user: UserContext, ask: Ask, timeout_s: float, replica: int = 0
    ) -> Retrieved:
        """Up to `ask.count` items, best first, none of `ask.exclude`, only those of `ask.within` if given."""


class Reranker(Protocol):
    """Scores candidates for one query. Never drops, never reorders."""

    async def rerank(
        self, query: Query, user: UserContext, candidates: Candidates, timeout_s: float, replica: int = 0
    ) -> Reranked:
        """One score a candidate, in the candidates' order."""


class FeatureReader(Protocol):
    """Reads the shopper: online features, recent history, watermark; one round trip."""

    @property
    def n_numeric(self) -> int:
        """Numeric columns of the read plan."""

    @property
    def n_categorical(self) -> int:
        """Categorical columns of the read plan."""

    async def read(self, query: Query, timeout_s: float) -> UserContext:
        """What is known of the query's subject; an unknown one is a cold context, not an error."""


class SlateCache(Protocol):
    """
    Remembers slates: one hash a subject, one field for each digest of everything that made the slate.

    A lease says which process makes a field anew. It is part of the subject's hash: whatever forgets the slates
    forgets it too, and its holder can then write no more.
    """

    def get(self, subject: str, field: str, timeout_s: float) -> Awaitable[Found]:
        """What there is and the shopper's watermark. Bytes that cannot be read are no entry, and are deleted."""

    async def put(self, subject: str, field: str, entry: Entry, lease: str | None = None) -> bool:
        """
        Store; the hash lives at least as long as its longest-kept entry.

        With *lease*: only while that is still held, and it ends with this.

        Returns:
            False: the lease was lost, nothing was changed.
        """

    async def lease(self, subject: str, field: str) -> str | None:
        """The token of a lease that ends by itself after two seconds; None: somebody else holds it."""

    async def release(self, subject: str, field: str, lease: str) -> None:
        """End *lease* if it is still held."""


class SlateLog(Protocol):
    """
    Writes down a share of what is served, behind the answer. Never awaits, never raises: what is lost is counted.

    Whoever sees one answer made of a computation sees them all, and the computation.
    """

    def served(self, query: Query, slate: Slate) -> None:
        """An answer as it leaves, remembered or not."""

    def made(self, query: Query, asked: Asked, slate: Slate) -> None:
        """What the re-ranker was asked for *slate*, which was made just now, and said."""


class EventLog(Protocol):
    """Takes events durably and makes them count for the next slate."""

    async def append(self, events: Sequence[Event]) -> Sequence[bool]:
        """
        Append to the log, the history and the watermark, and drop the subject's cached slates.

        Returns:
            For each event whether it was new; False: its event_id was seen before, nothing was changed.
        """

    async def watermark(self, subject: str) -> int:
        """Events accepted for *subject* so far; never less than before, unless they were erased or have expired."""

    async def durability(self) -> str:
        """ "ok", or one sentence about what an accepted event would not survive."""


class People(Protocol):
    """One person's traces as a whole: merged, erased, shown. A subject is `u:<user_id>` or `v:<visitor_id>`."""

    async def merge(self, visitor_id: str, user_id: str) -> Merged:
        """
        The visitor is the user from now on: what they did, and what events say they do later, is the user's.

        The same again changes nothing. Of a visitor who was another user's, only what comes later is the new one's.
        """

    async def erase(self, subject: str) -> Erased:
        """
        Forget *subject*, and of a user also the visitors merged into them; leave the rest as work for ingestion.

        The same again is harmless. Who comes back is somebody new.
        """

    async def held(self, subject: str) -> Held:
        """All that is held online of *subject*; of somebody unknown, nothing."""


class ItemStore(Protocol):
    """Takes changes of items durably, in one order for everybody, and tells every process of them."""

    async def change(self, wishes: Sequence[Wish]) -> Sequence[Outcome]:
        """
        Make items what they are wished to be, each by itself, in the order given.

        A deletion of what the store never heard of and the wisher does not know either (no key) changes nothing.
        """

    async def read(self, item_id: str) -> ItemState | None:
        """The item as it was last changed; None: nobody changed it."""


class Catalogue(Protocol):
    """
    The shop's items in process: ids, facts, masks, the popular order. No call here awaits.

    Items change and new ones come between two turns of the event loop; a mask that a request holds may be shorter than
    the catalogue is by now (core/masks.py).
    """

    @property
    def size(self) -> int:
        """Number of interned keys; every key is in [0, size). Never falls."""

    @property
    def digest(self) -> str:
        """Digest of the item vocabulary that the models know."""

    @property
    def n_changes(self) -> int:
        """How often an item has changed."""

    @property
    def popular(self) -> Int32:
        """Every item that may be shown, best first: the last rung of the ladder. Never empty."""

    def key_of(self, item_id: str) -> int | None:
        """Interned key, or None for an item this shop does not have."""

    def id_of(self, key: int) -> str:
        """The shop's own id of *key*."""

    def is_listed(self, key: int) -> bool:
        """Whether the shop has the item now, sold out or not."""

    def facts(self, keys: Int32) -> Facts:
        """Availability, price, category of *keys*."""

    def are_in_stock(self, keys: Int32) -> bool:
        """Whether each of *keys* may be shown, as far as that goes; what every remembered slate is asked."""

    def changed_since(self, n_changes: int) -> Sequence[int] | None:
        """Keys of the items that have changed since there were *n_changes*; None: more than are remembered."""

    def kinds(self, keys: Int32) -> Int32:
        """(n, 3) codes of category, brand and parent of *keys*, -1 where unknown: what caps count."""

    def marks(self, keys: Int32) -> Marks:
        """What *keys* are made of: how alike they are."""

    def allowed(self, wanted: ItemFilter) -> Mask:
        """(size,) bool: which items *wanted* allows; remembered, so not to be written to."""

    def mask(self, wanted: ItemFilter) -> Mask:
        """The same, computed for whoever keeps it, in any thread."""

    def properties(self, key: int) -> dict[str, object]:
        """What a page shows of the item: title, category, brand, price; absent ones left out."""

    def document(self, item_id: str) -> dict[str, Any] | None:
        """All that is known of an item, with or without a key; None where the shop does not have it."""

    def version_of(self, item_id: str) -> int:
        """Number of the item's last change, 0: it is as the data directory has it."""

    def apply(self, states: Iterable[ItemState]) -> None:
        """Take changes over; an older one than is known changes nothing. A new item without key waits for it."""

    def changed(self) -> Mapping[str, int]:
        """Item id → version, of every item that is not as the data directory has it."""

    def forget_versions(self) -> None:
        """From now on any version is newer: who numbered them has begun anew."""

    def put_back(self, documents: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Make items what the data directory has them to be; None: it does not list them."""
