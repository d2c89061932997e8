"""
An honest in-memory twin of each port, for tests and simulations.

A twin may be used because it passes its port's contract suite, the one the real adapter passes too. It
can be told to fail (`fail_with`), and then fails as the real one does: with a DependencyError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.adapters.slate_messages import made_message, may_be_shown, served_message
from orchestrator.core.model import (
    Ask,
    Asked,
    Candidates,
    Event,
    Loss,
    Query,
    Reranked,
    Retrieved,
    Slate,
    UserContext,
)
from orchestrator.core.people import MAX_VISITORS, Deed, Erased, Held, HeldSlate, Merged, put_in_place, together
from orchestrator.core.sampling import is_sampled
from orchestrator.core.slate_cache import LEASE_S, Entry, Found
from orchestrator.ports import DependencyError
from protos.catalogue import NO_KEY, ItemState, Outcome, Verdict, Wish
from protos.history import IMPRESSION, MAX_ENTRIES
from protos.slate_log import MADE, SERVED


@dataclass(slots=True)
class _Breakable:
    fail_with: Loss | None = None
    calls: int = 0

    def _call(self) -> None:
        self.calls += 1
        if self.fail_with is not None:
            raise DependencyError(self.fail_with, "told to fail")


@dataclass(slots=True)
class MemorySource(_Breakable):
    """Proposes *keys* in order to everybody who has a history or a context; scores fall from 1."""

    name: str = "memory"
    keys: Sequence[int] = ()
    version: str = "twin"

    async def retrieve(
        self, query: Query, user: UserContext, ask: Ask, timeout_s: float, replica: int = 0
    ) -> Retrieved:
        self._call()
        keys = np.asarray(self.keys, np.int32)
        if not len(user.history_keys) and not query.focus_keys:
            keys = keys[:0]
        if ask.within is not None:
            keys = keys[np.isin(keys, ask.within)]
        keys = keys[~np.isin(keys, ask.exclude)][: ask.count]
        return Retrieved(keys, np.linspace(1, 0.1, len(keys), dtype=np.float32), self.version)


@dataclass(slots=True)
class MemoryReranker(_Breakable):
    """Scores by *score_of(key)*; by default the greater key is better, so that the order visibly changes."""

    score_of: Callable[[int], float] = float
    version: str = "twin"

    async def rerank(
        self, query: Query, user: UserContext, candidates: Candidates, timeout_s: float, replica: int = 0
    ) -> Reranked:
        self._call()
        scores = np.asarray([self.score_of(int(key)) for key in candidates.keys], np.float32)
        return Reranked(scores, self.version)


@dataclass(slots=True)
class MemoryStore:
    """
    What Redis would hold: histories and impressions (newest first), watermarks, slates, leases (token, end), the log,
    who a merged visitor is, a user's merged visitors, and what is left for ingestion to redact.
    """

    histories: dict[str, list[Event]] = field(default_factory=dict)
    shown: dict[str, list[Event]] = field(default_factory=dict)
    watermarks: dict[str, int] = field(default_factory=dict)
    slates: dict[str, dict[str, Entry]] = field(default_factory=dict)
    leases: dict[str, dict[str, tuple[str, float]]] = field(default_factory=dict)
    n_leases: int = 0
    log: list[Event] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    identities: dict[str, str] = field(default_factory=dict)
    visitors: dict[str, list[str]] = field(default_factory=dict)
    redactions: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)


@dataclass(slots=True)
class MemorySlates(_Breakable):
    """
    Slates by subject and field. Share *store* with MemoryEvents to have events empty a subject's hash.

    wall: the clock by which leases end.
    """

    store: MemoryStore = field(default_factory=MemoryStore)
    wall: Callable[[], float] = time.time

    async def get(self, subject: str, field: str, timeout_s: float) -> Found:
        self._call()
        watermark = self.store.watermarks.get(subject, 0)
        entry = self.store.slates.get(subject, {}).get(field)
        return Found(entry if entry is not None and entry.slate.watermark == watermark else None, watermark)

    async def put(self, subject: str, field: str, entry: Entry, lease: str | None = None) -> bool:
        self._call()
        if lease is not None:
            if self._holder(subject, field) != lease:
                return False
            del self.store.leases[subject][field]
        self.store.slates.setdefault(subject, {})[field] = entry
        return True

    async def lease(self, subject: str, field: str) -> str | None:
        self._call()
        if self._holder(subject, field) is not None:
            return None
        self.store.n_leases += 1
        token = str(self.store.n_leases)
        self.store.leases.setdefault(subject, {})[field] = (token, self.wall() + LEASE_S)
        return token

    async def release(self, subject: str, field: str, lease: str) -> None:
        self._call()
        if self._holder(subject, field) == lease:
            del self.store.leases[subject][field]

    def _holder(self, subject: str, field: str) -> str | None:
        token, until = self.store.leases.get(subject, {}).get(field, (None, 0.0))
        return token if until > self.wall() else None


@dataclass(slots=True)
class MemoryEvents(_Breakable):
    """The event log on a MemoryStore."""

    store: MemoryStore = field(default_factory=MemoryStore)

    async def append(self, events: Sequence[Event]) -> Sequence[bool]:
        self._call()
        return [self._take(event) for event in events]

    async def watermark(self, subject: str) -> int:
        self._call()
        return self.store.watermarks.get(subject, 0)

    async def durability(self) -> str:
        self._call()
        return "ok"

    def _take(self, event: Event) -> bool:
        if event.event_id in self.store.seen:
            return False
        self.store.seen.add(event.event_id)
        self.store.log.append(event)
        if event.subject is None:
            return True
        owner = self._owner(event.subject)
        if event.key is not None:
            lists = self.store.shown if event.type_code == IMPRESSION else self.store.histories
            put_in_place(lists.setdefault(owner, []), event, _moment, MAX_ENTRIES)
        for subject in {event.subject, owner}:
            self.store.watermarks[subject] = self.store.watermarks.get(subject, 0) + 1
            self.store.slates.pop(subject, None)
            self.store.leases.pop(subject, None)
        return True

    def _owner(self, subject: str) -> str:
        user = self.store.identities.get(subject[2:]) if subject.startswith("v:") else None
        return subject if user is None else f"u:{user}"


def _moment(event: Event) -> int:
    return event.at_us


@dataclass(slots=True)
class MemoryPeople(_Breakable):
    """
    People on a MemoryStore; share it with MemoryEvents and MemorySlates.

    features: user id → what is held of them, `view__feature` → value.
    """

    store: MemoryStore = field(default_factory=MemoryStore)
    features: dict[str, Mapping[str, object]] = field(default_factory=dict)

    async def merge(self, visitor_id: str, user_id: str) -> Merged:
        self._call()
        store, theirs, own = self.store, f"v:{visitor_id}", f"u:{user_id}"
        before = store.identities.get(visitor_id)
        store.identities[visitor_id] = user_id
        of_user = store.visitors.setdefault(user_id, [])
        of_user[:] = [*(v for v in of_user if v != visitor_id), visitor_id][-MAX_VISITORS:]
        mine, seen = store.watermarks.get(own, 0), store.watermarks.get(theirs, 0)
        if before == user_id:
            return Merged(False, 0, mine)
        moved = 0
        for lists in (store.histories, store.shown):
            if left := lists.pop(theirs, []):
                lists[own] = together(lists.get(own, []), left, _moment, MAX_ENTRIES)
                moved += len(left)
        store.watermarks[theirs] = seen + 1
        store.watermarks[own] = (mine + seen if before is None else max(mine, seen)) + 1
        for subject in (theirs, own):
            store.slates.pop(subject, None)
            store.leases.pop(subject, None)
        return Merged(True, moved, store.watermarks[own])

    async def erase(self, subject: str) -> Erased:
        self._call()
        store, identifier, is_user = self.store, subject[2:], subject.startswith("u:")
        numbers = (
            int(is_user and self.features.pop(identifier, None) is not None),
            len(store.histories.get(subject, ())),
            len(store.shown.get(subject, ())),
            len(store.slates.get(subject, ())),
            store.watermarks.get(subject, 0),
        )
        self._forget(subject)
        if is_user:
            visitors = tuple(store.visitors.pop(identifier, ()))
            identities = len(visitors)
            for visitor in visitors:
                if store.identities.get(visitor) == identifier:
                    del store.identities[visitor]
                    self._forget(f"v:{visitor}")
        else:
            visitors, user = (identifier,), store.identities.pop(identifier, None)
            identities = int(user is not None)
            if user is not None:
                store.visitors[user] = [v for v in store.visitors.get(user, ()) if v != identifier]
        store.redactions.append((identifier if is_user else "", visitors))
        return Erased(*numbers, identities, redaction=f"{len(store.redactions)}-0")

    async def held(self, subject: str) -> Held:
        self._call()
        store, identifier, is_user = self.store, subject[2:], subject.startswith("u:")
        slates = [entry.slate for entry in store.slates.get(subject, {}).values()]
        held = [HeldSlate(slate.created_at, tuple(item.key for item in slate.items)) for slate in slates]
        return Held(
            features=self.features.get(identifier, {}) if is_user else {},
            history=_deeds(store.histories.get(subject, ())),
            shown=_deeds(store.shown.get(subject, ())),
            watermark=store.watermarks.get(subject, 0),
            visitor_ids=tuple(store.visitors.get(identifier, ())) if is_user else (),
            user_id=None if is_user else store.identities.get(identifier),
            slates=tuple(sorted(held, key=lambda slate: slate.made_at)),
        )

    def _forget(self, subject: str) -> None:
        store = self.store
        for kept in (store.histories, store.shown, store.slates, store.leases, store.watermarks):
            kept.pop(subject, None)


def _deeds(events: Sequence[Event]) -> tuple[Deed, ...]:
    return tuple(Deed(event.key, event.type_code, event.at_us) for event in events if event.key is not None)


@dataclass(slots=True)
class MemoryUserReader(_Breakable):
    """
    Histories and watermarks of a MemoryStore, features from *features* (subject → numeric, categorical).

    Has no clock: a shopper is read as of their newest event.
    """

    store: MemoryStore = field(default_factory=MemoryStore)
    features: dict[str, tuple[Sequence[float], tuple[str, ...]]] = field(default_factory=dict)
    n_numeric: int = 0
    n_categorical: int = 0

    async def read(self, query: Query, timeout_s: float) -> UserContext:
        self._call()
        cold = UserContext.cold(self.n_numeric, self.n_categorical)
        subject = query.subject
        if subject is None:
            return cold
        numeric, categorical = self.features.get(subject, (cold.numeric, cold.categorical))
        done, shown = self.store.histories.get(subject, [])[::-1], self.store.shown.get(subject, [])[::-1]
        events = sorted([*shown, *done], key=lambda event: event.at_us) if shown else done
        return UserContext(
            np.asarray(numeric, np.float32),
            categorical,
            np.asarray([event.key for event in events], np.int32),
            np.asarray([event.type_code for event in events], np.uint8),
            np.asarray([event.at_us for event in events], np.int64),
            self.store.watermarks.get(subject, 0),
            max((event.at_us for event in events), default=0),
        )


@dataclass(slots=True)
class MemoryItems(_Breakable):
    """The item store: what items became, and the entries of the stream."""

    held: dict[str, ItemState] = field(default_factory=dict)
    entries: list[ItemState] = field(default_factory=list)
    version: int = 0

    async def change(self, wishes: Sequence[Wish]) -> Sequence[Outcome]:
        self._call()
        return [self._changed(wish) for wish in wishes]

    async def read(self, item_id: str) -> ItemState | None:
        self._call()
        return self.held.get(item_id)

    def _changed(self, wish: Wish) -> Outcome:
        held = self.held.get(wish.item_id)
        if wish.expected not in (None, 0 if held is None else held.version):
            return Outcome(Verdict.STALE, held)
        is_gone = wish.key == NO_KEY if held is None else held.document is None
        if wish.document is None and is_gone:
            return Outcome(Verdict.SAME, held)
        key = wish.key if held is None or held.key == NO_KEY else held.key
        self.version += 1
        state = self.held[wish.item_id] = ItemState(wish.item_id, self.version, key, wish.document)
        self.entries.append(state)
        return Outcome(Verdict.TAKEN, state)


@dataclass(slots=True)
class MemorySlateLog:
    """The slate log as messages, in order; with *is_lost* nothing is kept and everything counted."""

    share: float = 1.0
    at_s: float = 0.0
    is_lost: bool = False
    lost: int = 0
    messages: list[tuple[bytes, bytes]] = field(default_factory=list)

    def served(self, query: Query, slate: Slate) -> None:
        if is_sampled(slate.made_as or query.recommendation_id, self.share):
            self._keep(SERVED, served_message(query, slate, self.at_s, 0.0))

    def made(self, query: Query, asked: Asked, slate: Slate) -> None:
        if is_sampled(slate.made_as, self.share):
            nothing = np.empty((len(may_be_shown(slate)), 0), np.float32)
            self._keep(MADE, made_message(query, asked, slate, self.at_s, "", nothing, []))

    def _keep(self, kind: bytes, message: bytes) -> None:
        if self.is_lost:
            self.lost += 1
        else:
            self.messages.append((kind, message))
