"""
A small shop with a whole pipeline on twins, in virtual time; the one place where tests build a Pipeline.

40 items: item k costs 5 + k, lies in category k mod 4, is of brand k mod 5. `collaborative_filtering` proposes 0–19,
`content_based` 10–29 backwards, both to shoppers with a history or a context; the re-ranker prefers the greater key;
popular is 39 down to 0. So the origin of every item of a slate shows in its number.
"""

import asyncio
import inspect
import itertools
import math
import random

import numpy as np
import orjson

from orchestrator import settings as settings_module
from orchestrator.adapters.catalogue import Catalogue
from orchestrator.adapters.memory import (
    MemoryEvents,
    MemoryReranker,
    MemorySlates,
    MemorySource,
    MemoryStore,
    MemoryUserReader,
)
from orchestrator.adapters.rules_file import bound, parse
from orchestrator.core.model import Loss, Query, Slate
from orchestrator.core.rules import Rulebook
from orchestrator.core.selection import POPULAR
from orchestrator.guard import Guard
from orchestrator.page import Pages
from orchestrator.pipeline import Collaborators
from orchestrator.ports import SlateLog
from orchestrator.telemetry import new_metrics
from tests.support.builders import PURCHASE, VIEW, an_event
from tests.support.virtual_clock import monotonic, wall

N_ITEMS = 40
CATEGORIES = ("Home > Kitchen > Mugs", "Home > Kitchen", "Home > Garden", "Toys")
BRANDS = ("Alba", "Brix", "Coda", "Dune", "Echo")
FOREVER = math.inf

BEST = list(range(29, 19, -1))
"""What u1 sees when all is well: all that CF (0–19) and CB (10–29) propose, the greater key first."""

POPULAR_ORDER = list(range(N_ITEMS - 1, -1, -1))

CF, CB, RERANKER, USER, CACHE, EVENTS = (
    "collaborative_filtering",
    "content_based",
    "reranking",
    "user",
    "slate_cache",
    "events",
)


class Distant:
    """
    A twin with a way to it: every awaited call takes `latency_s` first, then does what the twin does.

    `surprise`: an exception nobody has a name for, raised instead of an answer. Like a real dependency that was
    not told otherwise, it does not time itself out.
    """

    def __init__(self, twin, latency_s: float) -> None:
        self.twin = twin
        self.healthy_s = latency_s
        self.latency_s = latency_s
        self.surprise: Exception | None = None
        self.cancelled = 0

    def heal(self) -> None:
        self.latency_s, self.surprise, self.twin.fail_with = self.healthy_s, None, None

    async def _travel(self) -> None:
        try:
            await (asyncio.Event().wait() if self.latency_s == FOREVER else asyncio.sleep(self.latency_s))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.surprise is not None:
            raise self.surprise

    def __getattr__(self, name):
        attribute = getattr(self.twin, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*arguments):
            await self._travel()
            return await attribute(*arguments)

        return call


class World:
    """A shop, its shoppers and a pipeline. *environment*: settings as TUTTI_… variables over the defaults."""

    def __init__(self, **environment: str) -> None:
        self.settings = settings_module.load(environment=environment)
        self.store = MemoryStore()
        self.sold_out: set[int] = set()
        self.metrics = new_metrics()
        self.distant = {
            CF: Distant(MemorySource(name=CF, keys=range(20)), 0.012),
            CB: Distant(MemorySource(name=CB, keys=range(29, 9, -1)), 0.008),
            RERANKER: Distant(MemoryReranker(), 0.005),
            USER: Distant(MemoryUserReader(store=self.store, n_numeric=2, n_categorical=1), 0.001),
            CACHE: Distant(MemorySlates(store=self.store, wall=wall), 0.001),
            EVENTS: Distant(MemoryEvents(store=self.store), 0.001),
        }
        self._event_ids = itertools.count(1)
        self.rulebook = Rulebook()
        self.slate_log: SlateLog | None = None
        self.open()

    def open(self) -> None:
        """(Re)build catalogue and pipeline, as a process that starts now would: the store stays."""
        self.catalogue = a_catalogue(self.sold_out)
        self.pipeline = self.another_process()

    def another_process(self, seed: int = 7) -> Pages:
        """A pipeline beside this world's, on the same store and services."""
        parts = Collaborators(
            sources=(self.distant[CF], self.distant[CB]),
            reranker=self.distant[RERANKER],
            features=self.distant[USER],
            slates=self.distant[CACHE],
            catalogue=self.catalogue,
            guard=Guard(monotonic, self.metrics, rng=random.Random(11)),
            metrics=self.metrics,
            monotonic=monotonic,
            wall=wall,
            rng=random.Random(seed),
            rulebook=lambda: self.rulebook,
            slate_log=self.slate_log,
        )
        return Pages(self.settings, parts, "settings-1")

    def __getitem__(self, name: str) -> Distant:
        return self.distant[name]

    def lose(self, *names: str, loss: Loss = Loss.UNAVAILABLE) -> None:
        for name in names:
            self[name].twin.fail_with = loss

    def rule(self, text: str) -> None:
        """From now on these rules hold, as a file would have them; columns are f__number and f__word."""
        self.rulebook = bound(parse(text), self.catalogue, ["f__number", "f__other"], ["f__word"])

    def sell_out(self, *keys: int) -> None:
        self.sold_out |= set(keys)
        self.open()

    def calls(self, name: str) -> int:
        return self[name].twin.calls

    async def ask(self, query: Query, budget_s: float | None = None) -> Slate:
        """The slate, with all work behind the answer done."""
        slate = await self.pipeline.recommend(query, budget_s)
        await self.pipeline.drain()
        return slate

    async def event(self, subject: str, key: int, type_code: int = VIEW, event_id: str | None = None) -> list[bool]:
        event_id = event_id or f"e{next(self._event_ids)}"
        at_us = int(wall() * 1e6)
        return list(
            await self[EVENTS].append([an_event(event_id, subject=subject, key=key, type_code=type_code, at_us=at_us)])
        )

    def count(self, metric, **labels: str) -> float:
        """Value of one counter of this world's registry."""
        return metric.labels(**labels)._value.get()


async def a_world(history=(2,), **environment: str) -> World:
    """A World whose shopper u1 bought *history*."""
    world = World(**environment)
    for key in history:
        await world.event("u:u1", key, PURCHASE)
    return world


def a_catalogue(sold_out=()) -> Catalogue:
    """The 40 items."""
    keys = range(N_ITEMS)
    columns = {
        "title": [f"Item {key}" for key in keys],
        "category": [CATEGORIES[key % 4] for key in keys],
        "brand": [BRANDS[key % 5] for key in keys],
        "price": [5.0 + key for key in keys],
        "in_stock": [key not in sold_out for key in keys],
        "attributes": [orjson.dumps({"colour": ("red", "blue")[key % 2]}).decode() for key in keys],
    }
    return Catalogue([f"i{key:02d}" for key in keys], columns, np.arange(N_ITEMS - 1, -1, -1, dtype=np.int32))


def statuses(slate: Slate) -> dict[str, str]:
    """Source → what the slate says of it."""
    return {source.name: source.status for source in slate.sources}


def from_popular(slate: Slate) -> list[int]:
    """Keys of the slots that the last rung filled."""
    return [item.key for item in slate.items if item.sources == (POPULAR,)]
