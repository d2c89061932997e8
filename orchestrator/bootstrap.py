"""
Settings → adapters → Pipeline, on one exit stack; the only place that knows which adapter stands behind a port.

Tests pass overrides instead of patching. Nothing here decides anything about a request.

    NotReady   the data directory cannot be served; the message says what to run
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from redis.asyncio import Redis

from orchestrator.adapters import catalogue as catalogues
from orchestrator.adapters import redis_client
from orchestrator.adapters.catalogue_mirror import CatalogueMirror
from orchestrator.adapters.coalescer import Asks, Coalescer, Joining, Method, alone
from orchestrator.adapters.event_loop import LoopWatch
from orchestrator.adapters.feast_reader import FeastRedisReader
from orchestrator.adapters.grpc_channel import is_ready, open_channel
from orchestrator.adapters.grpc_reranker import GrpcReranker
from orchestrator.adapters.grpc_sources import GrpcSource
from orchestrator.adapters.kafka_events import KafkaEvents
from orchestrator.adapters.kafka_producer import KafkaProducer
from orchestrator.adapters.redis_events import RedisEvents
from orchestrator.adapters.redis_items import RedisItems
from orchestrator.adapters.redis_people import RedisPeople
from orchestrator.adapters.redis_pipeline import Address, RedisPipeline
from orchestrator.adapters.redis_slate_log import RedisSlateLog
from orchestrator.adapters.redis_slates import RedisSlates
from orchestrator.adapters.rules_file import RulesError, RulesFile, bound
from orchestrator.adapters.shop_clock import shop_clock
from orchestrator.adapters.user_reader import RedisUserReader
from orchestrator.core.coalescing import Lane, LanePolicy
from orchestrator.core.model import Diversity, Level, Placement, Query
from orchestrator.core.rules import NO_RULES, Rule, Rulebook
from orchestrator.degradation import Degradation
from orchestrator.guard import Guard
from orchestrator.page import Pages
from orchestrator.pipeline import Collaborators
from orchestrator.ports import (
    CandidateSource,
    Catalogue,
    DependencyError,
    EventLog,
    FeatureReader,
    ItemStore,
    People,
    Reranker,
    SlateCache,
    SlateLog,
)
from orchestrator.settings import Replicas, RulesSettings, Settings
from orchestrator.telemetry import Metrics, log, metrics
from protos import artefacts, event_topic
from protos.feast_layout import ReadPlan

ARM = "champion"
"""The one arm every query is assigned to until experiments exist."""

COLLECT_AFTER = 10_000
"""New objects after which those of them are looked through that may hold each other. A request leaves none such behind
(test_cost.py), and Python's 700 are three requests. Judged: 10,000 take half a millisecond to look through."""

CONNECT_WITHIN_S = 2.0
"""Longest wait at start for a model service; one that is not there yet is a loss later, not a reason to wait."""


class NotReady(Exception):
    """The data directory lacks what serving needs."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """Adapters to use instead of the real ones; what is None is built from the settings."""

    sources: tuple[CandidateSource, ...] | None = None
    reranker: Reranker | None = None
    features: FeatureReader | None = None
    slates: SlateCache | None = None
    slate_log: SlateLog | None = None
    events: EventLog | None = None
    people: People | None = None
    catalogue: Catalogue | None = None
    items: ItemStore | None = None
    metrics: Metrics | None = None
    rng: random.Random | None = None


@dataclass(slots=True)
class Running:
    """
    A running orchestrator, as the edge and the batch command see it.

    is_draining: the process was told to stop; who asks is still answered, but should go elsewhere next.
    shop_now: the shop's clock, seconds since the epoch; not ours where old data is served.
    """

    settings: Settings
    pipeline: Pages
    catalogue: Catalogue
    events: EventLog
    channels: Mapping[str, Sequence[grpc.aio.Channel]] = field(default_factory=dict)
    is_ready: bool = False
    is_draining: bool = False
    loop: LoopWatch = field(default_factory=LoopWatch)
    items: ItemStore | None = None
    people: People = field(kw_only=True)
    shop_now: Callable[[], float] = time.time

    async def checks(self) -> dict[str, str]:
        """Dependency → "ok", or why it is not. Only `popular` gates readiness: slates go out without the rest."""
        found = {"popular": "ok" if len(self.catalogue.popular) else "no item may be shown"}
        for name, channels in self.channels.items():
            for replica, channel in enumerate(channels):
                state = channel.get_state(try_to_connect=True)
                place = name if len(channels) == 1 else f"{name}:{replica}"
                found[place] = "ok" if state is grpc.ChannelConnectivity.READY else state.name.lower()
        try:
            await self.events.watermark("u:")
            found["redis"] = "ok"
        except DependencyError as error:
            found["redis"] = error.loss.value
            return found
        try:
            found["events"] = await self.events.durability()
        except DependencyError as error:
            found["events"] = f"{error.loss.value}: {error}"
        return found


@asynccontextmanager
async def run(settings: Settings, overrides: Overrides | None = None) -> AsyncIterator[Running]:
    """
    Build everything, check that the last rung answers, yield it, and take it down again.

    Raises:
        NotReady: no vocabulary, items or models in the data directory, or nothing to show at all.
    """
    given = overrides or Overrides()
    async with AsyncExitStack() as stack:
        data = settings.data.path
        now = shop_clock(data, settings.data.clock)
        told = given.metrics or metrics
        catalogue = given.catalogue or await _live_catalogue(stack, data, settings.redis.url, told)
        loop = LoopWatch(told)
        stack.callback(loop.stop)
        guard = Guard(
            time.monotonic,
            told,
            protects=settings.guard.enabled,
            max_in_flight=settings.guard.max_in_flight,
            stalled_s=loop.stalled_s,
        )
        channels: dict[str, list[grpc.aio.Channel]] = {}
        redis = redis_client.connect(settings.redis)
        stack.push_async_callback(redis.aclose)
        plan = _read_plan(data, settings.reranker.name) if given.features is None or given.reranker is None else None
        written = None if given.slates is not None else await _slate_log(stack, settings, plan, catalogue, now, told)
        parts = Collaborators(
            sources=given.sources
            or tuple(
                GrpcSource(
                    source.name,
                    _channels(stack, channels, source.name, source.targets),
                    lambda: catalogue.size,
                    catalogue.digest,
                    now,
                    _joining(settings, source.name, told),
                )
                for source in settings.sources
            ),
            reranker=given.reranker
            or GrpcReranker(
                _channels(stack, channels, settings.reranker.name, settings.reranker.targets),
                plan.digest if plan is not None else "",
                now,
                _joining(settings, settings.reranker.name, told),
            ),
            features=given.features or await _user_reader(stack, plan, settings.redis.url, now),
            slates=given.slates or await _slates(stack, settings.redis.url),
            catalogue=catalogue,
            guard=guard,
            metrics=told,
            # Not the loop's clock: uvloop's stands still within one turn and counts whole milliseconds.
            monotonic=time.monotonic,
            wall=time.time,
            rng=given.rng or random.Random(),  # noqa: S311  # jitter and exploration, no secret
            rulebook=_rulebook(stack, settings.rules, catalogue, plan, told),
            slate_log=given.slate_log or written,
        )
        _know_dependencies(guard, settings, channels)
        pipeline = Pages(settings, parts, _made_by(settings, catalogue))
        stack.push_async_callback(pipeline.drain)
        events = given.events or _events(stack, redis, settings)
        running = Running(
            settings,
            pipeline,
            catalogue,
            events,
            channels,
            loop=loop,
            items=given.items or RedisItems(redis),
            people=given.people or RedisPeople(redis, plan, settings.retention),
            shop_now=now,
        )
        await _warm_up(running)
        if written is not None:
            written.start()
        await _say_how_durable(events)
        # Not before: loading and the full collection of the warm-up are stalls that nobody waits for.
        loop.start()
        if settings.guard.enabled:
            # A batch is to give the same whatever the load: no controller narrows it.
            degradation = Degradation(settings, pipeline, guard, told, time.monotonic, lambda: loop.lag.smoothed_s)
            observer = asyncio.create_task(degradation.keep_observing(), name="degradation")
            observer.add_done_callback(partial(_tell_if_it_failed, "ladder_stands_still"))
            stack.callback(observer.cancel)
        yield running
        running.is_ready = False


def _tell_if_it_failed(event: str, task: asyncio.Task[None]) -> None:
    """A bug in what observes or looks leaves things as they are; nobody would hear of it before the end."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error(event, exc_info=error)


def _events(stack: AsyncExitStack, redis: Redis, settings: Settings) -> EventLog:
    """The event log of the broker that the settings name."""
    about = settings.events.kafka
    if settings.events.broker == "redis":
        return RedisEvents(redis, settings.events, settings.retention)
    try:
        producer = KafkaProducer(
            about.bootstrap_servers,
            about.topic,
            "all" if about.acks == "all" else "1",
            about.timeout_ms / 1000,
            event_topic.properties(about.file),
        )
    except event_topic.TopicUnusable as error:
        raise NotReady(f"events.broker is kafka: {error}") from error
    stack.push_async_callback(producer.close)
    state = RedisEvents(redis, settings.events, settings.retention, is_log=False)
    return KafkaEvents(producer, state, about.acks)


async def _warm_up(running: Running) -> None:
    """Connect, answer one query of each kind, freeze what start-up allocated; then say ready."""
    await asyncio.gather(*(_connected(channel) for channels in running.channels.values() for channel in channels))
    some_keys = tuple(int(key) for key in running.catalogue.popular[:2])
    for query in (
        Query("warm-up", Placement.HOME, 10),
        # Explained, so that it is computed: a worker before this one may have left its answer in the cache.
        # Spread, so that what that needs is there before somebody waits for it.
        Query(
            "warm-up",
            Placement.ITEM,
            10,
            user_id="",
            context_keys=some_keys[:1],
            diversity=Diversity.HIGH,
            explain=True,
        ),
    ):
        slate = await running.pipeline.recommend(query)
    popular = Query("self-test", Placement.HOME, 1)
    slate = await running.pipeline.recommend(popular)
    if not slate.items:
        raise NotReady(f"not even popular items can be shown (level {Level.POPULAR.value}); is every item sold out?")
    # A full collection with everything imported takes 90 ms; frozen objects are never looked at again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    running.is_ready = True
    log.info("ready", items=running.catalogue.size, sources=[source.name for source in running.settings.sources])


async def _say_how_durable(events: EventLog) -> None:
    try:
        found = await events.durability()
    except DependencyError:
        return  # a Redis that is away is told of by /readyz and by every batch
    if found != "ok":
        log.warning("events_not_durable", reason=found)


async def _connected(channel: grpc.aio.Channel) -> None:
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            await channel.channel_ready()
    except TimeoutError:
        log.warning("not_connected", within_s=CONNECT_WITHIN_S)


def _channels(
    stack: AsyncExitStack, channels: dict[str, list[grpc.aio.Channel]], name: str, targets: Mapping[str, Replicas]
) -> list[grpc.aio.Channel]:
    """One channel for each replica of *name*."""
    addresses = targets.get(ARM, ())
    if not addresses:
        raise NotReady(f"{name} has no address: give it targets.{ARM} in the settings, or start it with `tutti up`")
    opened = channels[name] = [open_channel(address) for address in addresses]
    for channel in opened:
        stack.push_async_callback(channel.close)
    return opened


def _know_dependencies(guard: Guard, settings: Settings, opened: Mapping[str, Sequence[grpc.aio.Channel]]) -> None:
    """Tell the guard which replicas each dependency has, and how to see whether one is up."""
    caps_s = _caps_s(settings)
    for name, channels in opened.items():
        guard.dependency(name, caps_s[name], len(channels), partial(_is_up, channels))


def _caps_s(settings: Settings) -> dict[str, float]:
    """Model service → the longest a call to it may ever take."""
    caps_s = {source.name: settings.stages.retrieve.cap_ms / 1000 * source.share for source in settings.sources}
    caps_s[settings.reranker.name] = settings.stages.rerank.cap_ms / 1000
    return caps_s


def _joining(settings: Settings, name: str, told: Metrics) -> Joining[Any, Any]:
    """Whether what concurrent requests ask of *name* shares a call."""
    if not settings.coalesce:
        return alone
    policy, observe = LanePolicy.of_cap(_caps_s(settings)[name]), told.batch_queries.labels(name).observe

    def joined(method: Method[Any, Any]) -> Asks[Any, Any]:
        return Coalescer(method, Lane(policy), observe)

    return joined


def _is_up(channels: Sequence[grpc.aio.Channel], replica: int) -> bool:
    return is_ready(channels[replica])


async def _user_reader(
    stack: AsyncExitStack, plan: ReadPlan | None, redis_url: str, now: Callable[[], float]
) -> RedisUserReader:
    reader = FeastRedisReader(plan, redis_url)
    await reader.start()
    stack.push_async_callback(reader.close)
    return RedisUserReader(reader, now)


async def _slates(stack: AsyncExitStack, redis_url: str) -> RedisSlates:
    pipeline = RedisPipeline(Address.parse(redis_url))
    await pipeline.start()
    stack.push_async_callback(pipeline.close)
    return RedisSlates(pipeline)


async def _slate_log(
    stack: AsyncExitStack,
    settings: Settings,
    plan: ReadPlan | None,
    catalogue: Catalogue,
    now: Callable[[], float],
    told: Metrics,
) -> RedisSlateLog | None:
    """The log, not started; None where nothing is to be logged."""
    if not settings.log.slates_share:
        return None
    # A connection of its own: what a page waits for never queues behind what nobody waits for.
    pipeline = RedisPipeline(Address.parse(settings.redis.url))
    await pipeline.start()
    stack.push_async_callback(pipeline.close)
    slate_log = RedisSlateLog(
        pipeline,
        plan,
        catalogue.id_of,
        share=settings.log.slates_share,
        explored_share=settings.exploration.share,
        wall=time.time,
        shop_now=now,
        metrics=told,
    )
    stack.push_async_callback(slate_log.close)
    return slate_log


def rulebook_of(rules: Sequence[Rule], settings: Settings) -> Rulebook:
    """
    *rules* held against the shop of the settings' data directory, without starting anything.

    Raises:
        NotReady: the data directory cannot be served; RulesError: a rule does not fit it.
    """
    return _bound(rules, _catalogue(settings.data.path), _read_plan(settings.data.path, settings.reranker.name))


def _bound(rules: Sequence[Rule], catalogue: Catalogue, plan: ReadPlan | None) -> Rulebook:
    user = plan.user if plan is not None else None
    return bound(rules, catalogue, user.numeric if user else (), user.categorical if user else ())


def _rulebook(
    stack: AsyncExitStack, settings: RulesSettings, catalogue: Catalogue, plan: ReadPlan | None, told: Metrics
) -> Callable[[], Rulebook]:
    """The shop's rules, looked at again now and then; none without a file."""
    if settings.file is None:
        return lambda: NO_RULES

    said: set[tuple[str, tuple[str, ...]]] = set()

    def bind(rules: Sequence[Rule]) -> Rulebook:
        book = _bound(rules, catalogue, plan)
        for reach in book.reaches:
            if reach.unknown and (named := (reach.rule.name, reach.unknown)) not in said:
                said.add(named)
                log.warning(
                    "rule_of_unknown_items", rule=reach.rule.name, ids=reach.unknown[:20], unknown=len(reach.unknown)
                )
        return book

    try:
        rules = RulesFile(settings.file, bind, told, lambda: catalogue.n_changes)
    except RulesError as error:
        raise NotReady(f"rules: {error}") from error
    if settings.reload_s:
        looking = asyncio.create_task(rules.keep_looking(settings.reload_s), name="rules")
        looking.add_done_callback(partial(_tell_if_it_failed, "rules_stand_still"))
        stack.callback(looking.cancel)
    return rules


async def _live_catalogue(stack: AsyncExitStack, data: Path, redis_url: str, told: Metrics) -> catalogues.Catalogue:
    """The catalogue of the data directory, with what was changed since and will be."""
    catalogue = _catalogue(data)
    mirror = CatalogueMirror(catalogue, redis_url, data, told)
    stack.push_async_callback(mirror.close)
    await mirror.start()
    return catalogue


def _catalogue(data: Path) -> catalogues.Catalogue:
    try:
        artefact = artefacts.load(data / "models", "popular")
        popular = artefact.arrays("popular.npz")["keys"].astype(np.int32)
        return catalogues.load(data, popular, int(artefact.manifest.vocabulary["size"]))
    except FileNotFoundError as error:
        raise NotReady(f"{data} cannot be served: {error}; run `tutti train --data {data}`") from error
    except artefacts.ArtefactError as error:
        raise NotReady(f"{data} cannot be served: {error}") from error


def _read_plan(data: Path, reranker: str) -> ReadPlan:
    """The read plan of the champion re-ranker: what it was trained on is what it is given."""
    try:
        artefact = artefacts.load(data / "models", reranker)
    except artefacts.ArtefactError as error:
        raise NotReady(f"{data} cannot be served: {error}") from error
    features = artefact.manifest.features or {"plan": "read_plan.json"}
    return ReadPlan.load(artefact.file(features["plan"]))


def _made_by(settings: Settings, catalogue: Catalogue) -> str:
    """Digest of what makes a slate besides the query: a change of any makes old cached slates unreachable."""
    versions: list[str] = []
    for name in [source.name for source in settings.sources] + [settings.reranker.name]:
        versions.append(artefacts.read_aliases(settings.data.path / "models", name).get(ARM, ""))
    made_of = settings.model_dump_json(
        exclude={
            "coalesce",
            "edge",
            "admission",
            "guard",
            "ladder",
            "redis",
            "events",
            "retention",
            "log",
            "budget",
            "stages",
        }
    )
    return hashlib.sha256("\n".join([made_of, catalogue.digest, *versions]).encode()).hexdigest()[:16]
