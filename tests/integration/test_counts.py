"""
What each kind of request costs outside the process, as numbers that may not grow unseen.

The whole orchestrator behind its HTTP edge, a real Redis, a real gRPC server around constant models. A number that
changes is a decision: change the table in the same commit, and say why. One that became smaller is to be written down,
too, or it comes back.
"""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
import redis

from orchestrator import bootstrap
from orchestrator import settings as tree
from orchestrator.adapters import redis_client
from orchestrator.adapters.coalescer import Coalescer, alone
from orchestrator.adapters.feast_reader import FeastRedisReader
from orchestrator.adapters.grpc_channel import open_channel
from orchestrator.adapters.grpc_reranker import GrpcReranker
from orchestrator.adapters.grpc_sources import GrpcSource
from orchestrator.adapters.user_reader import RedisUserReader
from orchestrator.bootstrap import Overrides
from orchestrator.core.coalescing import Lane, LanePolicy
from orchestrator.edge.app import create_app
from orchestrator.telemetry import new_metrics
from protos.feast_cells import cell, moment
from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan
from protos.history import encode_entries, history_key, shown_key, watermark_key
from protos.tutti.v1 import candidate_generation_pb2, common_pb2
from tests.support.builders import IMPRESSION, PURCHASE
from tests.support.counting import Counts, FeatureMessages, RedisWrites, commands_in, messages_in
from tests.support.model_server import Toy, serving
from tests.support.worlds import a_catalogue

pytestmark = pytest.mark.integration

VIEWS = (
    ViewPlan("taste", 0.0, (("age", "FLOAT"), ("n", "INT64"), ("word", "STRING"))),
    ViewPlan("habit", 3600.0, (("mean", "DOUBLE"), ("often", "STRING"))),
)
PLAN = ReadPlan(
    "reranking_v1",
    EntityPlan("tutti", "user_id", "STRING", VIEWS),
    EntityPlan("tutti", "item_id", "STRING", ()),
)
CELLS = (*map(cell, (1.5, 700, "red"), ("FLOAT", "INT64", "STRING")), *map(cell, (2.5, "often"), ("DOUBLE", "STRING")))

STEADY = {
    # What would call once more, or once less, by chance or on a slow machine: hedges, retries and the ladder; the
    # exercise of fallbacks; the log of slates, written when it has some; budgets.
    "TUTTI_GUARD__ENABLED": "false",
    "TUTTI_ADMISSION__ENABLED": "false",
    "TUTTI_LADDER__EXERCISE_SHARE": "0",
    "TUTTI_LOG__SLATES_SHARE": "0",
    "TUTTI_BUDGET__TOTAL_MS": "30000",
    **{f"TUTTI_STAGES__{stage}__CAP_MS": "5000" for stage in ("CACHE", "USER", "RETRIEVE", "RERANK")},
    **{f"TUTTI_STAGES__{stage}__RESERVE_AFTER_MS": "0" for stage in ("CACHE", "USER", "RETRIEVE", "RERANK")},
    # Events go over a pool of redis-py's; a connection that is opened costs commands of its own, so there is one, and
    # `watched` lets them wait for it.
    "TUTTI_REDIS__MAX_CONNECTIONS": "1",
    "TUTTI_REDIS__CONNECT_TIMEOUT_MS": "5000",
    "TUTTI_REDIS__EVENT_TIMEOUT_MS": "30000",
    "TUTTI_DATA__CLOCK": "wall",
}

N_EVENTS = 12


def shelf(placement, user="u1", **context):
    return "/v1/recommendations", {"placement": placement, "user_id": user, "count": 5, "context": context}


def unnamed(body):
    return {name: value for name, value in body.items() if name != "user_id"}


def events(n=N_EVENTS, user="u1"):
    about = {"event_type": "impression", "user_id": user, "recommendation_id": "r"}
    told = [{"event_id": f"{user}-{i}", "item_id": f"i{i:02d}", "position": i + 1, **about} for i in range(n)]
    return "/v1/events", {"events": told}


HOME, ITEM, CART = shelf("home"), shelf("item", item_ids=["i03"]), shelf("cart", cart_item_ids=["i03", "i05"])
PAGE = "/v1/pages", {"user_id": "u1", "placements": [unnamed(body) for _, body in (HOME, ITEM, CART)]}
RANKING = "/v1/rankings", {"item_ids": [f"i{i:02d}" for i in range(20)], "user_id": "u1"}

# What is asked before and not counted, what is asked, and what that costs.
SEQUENTIAL = {
    #                    asked before, asked, generates, reranks, Redis writes, Redis commands, messages
    "home, uncached": ([], [HOME], Counts(2, 1, 3, 7, 21)),
    "home, cached": ([HOME], [HOME], Counts(0, 0, 1, 2, 0)),
    "home of a stranger": ([], [shelf("home", "nobody-knows")], Counts(2, 0, 3, 7, 14)),
    "item": ([], [ITEM], Counts(2, 0, 3, 7, 15)),
    "cart": ([], [CART], Counts(2, 0, 3, 7, 15)),
    # Asked at once, so that look-ups share a write, and so do reads of features; fills share one when they are lucky.
    "three shelves, each asked for": ([], [HOME, ITEM, CART], Counts(6, 1, 5, 21, 49)),
    "ranking": ([], [RANKING], Counts(2, 1, 3, 7, 23)),
    "a batch of events": ([], [events()], Counts(0, 0, 2, 14, 0)),
}

# The same of a page in one request, with calls joined: one call a model whatever the shelves, the shopper once; a
# look-up and a fill for each shelf, which leave in one write each.
PAGES = {
    "a page of three shelves": ([], [PAGE], Counts(2, 1, 3, 13, 21)),
    "the page again, cached": ([PAGE], [PAGE], Counts(0, 0, 1, 6, 0)),
    "the page, its first shelf cached": ([HOME], [PAGE], Counts(2, 0, 3, 12, 14)),
}

N_AT_ONCE = 32

# The same of 32 different shoppers at once: at most this. No question is joined with another's: 32 times the table
# above, but for the one moment that all their features are of, which is read once. What is asked of Redis in one turn
# of the loop leaves in one write: all look-ups, all reads of features; each slate is stored when it is made.
AT_ONCE = {
    "home, uncached": (lambda user: shelf("home", user), Counts(64, 32, 34, 224, 641)),
    "item": (lambda user: shelf("item", user, item_ids=["i03"]), Counts(64, 0, 34, 224, 449)),
    "a batch of events": (lambda user: events(user=user), Counts(0, 0, 64, 448, 0)),
}


class Watched:
    """A running orchestrator and everything it does outside."""

    def __init__(self, client, running, toy, replies, url, monkeypatch) -> None:
        self._client, self._running, self._toy, self._replies = client, running, toy, replies
        self._redis = redis.Redis.from_url(url)
        self._writes = RedisWrites(monkeypatch, int(url.rpartition(":")[2].partition("/")[0]))
        self._features = FeatureMessages(monkeypatch)

    def know(self, *users):
        """Features of both views, ten purchases, five impressions."""
        now_us = int(time.time() * 1e6)
        for user in users:
            cells = [*CELLS[:3], moment(now_us), *CELLS[3:], moment(now_us)]
            self._redis.hset(PLAN.user.redis_key(user), mapping=dict(zip(PLAN.user.fields, cells, strict=True)))
            for key, type_code, n in (
                (history_key(f"u:{user}"), PURCHASE, 10),
                (shown_key(f"u:{user}"), IMPRESSION, 5),
            ):
                self._redis.lpush(key, *encode_entries(range(n), [type_code] * n, [now_us] * n))
            self._redis.set(watermark_key(f"u:{user}"), 15)

    async def ask(self, *requests):
        """All at once, and what goes on behind the answers to its end; each answered well."""
        answers = await asyncio.gather(*(self._client.post(path, json=body) for path, body in requests))
        assert {answer.status_code for answer in answers} <= {200, 202}, [answer.text for answer in answers]
        await self._running.pipeline.drain()
        return [answer.json() for answer in answers]

    async def count(self, *requests):
        self._toy.requests.clear()
        self._replies.clear()
        writes, commands, features = self._writes.n, self._writes.n_commands, self._features.n
        answers = await self.ask(*requests)
        asked = self._toy.requests
        generates = sum(isinstance(one, candidate_generation_pb2.GenerateRequest) for one in asked)
        on_the_wire = sum(messages_in(one) for one in (*asked, *self._replies))
        return answers, Counts(
            generates,
            len(asked) - generates,
            self._writes.n - writes,
            self._writes.n_commands - commands,
            on_the_wire + self._features.n - features,
        )


@pytest.fixture
async def watched(redis_url, tmp_path, monkeypatch):
    """Every query a call of its own: what requests at once save by sharing calls depends on the moment."""
    async with an_orchestrator(redis_url, tmp_path, monkeypatch, alone) as one:
        yield one


@pytest.fixture
async def joined(redis_url, tmp_path, monkeypatch):
    """Calls are joined, as served, but for batches that are cut or overtaken on a machine that is slow."""
    patient = LanePolicy(first_late_s=5.0, latest_s=5.0, longest_s=5.0)
    async with an_orchestrator(
        redis_url, tmp_path, monkeypatch, lambda method: Coalescer(method, Lane(patient))
    ) as one:
        yield one


@asynccontextmanager
async def an_orchestrator(redis_url, tmp_path, monkeypatch, joining):
    monkeypatch.setattr(redis_client, "POOL_WAIT_S", 30.0)
    toy, replies = Toy(), []
    toy.bend = lambda reply: replies.append(reply) or reply
    environment = {**STEADY, "TUTTI_DATA__PATH": str(tmp_path), "TUTTI_REDIS__URL": redis_url}
    settings = tree.load(None, environment)
    catalogue = a_catalogue()
    async with serving(toy) as target, open_channel(target) as channel:
        reader = FeastRedisReader(PLAN, redis_url)
        await reader.start()
        overrides = Overrides(
            sources=tuple(
                GrpcSource(source.name, [channel], lambda: catalogue.size, "vocabulary-1", time.time, joining)
                for source in settings.sources
            ),
            reranker=GrpcReranker([channel], PLAN.digest, time.time, joining),
            features=RedisUserReader(reader, time.time),
            catalogue=catalogue,
            metrics=new_metrics(),
        )

        @asynccontextmanager
        async def start(_):
            async with bootstrap.run(settings, overrides) as running:
                yield running

        app = create_app(settings, start)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
        ):
            one = Watched(client, app.state.running, toy, replies, redis_url, monkeypatch)
            yield one
        await reader.close()


async def the_cost_of(watched, before, requests):
    """Of *requests* of a shopper with features and a history, once *before* was asked; nothing may be lost."""
    watched.know("u1")
    # Connections are opened by whoever comes first; that is nobody's cost here.
    await watched.ask(*([shelf("home", "somebody-else")] * 2), events(1, "somebody-else"))
    if before:
        await watched.ask(*before)
    answers, found = await watched.count(*requests)
    slates = [slate for answer in answers for slate in answer.get("slates", [answer]) if "quality" in slate]
    assert all(slate["quality"]["degraded"] == [] for slate in slates)
    return found


@pytest.mark.parametrize("name", SEQUENTIAL)
async def test_a_request_costs_what_the_table_says(watched, name):
    before, requests, expected = SEQUENTIAL[name]

    found = await the_cost_of(watched, before, requests)

    if len(requests) > 1:
        assert found.redis_writes <= expected.redis_writes
        expected = replace(expected, redis_writes=found.redis_writes)
    assert found == expected, f"{name} costs {found} now; the table says {expected}"


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_costs_what_the_table_says(joined, name):
    before, requests, expected = PAGES[name]

    found = await the_cost_of(joined, before, requests)

    assert found == expected, f"{name} costs {found} now; the table says {expected}"


@pytest.mark.parametrize("name", AT_ONCE)
async def test_requests_at_once_cost_at_most_what_the_table_says(watched, name):
    ask, most = AT_ONCE[name]
    users = [f"u{i}" for i in range(N_AT_ONCE)]
    watched.know(*users)
    await watched.ask(*(request for i in range(N_AT_ONCE) for request in (shelf("home", f"w{i}"), events(1, f"w{i}"))))

    answers, found = await watched.count(*map(ask, users))

    assert all(answer["quality"]["degraded"] == [] for answer in answers if "quality" in answer)
    for kind in Counts.__slots__:
        assert getattr(found, kind) <= getattr(most, kind), f"{name}: {found}; the table allows {most}"


def test_messages_are_counted_with_those_inside_them():
    rows = common_pb2.Rows(values=b"1234")
    flat = candidate_generation_pb2.GenerateRequest(queries=1)
    nested = candidate_generation_pb2.GenerateRequest(shoppers=common_pb2.Shoppers(history=rows), exclude=rows)

    assert (messages_in(flat), messages_in(nested)) == (1, 4)


def test_commands_are_counted_however_they_were_put_together():
    assert commands_in(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n") == 2
    assert commands_in([b"*1\r\n", b"$4\r\nPING\r\n"]) == 1
