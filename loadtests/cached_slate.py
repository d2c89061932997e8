"""
What a cached slate costs in process: application, edge, pipeline, guard and stored bytes, without HTTP and Redis.

    for tree in BEFORE AFTER; do PYTHONPATH=$tree python loadtests/cached_slate.py >lines; done

Prints the least and the median CPU of 40 rounds of 100 hits, and the calls of a hit, as Python's profiler counts them.
The rule: two trees are compared in alternation on one core; a figure alone is this machine's. It asks only for what
stands since format 3 of stored slates, so that older trees can be measured by the same file.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import sys
import tempfile
import time

import numpy as np
import orjson
import uvloop

from orchestrator import settings as tree
from orchestrator.adapters.catalogue import Catalogue
from orchestrator.adapters.memory import MemoryEvents, MemoryReranker, MemorySlates, MemorySource, MemoryUserReader
from orchestrator.adapters.redis_slates import decode, encode
from orchestrator.bootstrap import Running
from orchestrator.core.model import Event
from orchestrator.core.slate_cache import Found
from orchestrator.edge.app import create_app
from orchestrator.guard import Guard
from orchestrator.pipeline import Collaborators, Pipeline
from orchestrator.telemetry import configure_logging, metrics

N_ITEMS, ROUNDS, HITS = 50_000, 40, 100
VIEW = 1

BODY = orjson.dumps({"placement": "home", "user_id": "u1", "count": 20})
HEADERS = [
    (b"host", b"shop"),
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
]
SCOPE = {"type": "http", "method": "POST", "path": "/v1/recommendations", "query_string": b"", "root_path": ""}


class Stored(MemorySlates):
    """Slates as Redis holds them, answered a turn of the loop later, as its connection does."""

    def get(self, subject, field, timeout_s):
        answer = asyncio.get_running_loop().create_future()

        def arrive():
            stored = self.store.slates.get(subject, {}).get(field)
            watermark = self.store.watermarks.get(subject, 0)
            answer.set_result(Found(None if stored is None else decode(stored), watermark))

        asyncio.get_running_loop().call_soon(arrive)
        return answer

    async def put(self, subject, field, entry, lease=None):
        self.store.slates.setdefault(subject, {})[field] = encode(entry)
        return True


def a_shop() -> Catalogue:
    """Items with a title, a category, a brand and a price; one in nine is sold out."""
    paths = ("Home > Kitchen > Mugs", "Home > Kitchen", "Home > Garden", "Toys > Wooden > Trains")
    columns = {
        "title": [f"Item number {key} of this fine shop" for key in range(N_ITEMS)],
        "category": [paths[key % len(paths)] for key in range(N_ITEMS)],
        "brand": [f"Brand {key % 50}" for key in range(N_ITEMS)],
        "price": [5.0 + key / 100 for key in range(N_ITEMS)],
        "in_stock": [key % 9 != 0 for key in range(N_ITEMS)],
    }
    return Catalogue([f"item-{key:05d}" for key in range(N_ITEMS)], columns, np.arange(N_ITEMS, dtype=np.int32))


async def measure(folder: str) -> str:
    """One line."""
    settings = tree.load(None, {"TUTTI_DATA__PATH": folder, "TUTTI_BUDGET__TOTAL_MS": "60000"})
    configure_logging("info", "json")
    slates, catalogue = Stored(), a_shop()
    parts = Collaborators(
        sources=tuple(
            MemorySource(name=source.name, keys=range(100 + 37 * at, 600 + 37 * at))
            for at, source in enumerate(settings.sources)
        ),
        reranker=MemoryReranker(),
        features=MemoryUserReader(store=slates.store, n_numeric=2, n_categorical=1),
        slates=slates,
        catalogue=catalogue,
        guard=Guard(time.monotonic, metrics),
        metrics=metrics,
        monotonic=time.monotonic,
        wall=time.time,
        rng=random.Random(1),  # noqa: S311  # the same for every tree
    )
    pipeline = Pipeline(settings, parts, "settings")
    app, sent = create_app(settings), []
    app.state.running = Running(settings, pipeline, catalogue, None, is_ready=True, people=None)

    async def receive():
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message):
        sent.append(message)

    async def hit():
        sent.clear()
        await app({**SCOPE, "headers": list(HEADERS)}, receive, send)

    event = Event("e1", "u:u1", 2, VIEW, int(time.time() * 1e6), b"{}")
    await MemoryEvents(store=slates.store).append([event])
    await hit()
    await pipeline.drain()
    for _ in range(3 * HITS):
        await hit()
    assert b'"from_cache":true' in sent[1]["body"], sent
    gc.collect()
    gc.freeze()
    spent_us = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(HITS):
            await hit()
        spent_us.append((time.process_time() - began) / HITS * 1e6)
    calls = 0

    def count(_frame, event, _of):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    for _ in range(HITS):
        await hit()
    sys.setprofile(None)
    return f"least {min(spent_us):.0f} us, median {statistics.median(spent_us):.0f} us, {calls / HITS:.0f} calls"


def main() -> None:
    """Lines of the log go to standard output, as they do in a shop; the figures to standard error."""
    with tempfile.TemporaryDirectory() as folder:
        print(uvloop.run(measure(folder)), file=sys.stderr)


if __name__ == "__main__":
    main()
