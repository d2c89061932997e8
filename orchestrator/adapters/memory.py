"""
An honest in-memory twin of each port, for tests and simulations.

A twin may be used because it passes its port's contract suite, the one the real adapter passes too. It
can be told to fail (`fail_with`), and then fails as the real one does: with a DependencyError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.core.model import (
    Ask,
    Candidates,
    Event,
    Loss,
    Query,
    Reranked,
    Retrieved,
    UserContext,
)
from orchestrator.core.slate_cache import LEASE_S, Entry, Found
from orchestrator.ports import DependencyError
from protos.catalogue import NO_KEY, ItemState, Outcome, Verdict, Wish
from protos.history import IMPRESSION, MAX_ENTRIES


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
    What Redis would hold: histories and impressions (newest first), watermarks, slates, leases (token, end), the log.
    """

    histories: dict[str, list[Event]] = field(default_factory=dict)
    shown: dict[str, list[Event]] = field(default_factory=dict)
    watermarks: dict[str, int] = field(default_factory=dict)
    slates: dict[str, dict[str, Entry]] = field(default_factory=dict)
    leases: dict[str, dict[str, tuple[str, float]]] = field(default_factory=dict)
    n_leases: int = 0
    log: list[Event] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


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

    def _take(self, event: Event) -> bool:
        if event.event_id in self.store.seen:
            return False
        self.store.seen.add(event.event_id)
        self.store.log.append(event)
        if event.subject is not None:
            if event.key is not None:
                lists = self.store.shown if event.type_code == IMPRESSION else self.store.histories
                history = lists.setdefault(event.subject, [])
                history.insert(0, event)
                del history[MAX_ENTRIES:]
            self.store.watermarks[event.subject] = self.store.watermarks.get(event.subject, 0) + 1
            self.store.slates.pop(event.subject, None)
            self.store.leases.pop(event.subject, None)
        return True


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
