"""
The functions that every request goes through, at the sizes of the defaults.

`make benchmark` measures them; in the suite each runs once, and its answer is looked at, so that none rots. Hold a
figure against the same function of another revision on the same machine, never against another machine's.
"""

import random
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import orjson
import pytest

from orchestrator.adapters import redis_slates
from orchestrator.adapters.grpc_reranker import Question, request_of
from orchestrator.adapters.wire import shoppers_of
from orchestrator.core.dependency import Dependency, Policy
from orchestrator.core.filters import eligible
from orchestrator.core.fusion import fuse
from orchestrator.core.likeness import marks_of
from orchestrator.core.model import Diversity, Facts, Placement, Query
from orchestrator.core.report import keys_of
from orchestrator.core.selection import ordered, slots
from orchestrator.core.slate_cache import Entry
from orchestrator.core.spread import WEIGHTS, Caps, spread
from orchestrator.edge.encode import ItemWords, slate_body
from orchestrator.edge.parse import check
from orchestrator.edge.receive_events import judge
from orchestrator.edge.schemas import RecommendationRequest
from protos.arrays import Rows, pack_lists, pack_rows, unpack, unpack_rows
from protos.history import columns
from protos.tutti.v1 import candidate_generation_pb2, reranking_pb2
from tests.benchmarks import sizes

QUERY = Query("b1946ac92492d2347c6235b4d2611184", Placement.HOME, sizes.SHELF, user_id="12583", exclude_keys=(3, 5))


@pytest.fixture(scope="module")
def fused():
    return fuse(sizes.proposals(), list(sizes.QUOTAS), sizes.WEIGHTS, "z_score")


@pytest.fixture(scope="module")
def catalogue(fused):
    return sizes.catalogue_of(fused)


@pytest.fixture(scope="module")
def slate(fused):
    return sizes.a_slate(fused)


@pytest.mark.parametrize("method", ["z_score", "reciprocal_rank"])
def test_fuse(benchmark, method):
    found = benchmark(fuse, sizes.proposals(), list(sizes.QUOTAS), sizes.WEIGHTS, method)

    assert len(found) == 300
    assert (np.diff(found.scores) <= 0).all()


def test_eligible(benchmark, fused):
    n = len(fused)
    facts = Facts(np.arange(n) % 9 != 0, np.full(n, 9.99, np.float32), np.zeros(n, np.int32))
    allowed = np.arange(sizes.N_ITEMS) % 3 != 0

    kept, removed = benchmark(eligible, QUERY, sizes.a_shopper(), fused, facts, allowed)

    assert len(kept) + sum(n for _, n in removed) == n
    assert 0 < len(kept) < n


def test_order_by_the_rerankers_scores(benchmark, fused):
    scored = fused.scored(np.sin(np.arange(len(fused))))

    found = benchmark(ordered, scored)

    assert (np.diff(found.scores) <= 0).all()


def test_slots(benchmark, fused):
    head = fused.take(np.arange(sizes.SHELF + sizes.POOL))

    found = benchmark(slots, head)

    assert [item.key for item in found] == head.keys.tolist()


@pytest.mark.parametrize("diversity", [Diversity.LOW, Diversity.HIGH], ids=lambda one: one.name.lower())
def test_spread(benchmark, fused, diversity):
    n = len(fused)
    kinds = np.stack([np.arange(n) % 40, np.arange(n) % 25, np.full(n, -1)], axis=1).astype(np.int32)
    titles = [f"red mug number {i % 30} of {i % 7}" for i in range(n)]
    paths = [f"Home > Kitchen > {i % 40}" for i in range(n)]
    marks = marks_of(titles, paths, [f"b{i % 25}" for i in range(n)], np.linspace(1, 90, n).astype(np.float32))

    found = benchmark(spread, n, sizes.SHELF, Caps(category=2), kinds, WEIGHTS[diversity], marks)

    assert len(found.chosen) + len(found.reserve) == n
    assert np.unique(kinds[found.chosen, 0], return_counts=True)[1].max() <= 2


def test_decode_features(benchmark):
    cells = sizes.user_cells()

    found = benchmark(sizes.USER_PLAN.decode_one, cells, sizes.NOW_US / 1e6)

    assert found.found
    assert found.numeric.shape == (17,)
    assert found.categorical == ("Home > Kitchen > Mugs",) * 3


def test_decode_history(benchmark):
    done, shown = sizes.entries(), sizes.entries(60)

    keys, types, at_us = benchmark(columns, done, shown)

    assert len(keys) == len(types) == 260
    assert (np.diff(at_us) >= 0).all()


def test_pack_a_question_for_a_source(benchmark):
    shopper = sizes.a_shopper()

    def pack():
        return candidate_generation_pb2.GenerateRequest(
            queries=1,
            counts=np.asarray([300], "<i4").tobytes(),
            shoppers=shoppers_of([(QUERY, shopper)], time.time()),
            exclude=pack_lists([QUERY.exclude_keys]),
            vocabulary_digest="v1",
        ).SerializeToString()

    raw = benchmark(pack)

    assert unpack_rows(candidate_generation_pb2.GenerateRequest.FromString(raw).exclude, 1, "exclude").row(0)[1] == 5


def test_unpack_a_sources_answer(benchmark):
    proposed = sizes.proposals()["collaborative_filtering"]
    raw = candidate_generation_pb2.GenerateReply(
        candidates=pack_rows(Rows.of([proposed.keys])), scores=proposed.scores.tobytes(), model_version="v1"
    ).SerializeToString()

    def read():
        reply = candidate_generation_pb2.GenerateReply.FromString(raw)
        keys = unpack_rows(reply.candidates, 1, "candidates").values
        return keys, unpack(reply.scores, "<f4", (len(keys),), "scores")

    keys, scores = benchmark(read)

    assert keys.tolist() == proposed.keys.tolist()
    assert scores.tolist() == proposed.scores.tolist()


def test_pack_a_question_for_the_reranker(benchmark, fused):
    shopper = sizes.a_shopper()

    raw = benchmark(lambda: request_of([Question(QUERY, shopper, fused)], "digest", time.time()).SerializeToString())

    asked = reranking_pb2.RerankRequest.FromString(raw)
    assert unpack_rows(asked.candidates, 1, "candidates").values.tolist() == fused.keys.tolist()


def test_encode_a_slate_for_the_cache(benchmark, slate):
    entry = Entry(slate, 30.0, 100.0, 1000.0, 0.02)

    stored = benchmark(redis_slates.encode, entry)

    assert redis_slates.decode(stored) == entry


def test_decode_a_slate_from_the_cache(benchmark, slate):
    entry = Entry(slate, 30.0, 100.0, 1000.0, 0.02)
    stored = redis_slates.encode(entry)

    found = benchmark(redis_slates.decode, stored)

    assert found == entry


def test_encode_an_answer(benchmark, slate, catalogue):
    body = benchmark(slate_body, QUERY, slate, ItemWords(catalogue), ("gone-1",), 12.5)

    answer = orjson.loads(body)
    assert [item["id"] for item in answer["items"]] == [f"item-{item.key}" for item in slate.items]
    assert answer["missing_item_ids"] == ["gone-1"]


def test_parse_a_request(benchmark):
    about = {"placement": "home", "user_id": "12583", "session_id": "s-1", "count": 12}
    body = orjson.dumps({**about, "filter": {"categories": ["Home > Kitchen"], "price_max": 20.0}})

    found = benchmark(lambda: check(RecommendationRequest, orjson.loads(body)))

    assert (found.user_id, found.count, found.filter.price_max) == ("12583", 12, 20.0)


def test_parse_a_batch_of_events(benchmark, catalogue):
    about = {"event_type": "impression", "user_id": "12583", "session_id": "s-1", "recommendation_id": "r-1"}
    told = [{"event_id": f"e-{i}", "item_id": f"item-{i}", "position": i + 1, **about} for i in range(sizes.BATCH)]
    body = orjson.dumps({"events": told})

    events, rejected = benchmark(lambda: judge(orjson.loads(body)["events"], catalogue, sizes.NOW_US))

    assert [event.key for event in events] == list(range(sizes.BATCH))
    assert rejected == []


def test_a_permit_of_breaker_and_limiter_and_back(benchmark):
    dependency = Dependency("cf", Policy(0.04, 1), random.Random(1))
    clock = SimpleNamespace(now=0.0)

    def cycle():
        clock.now += 0.001
        return dependency.begin(clock.now, 0.036).end(clock.now + 0.005, None)

    benchmark(cycle)

    assert dependency.limiter.in_flight == 0
    assert dependency.breaker.n_in_flight == 0


def test_a_remembered_slate_from_stored_bytes_to_the_answer(benchmark, slate, catalogue):
    stored = redis_slates.encode(Entry(replace(slate, pool=(), stages_ms=()), 30.0, 100.0, 1000.0, 0.02))
    words = ItemWords(catalogue)

    def serve():
        found = redis_slates.decode(stored).slate
        assert catalogue.are_in_stock(keys_of(found.items))
        shown = found.recalled(found.level, found.rung, (("look_up", 0.4),))
        return slate_body(QUERY, shown, words, (), 0.5)

    body = benchmark(serve)

    answer = orjson.loads(body)
    assert [item["id"] for item in answer["items"]] == [f"item-{item.key}" for item in slate.items]
    assert answer["quality"]["from_cache"]
