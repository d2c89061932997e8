"""
The bare arithmetic of a request: what it would cost if it were one function call in one process on one thread.

What is in it: the models' own `generate` and `rank` on arrays, over the whole catalogue, called directly; between them
the real pipeline's fusion, facts of the catalogue, filters, order, rules, diversity and the slate as a value
(`Pipeline._fuse`, `_filter`, `_finish`: the lines that serve, not a copy of them). The same shoppers with the same
features and histories, read from the same Redis beforehand, and the same bodies as the load sends.

What is not in it: HTTP, JSON in and out, gRPC and its arrays as bytes, reading features and history from Redis, the
slate cache, admission, deadlines, breakers, limiters, the slate log, the summary line, and several processes waking
each other.

With a batch of one the models are asked query by query, as by a caller alone; with one of 32 as a coalesced call asks
them. A query of a batch is answered alone by everything that is not a model.

    python -m services.bench.bare --settings FILE      one JSON object a line in, one out; see `beside.py`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator import settings as tree
from orchestrator.adapters import catalogue as catalogues
from orchestrator.adapters.feast_reader import FeastRedisReader
from orchestrator.adapters.shop_clock import shop_clock
from orchestrator.adapters.user_reader import RedisUserReader
from orchestrator.adapters.wire import PLACEMENT_CODE
from orchestrator.core.filters import forbidden_keys
from orchestrator.core.model import Candidates, Query, Retrieved, Slate, UserContext
from orchestrator.core.report import Report
from orchestrator.core.selection import ordered
from orchestrator.edge import schemas
from orchestrator.edge.translate import Resolver, ranking_query, recommendation_query
from orchestrator.guard import Guard
from orchestrator.pipeline import Collaborators, Pipeline
from orchestrator.ports import Catalogue
from orchestrator.settings import Settings
from orchestrator.telemetry import metrics
from protos import artefacts
from protos.arrays import Rows
from protos.feast_layout import ReadPlan
from services.bench.asking import RANKINGS, Shopper, Unit
from services.chassis import server
from services.chassis.model import GenerateQueries, Generator, Ranker, RerankQueries, Resources, Shoppers

ITEMS_SHOWN = 10
"""Of each shopper's history that are told: more than a page and a basket need."""

READ_WITHIN_S = 5.0
"""For one shopper, while nothing else runs. Judged: a hundred times what a busy machine needs."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A source as far as fusion knows it."""

    name: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One query with what is known of who asks."""

    query: Query
    user: UserContext


class Arithmetic:
    """
    Models and catalogue in one process.

    Args:
        generators: source → model, of every source of *settings*.
        now_s: the shop's clock; ages of events count from it.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        generators: Mapping[str, Generator],
        ranker: Ranker,
        now_s: Callable[[], float],
    ) -> None:
        self._settings, self._now_s = settings, now_s
        self._generators, self._ranker = generators, ranker
        self._quotas = {source.name: source.quota for source in settings.sources}
        nobody = cast(Any, None)  # what leaves the process is never asked
        parts = Collaborators(
            sources=[cast(Any, _Named(source.name)) for source in settings.sources],
            reranker=nobody,
            features=nobody,
            slates=nobody,
            catalogue=catalogue,
            guard=Guard(time.monotonic, metrics),
            metrics=metrics,
            monotonic=time.monotonic,
            wall=time.time,
            rng=random.Random(0),  # noqa: S311  # exploration is off by default
        )
        self._pipeline = Pipeline(settings, parts, "bare")

    def slates(self, batch: Sequence[Asked]) -> list[Slate]:
        """Slates of *batch*, with one call of each model."""
        pipeline = self._pipeline
        terms = [pipeline._arrangement.terms(a.query, a.user, pipeline._arrangement.in_force(a.query)) for a in batch]
        shoppers = self._shoppers(batch)
        exclude = Rows.of([forbidden_keys(a.query, a.user) for a in batch])
        within = Rows.of(
            [
                np.empty(0, np.int32) if (keys := pipeline._within(a.query, t.visible)) is None else keys
                for a, t in zip(batch, terms, strict=True)
            ]
        )
        retrieved: list[dict[str, Retrieved]] = [{} for _ in batch]
        for name, generator in self._generators.items():
            counts = np.asarray([max(self._quotas[name], len(a.query.only_keys)) for a in batch], np.int32)
            found = generator.generate(GenerateQueries(counts, shoppers, exclude, within))
            offsets = found.rows.offsets
            for i, into in enumerate(retrieved):
                own = slice(offsets[i], offsets[i + 1])
                into[name] = Retrieved(found.rows.values[own], found.scores[own], generator.version)
        reports = [Report() for _ in batch]
        shown = []
        for a, term, report, got in zip(batch, terms, reports, retrieved, strict=True):
            fused = pipeline._fuse(a.query, got, report)
            shown.append(pipeline._filter(a.query, a.user, fused, term, report))
        ranked = self._ranked(batch, shoppers, shown)
        return [
            pipeline._finish(a.query, a.user, one, term, report)
            for a, one, term, report in zip(batch, ranked, terms, reports, strict=True)
        ]

    def _ranked(self, batch: Sequence[Asked], shoppers: Shoppers, shown: list[Candidates]) -> list[Candidates]:
        """As `Pipeline._rerank`: the head in the re-ranker's order, where it is asked at all."""
        placements, most = self._settings.placements, self._settings.reranker.candidates
        asked = [
            i
            for i, (a, one) in enumerate(zip(batch, shown, strict=True))
            if len(one) and (a.query.only_keys or getattr(placements, a.query.placement.value).rerank)
        ]
        if not asked:
            return shown
        heads = [shown[i].take(np.arange(min(max(most, len(batch[i].query.only_keys)), len(shown[i])))) for i in asked]
        scores = self._ranker.rank(
            RerankQueries(
                shoppers.take(np.asarray(asked)),
                Rows.of([head.keys for head in heads]),
                heads[0].sources,
                np.concatenate([head.source_scores for head in heads]),
                np.concatenate([head.source_ranks for head in heads]),
                np.stack([batch[i].user.numeric for i in asked]),
                np.array([batch[i].user.categorical for i in asked], object).reshape(len(asked), -1),
                self._ranker.feature_digest,
            )
        )
        ranked, at = list(shown), 0
        for i, head in zip(asked, heads, strict=True):
            own = scores[at : at + len(head)].astype(np.float64)
            at += len(head)
            ranked[i] = ordered(shown[i].scored(np.concatenate([own, shown[i].scores[len(head) :]])), len(head))
        return ranked

    def _shoppers(self, batch: Sequence[Asked]) -> Shoppers:
        now_us = int(self._now_s() * 1e6)
        at_us = np.concatenate([a.user.history_at_us for a in batch])
        return Shoppers(
            Rows.of([a.user.history_keys for a in batch]),
            np.concatenate([a.user.history_types for a in batch]),
            (np.maximum(now_us - at_us, 0) / 1e6).astype(np.float32),
            Rows.of([a.query.focus_keys for a in batch]),
            np.asarray([PLACEMENT_CODE[a.query.placement] for a in batch], np.uint8),
        )


class Bare:
    """The arithmetic of one served shop, with its shoppers."""

    def __init__(self, settings: Settings) -> None:
        data = settings.data.path
        popular = artefacts.load(data / "models", "popular")
        keys = popular.arrays("popular.npz")["keys"].astype(np.int32)
        self.catalogue = catalogues.load(data, keys, int(popular.manifest.vocabulary["size"]))
        # Without Redis: the items are those of the artefacts, which nobody has changed since.
        resources = Resources(data)
        generators = {
            source.name: cast(Generator, server.load(source.name, resources, artefacts.CHAMPION).model)
            for source in settings.sources
        }
        ranker = cast(Ranker, server.load(settings.reranker.name, resources, artefacts.CHAMPION).model)
        self._now_s = shop_clock(data, settings.data.clock)
        self._arithmetic = Arithmetic(settings, self.catalogue, generators, ranker, self._now_s)
        self._settings = settings
        self._users: dict[str, UserContext] = {}
        self._asked: dict[str, list[list[Asked]]] = {}
        self._at: dict[tuple[str, int], count[int]] = {}

    def shoppers(self, most: int, seed: int) -> tuple[list[Shopper], int]:
        """Up to *most* users of whom Redis has features and a history, drawn by chance; and how many were looked at."""
        ids = pc.unique(pq.read_table(self._settings.data.path / "events.parquet", columns=["user_id"])["user_id"])
        wanted = [user_id for user_id in ids.to_pylist() if user_id]
        random.Random(seed).shuffle(wanted)  # noqa: S311  # a sample, no secret
        wanted = wanted[: 2 * most]
        found = asyncio.run(self._read(wanted, most))
        self._users = dict(found)
        name = self.catalogue.id_of
        shoppers = []
        for user_id, user in found:
            latest = dict.fromkeys(reversed(user.history_keys.tolist()))
            shoppers.append(Shopper(user_id, tuple(name(key) for key in list(latest)[:ITEMS_SHOWN])[::-1]))
        return shoppers, len(wanted)

    async def _read(self, user_ids: Sequence[str], most: int) -> list[tuple[str, UserContext]]:
        """Users in order until *most* have both features and a history."""
        data, name = self._settings.data.path, self._settings.reranker.name
        artefact = artefacts.load(data / "models", name)
        features = artefact.manifest.features or {"plan": "read_plan.json"}
        reader = FeastRedisReader(ReadPlan.load(artefact.file(features["plan"])), self._settings.redis.url)
        await reader.start()
        try:
            users = RedisUserReader(reader, self._now_s)
            found: list[tuple[str, UserContext]] = []
            for user_id in user_ids:
                query = recommendation_query(
                    schemas.RecommendationRequest(placement="home", user_id=user_id),
                    Resolver(self.catalogue),
                    self._settings.edge,
                )
                async with asyncio.timeout(READ_WITHIN_S):
                    user = await users.read(query, READ_WITHIN_S)
                knows = np.isfinite(user.numeric).any() or any(user.categorical)
                if len(user.history_keys) and (knows or not users.n_numeric + users.n_categorical):
                    found.append((user_id, user))
                if len(found) == most:
                    break
            return found
        finally:
            await reader.close()

    def take(self, kind: str, units: Sequence[Unit]) -> int:
        """Read *units* as the edge would; how many queries they are."""
        self._asked[kind] = [[self._query(path, body) for path, body in unit] for unit in units]
        return sum(len(unit) for unit in self._asked[kind])

    def _query(self, path: str, body: str) -> Asked:
        resolver, limits = Resolver(self.catalogue), self._settings.edge
        query = (
            ranking_query(schemas.RankingRequest.model_validate_json(body), resolver, limits)
            if path == RANKINGS
            else recommendation_query(schemas.RecommendationRequest.model_validate_json(body), resolver, limits)
        )
        return Asked(query, self._users[query.user_id or ""])

    def measure(self, kind: str, batch: int, seconds: float) -> tuple[int, float]:
        """
        Answer units of *kind* for *seconds*, *batch* queries a call; each call goes on where the one before ended.

        Returns:
            units answered, and the CPU seconds they took.
        """
        units, position = self._asked[kind], self._at.setdefault((kind, batch), count())
        done, ends = 0, time.monotonic() + seconds
        began = time.process_time()
        while time.monotonic() < ends:
            # Whole units, so that a page is never cut: 32 queries are ten pages of three.
            some = [units[next(position) % len(units)] for _ in range(max(1, batch // len(units[0])))]
            queries = [asked for unit in some for asked in unit]
            for start in range(0, len(queries), batch):
                self._arithmetic.slates(queries[start : start + batch])
            done += len(some)
        return done, time.process_time() - began

    def slates(self, kind: str, n: int) -> list[list[str]]:
        """Item ids of the slates of the first *n* units of *kind*, request by request."""
        asked = [one for unit in self._asked[kind][:n] for one in unit]
        return [[self.catalogue.id_of(item.key) for item in self._arithmetic.slates([one])[0].items] for one in asked]


def _answer(bare: Bare, order: Mapping[str, Any]) -> dict[str, Any]:
    match order["do"]:
        case "shoppers":
            shoppers, looked_at = bare.shoppers(order["most"], order["seed"])
            catalogue = bare.catalogue
            listed = [catalogue.id_of(int(key)) for key in catalogue.popular]
            return {
                "shoppers": [[one.user_id, list(one.items)] for one in shoppers],
                "looked_at": looked_at,
                "items": listed,
            }
        case "take":
            return {"queries": bare.take(order["kind"], order["units"])}
        case "measure":
            units, cpu_s = bare.measure(order["kind"], order["batch"], order["seconds"])
            return {"units": units, "cpu_s": cpu_s}
        case "slates":
            return {"slates": bare.slates(order["kind"], order["n"])}
        case unknown:
            raise ValueError(f"found {unknown!r}; orders are shoppers, take, measure and slates")


def main() -> int:
    """Answer orders until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m services.bench.bare", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="settings of a running system")
    bare = Bare(tree.load(parser.parse_args().settings))
    for line in sys.stdin:
        print(json.dumps(_answer(bare, json.loads(line))), flush=True)  # noqa: T201  # the driver reads it
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
