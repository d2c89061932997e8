"""
What a remembered slate costs, in things that can be counted: calls and memory, never time.

The whole way but server and socket: application, edge, pipeline, guard, stored bytes. Ceilings are what was counted
when they were written and a tenth more; who raises one says why. (Bytes were 22,500: the text of a slate is held beside
the answer made of it, where slots were held that took a third of a request's time to make.)
"""

import asyncio
import gc
import random
import sys
import time
import tracemalloc

import orjson
import pytest

from orchestrator import settings as tree
from orchestrator.adapters.memory import (
    MemoryEvents,
    MemoryPeople,
    MemoryReranker,
    MemorySlates,
    MemorySource,
    MemoryUserReader,
)
from orchestrator.adapters.redis_slates import decode, encode
from orchestrator.bootstrap import Running
from orchestrator.core.slate_cache import Found
from orchestrator.edge.app import create_app
from orchestrator.guard import Guard
from orchestrator.pipeline import Collaborators, Pipeline
from orchestrator.telemetry import metrics
from tests.support.builders import PURCHASE, an_event
from tests.support.worlds import CB, CF, a_catalogue
from tests.unit.edge.conftest import LogTwin

MAX_CALLS, MAX_BYTES, MAX_GARBAGE = 580, 27_500, 1

BODY = orjson.dumps({"placement": "home", "user_id": "u1", "count": 10})
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/recommendations",
    "query_string": b"",
    "root_path": "",
    "headers": [
        (b"host", b"shop"),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(BODY)),
    ],
}


class StoredSlates(MemorySlates):
    """Slates as Redis holds them: bytes, decoded for every look-up, in a future as its connection gives it."""

    def get(self, subject, field, timeout_s):
        loop = asyncio.get_running_loop()
        answer = loop.create_future()

        def arrive():
            stored = self.store.slates.get(subject, {}).get(field)
            answer.set_result(Found(None if stored is None else decode(stored), self.store.watermarks.get(subject, 0)))

        loop.call_soon(arrive)
        return answer

    async def put(self, subject, field, entry, lease=None):
        self.store.slates.setdefault(subject, {})[field] = encode(entry)
        return True


@pytest.fixture
async def ask(settings):
    """Ask once; the answer's body. The first answer was made, all others are remembered."""
    settings = tree.load(None, {"TUTTI_DATA__PATH": str(settings.data.path), "TUTTI_BUDGET__TOTAL_MS": "60000"})
    slates = StoredSlates()
    features = MemoryUserReader(store=slates.store, n_numeric=2, n_categorical=1)
    parts = Collaborators(
        sources=(MemorySource(name=CF, keys=range(20)), MemorySource(name=CB, keys=range(29, 9, -1))),
        reranker=MemoryReranker(),
        features=features,
        slates=slates,
        catalogue=a_catalogue(),
        guard=Guard(time.monotonic, metrics),
        metrics=metrics,
        monotonic=time.monotonic,
        wall=time.time,
        rng=random.Random(1),
    )
    pipeline = Pipeline(settings, parts, "settings")
    app = create_app(settings)
    app.state.running = Running(settings, pipeline, parts.catalogue, LogTwin(), is_ready=True, people=MemoryPeople())
    sent = []

    async def receive():
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message):
        sent.append(message)

    async def once():
        sent.clear()
        await app(dict(SCOPE), receive, send)
        assert sent[0]["status"] == 200
        return sent[1]["body"]

    await MemoryEvents(store=slates.store).append([an_event("e1", subject="u:u1", key=2, type_code=PURCHASE)])
    await once()
    await pipeline.drain()
    for _ in range(50):
        await once()
    return once


async def test_a_hit_makes_no_more_calls_than_it_did(ask):
    calls = 0

    def count(_frame, event, _of):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    for _ in range(100):
        await ask()
    sys.setprofile(None)

    assert calls / 100 <= MAX_CALLS


async def test_a_hit_holds_no_more_memory_than_it_did(ask):
    tracemalloc.start()
    gc.disable()
    try:
        await ask()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        await ask()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        gc.enable()
        tracemalloc.stop()

    assert peak <= MAX_BYTES


async def test_a_thousand_hits_leave_nothing_behind(ask):
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(1000):
        await ask()
    gc.collect()

    # What grows by one for each request would be a thousand and more.
    assert sys.getallocatedblocks() - before < 500


async def test_hits_make_no_work_for_the_garbage_collector(ask):
    gc.collect()
    gc.disable()
    try:
        for _ in range(1000):
            await ask()
        unreachable = gc.collect()
    finally:
        gc.enable()

    assert unreachable / 1000 <= MAX_GARBAGE


async def test_what_is_counted_is_a_hit(ask):
    answer = orjson.loads(await ask())

    assert answer["quality"] == answer["quality"] | {"level": "full", "from_cache": True}
    assert len(answer["items"]) == 10
