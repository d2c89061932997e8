"""
Measures the points of one size of shop, a process of its own: CPU by stage, and memory as each part is loaded.

    python -m services.bench.growth.points --data DIR --spec FILE       prints one line of JSON

The stages are those of `bare.py`; each model is timed where it is called, and what is left is the pipeline's.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil

from orchestrator import settings as tree
from orchestrator.adapters import catalogue as catalogues
from orchestrator.core.model import ItemFilter, Placement, Query, UserContext
from orchestrator.core.selection import IMPERSONAL
from orchestrator.ports import Catalogue
from orchestrator.settings import Settings
from protos import artefacts
from protos.feast_layout import ReadPlan
from services.bench.asking import COUNT
from services.bench.bare import Arithmetic, Asked
from services.bench.growth.curve import BATCHES, Cost, Point, quotas
from services.bench.growth.shop import histories
from services.chassis import server
from services.chassis.model import Candidates, GenerateQueries, Generator, Ranker, RerankQueries, Resources

LEAST_CALLS = 3
"""However slow: the first call of a kind is not counted, and one alone may be the machine's."""

PIPELINE, CATALOGUE = "pipeline", "orchestrator"


class TimedGenerator:
    """A generator that says how long it took."""

    def __init__(self, model: Generator) -> None:
        self.version, self._model, self.spent_s = model.version, model, 0.0

    def generate(self, queries: GenerateQueries) -> Candidates:
        """The model's own."""
        began = time.process_time()
        found = self._model.generate(queries)
        self.spent_s += time.process_time() - began
        return found


class TimedRanker:
    """A re-ranker that says how long it took."""

    def __init__(self, model: Ranker) -> None:
        self.version, self.feature_digest = model.version, model.feature_digest
        self._model, self.spent_s = model, 0.0

    def rank(self, queries: RerankQueries) -> np.ndarray:
        """The model's own."""
        began = time.process_time()
        found = self._model.rank(queries)
        self.spent_s += time.process_time() - began
        return found


class Grown:
    """One size of shop, loaded; `memory` is what each part took."""

    def __init__(self, data: Path) -> None:
        self.data, self.settings = data, tree.load(environment={}, data=data)
        self.memory: dict[str, int] = {}
        popular = artefacts.load(data / "models", "popular")
        keys = popular.arrays("popular.npz")["keys"].astype(np.int32)
        size = int(popular.manifest.vocabulary["size"])
        with _Growing(self.memory, CATALOGUE):
            self.catalogue = catalogues.load(data, keys, size)
        self.generators = {source.name: self._generator(source.name) for source in self.settings.sources}
        name = self.settings.reranker.name
        with _Growing(self.memory, name):
            self.ranker = TimedRanker(cast(Ranker, server.load(name, Resources(data), artefacts.CHAMPION).model))
        artefact = artefacts.load(data / "models", name)
        features = artefact.manifest.features or {"plan": "read_plan.json"}
        self.plan = ReadPlan.load(artefact.file(features["plan"]))

    def _generator(self, name: str) -> TimedGenerator:
        with _Growing(self.memory, name):
            model = server.load(name, Resources(self.data), artefacts.CHAMPION).model
        return TimedGenerator(cast(Generator, model))

    def measure(self, point: Point, seconds: float) -> list[Cost]:
        """The point with every batch size."""
        now_s = time.time()
        settings = _settings(self.settings, point)
        generators: dict[str, Any] = dict(self.generators)
        arithmetic = Arithmetic(settings, self.catalogue, generators, cast(Ranker, self.ranker), lambda: now_s)
        asked = self._asked(point, now_s)
        return [self._cost(arithmetic, asked, point, batch, seconds) for batch in BATCHES]

    def _cost(self, arithmetic: Arithmetic, asked: Sequence[Asked], point: Point, batch: int, seconds: float) -> Cost:
        timed: dict[str, TimedGenerator | TimedRanker] = {**self.generators, self.settings.reranker.name: self.ranker}
        position, calls = count(), 0
        arithmetic.slates([asked[next(position) % len(asked)] for _ in range(batch)])
        before = {name: model.spent_s for name, model in timed.items()}
        slots, own, queries = 0, 0, 0
        ends, began = time.monotonic() + seconds, time.process_time()
        while calls < LEAST_CALLS or time.monotonic() < ends:
            slates = arithmetic.slates([asked[next(position) % len(asked)] for _ in range(batch)])
            calls, queries = calls + 1, queries + batch
            slots += sum(len(slate.items) for slate in slates)
            own += sum(item.sources not in [(one,) for one in IMPERSONAL] for s in slates for item in s.items)
        spent = time.process_time() - began
        ms = {name: 1000 * (model.spent_s - before[name]) / queries for name, model in timed.items()}
        ms[PIPELINE] = 1000 * spent / queries - sum(ms.values())
        return Cost(point, batch, ms, queries, slots / queries, own / queries)

    def _asked(self, point: Point, now_s: float) -> list[Asked]:
        """A personal slate for every shopper. Their features are zeros: which they are changes no cost."""
        user = self.plan.user
        numeric = np.zeros(len(user.numeric) if user else 0, np.float32)
        words = ("",) * (len(user.categorical) if user else 0)
        wanted = _filter(self.catalogue, point.kept)
        query = Query("growth", Placement.HOME, COUNT, user_id="u", filter=wanted)
        return [
            Asked(
                query,
                UserContext(numeric, words, keys, types, (1e6 * (now_s - ages_s.astype(np.float64))).astype(np.int64)),
            )
            for keys, types, ages_s in histories(self.data, point.history)
        ]


class _Growing:
    """Writes down by how many bytes the process grew in the block."""

    def __init__(self, memory: dict[str, int], name: str) -> None:
        self._memory, self._name = memory, name

    def __enter__(self) -> None:
        self._before = _resident()

    def __exit__(self, *unused: object) -> None:
        self._memory[self._name] = _resident() - self._before


def _resident() -> int:
    """Resident bytes, after what is free was given back."""
    gc.collect()
    # glibc keeps what was freed; elsewhere there is no such call.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _settings(usual: Settings, point: Point) -> Settings:
    if point.candidates is None:
        return usual
    shares = quotas(point.candidates, [source.quota for source in usual.sources])
    sources = tuple(s.model_copy(update={"quota": quota}) for s, quota in zip(usual.sources, shares, strict=True))
    reranker = usual.reranker.model_copy(update={"candidates": point.candidates})
    return usual.model_copy(update={"sources": sources, "reranker": reranker})


def _filter(catalogue: Catalogue, kept: float) -> ItemFilter:
    """What allows so large a share of the catalogue: the cheapest items."""
    if kept >= 1:
        return ItemFilter()
    prices = catalogue.facts(np.arange(catalogue.size, dtype=np.int32)).price
    known = prices[np.isfinite(prices)]
    if not len(known):
        raise SystemExit("the shop has no prices, and the axis `kept` is made of them")
    return ItemFilter(price_max=float(np.quantile(known, kept)))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m services.bench.growth.points", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--spec", type=Path, required=True, help="JSON: {seconds, points: [{axis, value, …}]}")
    arguments = parser.parse_args()
    spec = json.loads(arguments.spec.read_text(encoding="utf-8"))
    grown = Grown(arguments.data)
    costs = [cost for point in spec["points"] for cost in grown.measure(Point(**point), spec["seconds"])]
    answer = {"memory": grown.memory, "costs": [cost.to_json() for cost in costs]}
    print(json.dumps(answer))  # noqa: T201  # the driver reads it
    return 0


if __name__ == "__main__":
    sys.exit(main())
