"""
Twins behind the edge: a shop of ten items, a pipeline that remembers what it was asked, a log that keeps events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest

from orchestrator import settings as tree
from orchestrator.adapters.catalogue import Catalogue
from orchestrator.adapters.memory import MemoryItems, MemoryPeople
from orchestrator.bootstrap import Running
from orchestrator.core.lag import Lag
from orchestrator.core.model import Event, Level, Loss, Query, Rung, Slate, SlateItem, SourceReport, StageList
from orchestrator.edge.admission import Admission
from orchestrator.edge.app import create_app
from orchestrator.page import Shelf
from orchestrator.ports import DependencyError, People
from orchestrator.telemetry import metrics

ITEM_IDS = [f"item-{i}" for i in range(9)] + ["shelf/9 <b>ü</b>"]

SHOP_NOW = 1_772_366_400.0
"""What time it is in the shop, 2026-03-01: the moments of these tests are not to grow old."""


class ShopTwin(Catalogue):
    """A catalogue of ITEM_IDS; key = position."""

    def __init__(self) -> None:
        n = len(ITEM_IDS)
        columns = {
            "title": [f"Mug {key}" for key in range(n)],
            "category": ["Home > Mugs"] * n,
            "brand": ["tutti"] * n,
            "price": [1.5 + key for key in range(n)],
        }
        super().__init__(ITEM_IDS, columns, np.arange(n, dtype=np.int32))


@dataclass
class PipelineTwin:
    """Answers with the wanted keys in reverse, or the first `count` items; remembers what it was asked, and how."""

    queries: list[Query] = field(default_factory=list)
    pages: list[list[Query]] = field(default_factory=list)
    budgets: list[float | None] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    floors: list[Rung] = field(default_factory=list)
    error: Exception | None = None
    meanwhile: Callable[[Rung], Awaitable[None]] | None = None
    from_cache: bool = False

    async def recommend(
        self, query: Query, budget_s: float | None = None, *, queued_s: float = 0.0, floor: Rung = Rung.FULL
    ) -> Slate:
        self.queries.append(query)
        self.budgets.append(budget_s)
        self.queued.append(queued_s)
        self.floors.append(floor)
        if self.meanwhile is not None:
            await self.meanwhile(floor)
        if self.error is not None:
            raise self.error
        keys = query.only_keys[::-1] or range(min(query.count, len(ITEM_IDS)))
        return Slate(
            items=tuple(SlateItem(key, 1.0 / (key + 1), ("two", "one")) for key in keys),
            level=Level.PARTIAL,
            sources=(
                SourceReport("one", "ok", 3.25, 100, len(keys)),
                SourceReport("two", "ok", 4.5, 50, len(keys)),
                SourceReport("three", "timeout", 40.0),
            ),
            degraded=("three",),
            losses=(("three", Loss.DEADLINE),),
            model_versions=(("one", "abc"), ("two", "def")),
            watermark=7,
            created_at=0.0,
            stages_ms=(("user", 1.25), ("retrieve", 40.0)),
            from_cache=self.from_cache,
        )

    async def traced(
        self, query: Query, budget_s: float | None, *, queued_s: float = 0.0, floor: Rung = Rung.FULL
    ) -> tuple[Slate, list[StageList]]:
        slate = await self.recommend(query, budget_s, queued_s=queued_s, floor=floor)
        keys = np.asarray([item.key for item in slate.items], np.int32)
        lists = [
            StageList("source:one", keys[::-1], np.zeros(len(keys))),
            StageList("fused", keys, np.zeros(len(keys))),
        ]
        return slate, lists

    async def page(
        self,
        queries: Sequence[Query],
        budget_s: float | None = None,
        *,
        queued_s: float = 0.0,
        floor: Rung = Rung.FULL,
    ) -> list[Shelf]:
        self.pages.append(list(queries))
        answers = [await self.traced(query, budget_s, queued_s=queued_s, floor=floor) for query in queries]
        return [Shelf(query, slate, lists) for query, (slate, lists) in zip(queries, answers, strict=True)]


@dataclass
class LogTwin:
    """Keeps events by id; counts each subject's."""

    events: dict[str, Event] = field(default_factory=dict)
    loss: Loss | None = None

    async def append(self, events: list[Event]) -> list[bool]:
        if self.loss is not None:
            raise DependencyError(self.loss, "the log is down")
        were_new = []
        for event in events:
            were_new.append(event.event_id not in self.events)
            self.events.setdefault(event.event_id, event)
        return were_new

    async def watermark(self, subject: str) -> int:
        return sum(event.subject == subject for event in self.events.values())

    async def durability(self) -> str:
        return "ok"


@dataclass
class LoopTwin:
    """A loop that is as late as the test says."""

    lag: Lag = field(default_factory=Lag)


@dataclass
class RunningTwin(Running):
    """Checks without dependencies; people on a store of their own."""

    found: dict[str, str] = field(default_factory=lambda: {"popular": "ok", "redis": "unavailable"})
    people: People = field(default_factory=MemoryPeople, kw_only=True)
    shop_now: Callable[[], float] = lambda: SHOP_NOW

    async def checks(self) -> dict[str, str]:
        return self.found


@pytest.fixture
def settings(tmp_path: Path) -> tree.Settings:
    return tree.load(None, {"TUTTI_DATA__PATH": str(tmp_path)})


@pytest.fixture
def running(settings: tree.Settings) -> RunningTwin:
    return RunningTwin(settings, PipelineTwin(), ShopTwin(), LogTwin(), {}, True, loop=LoopTwin(), items=MemoryItems())


@pytest.fixture
def pipeline(running: RunningTwin) -> PipelineTwin:
    return running.pipeline


@pytest.fixture
def event_log(running: RunningTwin) -> LogTwin:
    return running.events


@pytest.fixture
def admission(settings: tree.Settings) -> Admission:
    return Admission(settings, metrics)


@pytest.fixture
async def client(
    settings: tree.Settings, running: RunningTwin, admission: Admission
) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def start(_: tree.Settings) -> AsyncIterator[Running]:
        yield running

    app = create_app(settings, start, admission)
    # ASGITransport sends no lifespan events; enter it as the server would.
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        yield client


Refusal = Callable[[httpx.Response, int, str | None], dict[str, object]]


@pytest.fixture
def refused() -> Refusal:
    """Check that an answer is a whole problem document that names *field*; give the document."""

    def check(response: httpx.Response, status: int, name: str | None = None) -> dict[str, object]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        document = response.json()
        assert document.keys() >= {"type", "title", "status", "detail", "request_id"}
        assert document["status"] == status
        assert document["request_id"] == response.headers["x-request-id"]
        assert "total;dur=" in response.headers["server-timing"]
        if name is not None:
            assert name in [error["field"] for error in document["errors"]], document
        return document

    return check
