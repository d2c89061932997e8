"""
One model as a process: load the champion, listen, warm up, serve, drain.

The order is the rule: nothing is ready before a call has gone through the model, and nothing stops before
it has said so. Every file of the artefact is verified before its first byte is used (`artefacts.load`).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog

from protos import artefacts
from protos.tutti.v1 import (
    candidate_generation_pb2,
    candidate_generation_pb2_grpc,
    reranking_pb2,
    reranking_pb2_grpc,
)
from services.chassis.faults import Faults
from services.chassis.health import HealthyServer, stop_on_signals
from services.chassis.model import Generator, Ranker, Resources
from services.chassis.servicers import GeneratorServicer, RankerServicer
from services.chassis.stalls import Stalls
from services.chassis.telemetry import ServiceMetrics
from services.chassis.worker import ModelWorker

WARM_UP_CALLS = 3
"""Judged, not measured: the first call pays for lazy imports and buffers, the second for what depends on the first."""


class NotAService(LookupError):
    """`services.NAME` does not exist or does not have the shape of a model service."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A verified model, ready to be served; *user_columns* as in `RankerServicer`, (0, 0) for a generator."""

    name: str
    model: Generator | Ranker
    user_columns: tuple[int, int] = (0, 0)


def load(name: str, resources: Resources, alias: str) -> Loaded:
    """
    Load the artefact that *alias* names with `services.<name>.serve.load`.

    Raises:
        NotAService: no such folder in `services`, or one without `ROLE`.
        artefacts.ArtefactError: nothing trained, or files that are not what the manifest says.
    """
    role = _role(name)
    artefact = artefacts.load(resources.data / "models", name, alias)
    model = importlib.import_module(f"services.{name}.serve").load(artefact, resources)
    if role == "generator":
        return Loaded(name, cast(Generator, model))
    return Loaded(name, cast(Ranker, model), _user_columns(artefact))


async def serve(
    loaded: Loaded,
    address: str,
    log: structlog.stdlib.BoundLogger,
    *,
    metrics_port: int = 0,
    stop: asyncio.Event | None = None,
    faults: Faults | None = None,
) -> None:
    """
    Serve *loaded* until SIGTERM, SIGINT or *stop*; returns after the drain.

    Args:
        address: `host:port`; port 0 takes a free one, which the line `ready` tells.
        metrics_port: port of `/metrics` on the same host; 0 for none.
        faults: which to show; None shows none.

    Raises:
        CannotListen: the address is taken.
        Exception: whatever the model raises at its warm-up; the process must not become ready.
    """
    began_at = time.monotonic()
    stop = stop or asyncio.Event()
    stop_on_signals(stop.set)
    metrics = ServiceMetrics(loaded.name, loaded.model.version)
    if (gauges := getattr(loaded.model, "gauges", None)) is not None:
        metrics.watch(gauges())
    if metrics_port:
        metrics.expose(address.rpartition(":")[0], metrics_port)
    worker = ModelWorker(metrics)
    stalls = Stalls()
    server = HealthyServer(address, [_full_name(loaded)])
    servicer = _register(loaded, server, worker, metrics, log, stalls, faults)
    watch = asyncio.create_task(stalls.watch())
    try:
        bound = await server.start()
        for _ in range(WARM_UP_CALLS):
            await worker.run(servicer.warm_up, None)
        # What is alive now stays alive: keep the collector from walking it again and again.
        gc.collect()
        gc.freeze()
        await server.set_ready(True)
        metrics.ready.set(1)
        log.info("ready", address=bound, version=loaded.model.version, warm_up_ms=_ms_since(began_at))
        await stop.wait()
        metrics.ready.set(0)
        began_at = time.monotonic()
    finally:
        await server.drain()
        worker.close()
        watch.cancel()
    log.info("stopped", drain_ms=_ms_since(began_at))


def _register(
    loaded: Loaded,
    server: HealthyServer,
    worker: ModelWorker,
    metrics: ServiceMetrics,
    log: structlog.stdlib.BoundLogger,
    stalls: Stalls,
    faults: Faults | None,
) -> GeneratorServicer | RankerServicer:
    if _is_generator(loaded):
        generator = GeneratorServicer(cast(Generator, loaded.model), worker, metrics, log, stalls, faults)
        candidate_generation_pb2_grpc.add_CandidateGeneratorServicer_to_server(generator, server.grpc)
        return generator
    ranker = RankerServicer(cast(Ranker, loaded.model), loaded.user_columns, worker, metrics, log, stalls, faults)
    reranking_pb2_grpc.add_RerankerServicer_to_server(ranker, server.grpc)
    return ranker


def _full_name(loaded: Loaded) -> str:
    file = candidate_generation_pb2 if _is_generator(loaded) else reranking_pb2
    name = "CandidateGenerator" if _is_generator(loaded) else "Reranker"
    return str(file.DESCRIPTOR.services_by_name[name].full_name)


def _is_generator(loaded: Loaded) -> bool:
    return hasattr(loaded.model, "generate")


def _role(name: str) -> str:
    try:
        role = importlib.import_module(f"services.{artefacts.check_name(name)}").ROLE
    except (ModuleNotFoundError, AttributeError, artefacts.ArtefactMissing) as missing:
        raise NotAService(
            f"services/{name} is no model service ({missing}); "
            "it needs __init__.py with ROLE, model.py, train.py, serve.py"
        ) from missing
    if role not in ("generator", "reranker"):
        raise NotAService(f"services/{name} has ROLE {role!r}; the chassis serves 'generator' and 'reranker'")
    return str(role)


def _user_columns(artefact: artefacts.Artefact) -> tuple[int, int]:
    """How many numeric and categorical columns the artefact's own read plan gives a user."""
    from protos.feast_layout import ReadPlan

    if artefact.manifest.features is None:
        return 0, 0
    plan = ReadPlan.load(Path(artefact.file(artefact.manifest.features["plan"])))
    return len(plan.user.numeric), len(plan.user.categorical)


def _ms_since(began_at: float) -> float:
    return round((time.monotonic() - began_at) * 1000, 1)
