"""
Settings and free ports → the processes to start, with every argument. Pure: opens no socket and no file.

All ports but the edge's are handed in; the effective settings carry them to the orchestrator, so that the
two can never disagree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from orchestrator.settings import Edge, Settings

HOST = "127.0.0.1"
"""Everything but the edge listens on loopback: these processes trust whoever can reach them."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A model service runs one call at a time; pools of threads as wide as the machine would only fight each other."""

REDIS, INGESTION, ORCHESTRATOR = "redis", "ingestion", "orchestrator"


class Probe(Enum):
    """How a process is asked whether it is ready."""

    REDIS = "redis"  # PING
    GRPC = "grpc"  # gRPC health
    HTTP = "http"  # GET /readyz


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: the command that starts it, where it listens, and how to ask whether it is ready."""

    name: str
    command: tuple[str, ...]
    address: str
    probe: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    replica: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What to start, in order: `redis` (None: a given one is used), `seed` until it ends, `models` and `ingestion`
    together, `orchestrator` last. `settings` is what the orchestrator is told.
    """

    settings: Settings
    redis: ProcessSpec | None
    seed: tuple[str, ...]
    models: tuple[ProcessSpec, ...]
    ingestion: ProcessSpec
    orchestrator: ProcessSpec


def make_plan(
    settings: Settings,
    data: Path,
    ports: Iterator[int],
    *,
    redis_url: str | None,
    redis_command: tuple[str, ...] = (),
    python: str = sys.executable,
) -> Plan:
    """
    Decide every command line.

    Args:
        settings: checked settings; sources, re-ranker and edge are read, addresses are replaced.
        data: the data directory, absolute.
        ports: free ports, one for each process but the orchestrator.
        redis_url: a Redis that already runs; None to start one.
        redis_command: how to start one, without its port; needed when *redis_url* is None.
    """
    redis = None
    if redis_url is None:
        port = next(ports)
        redis_url = f"redis://{HOST}:{port}/0"
        redis = ProcessSpec(REDIS, (*redis_command, "--port", str(port)), f"{HOST}:{port}", Probe.REDIS)

    addresses = {name: f"{HOST}:{next(ports)}" for name in model_names(settings)}
    effective = settings.model_copy(
        update={
            "data": settings.data.model_copy(update={"path": data}),
            "redis": settings.redis.model_copy(update={"url": redis_url}),
            "sources": tuple(
                source.model_copy(update={"targets": {"champion": addresses[source.name]}})
                for source in settings.sources
            ),
            "reranker": settings.reranker.model_copy(
                update={"targets": {"champion": addresses[settings.reranker.name]}}
            ),
        }
    )
    shared = ("--data", str(data), "--redis", redis_url)
    ingestion_address = f"{HOST}:{next(ports)}"
    return Plan(
        settings=effective,
        redis=redis,
        seed=(python, "-m", "services.ingestion.seed", *shared),
        models=tuple(
            ProcessSpec(
                name,
                (python, "-m", "services.chassis", name, *shared, "--address", address),
                address,
                Probe.GRPC,
                ONE_THREAD,
            )
            for name, address in addresses.items()
        ),
        ingestion=ProcessSpec(
            INGESTION,
            (python, "-m", "services.ingestion", *shared, "--address", ingestion_address),
            ingestion_address,
            Probe.GRPC,
        ),
        orchestrator=ProcessSpec(
            ORCHESTRATOR,
            (python, "-m", "orchestrator", "--config", str(settings_file(data))),
            reachable(settings.edge),
            Probe.HTTP,
        ),
    )


def model_names(settings: Settings) -> tuple[str, ...]:
    """The model services that these settings ask for: every source, then the re-ranker."""
    return (*(source.name for source in settings.sources), settings.reranker.name)


def reachable(edge: Edge) -> str:
    """`host:port` at which this machine reaches the edge; a wildcard address is reached by loopback."""
    host = HOST if edge.host in ("0.0.0.0", "::", "") else edge.host
    return f"{host}:{edge.port}"


def settings_file(data: Path) -> Path:
    """Where the effective settings of a running system lie."""
    return data / "run" / "settings.toml"


def to_toml(tree: Mapping[str, Any]) -> str:
    """
    A settings tree as TOML: tables, arrays of tables, and plain values.

    The standard library reads TOML but does not write it. A JSON string without escapes for non-ASCII is a
    TOML string, which is all that is needed here.
    """
    lines: list[str] = ["# Written by `tutti up`; changes are lost at the next start."]

    def table(name: str, content: Mapping[str, Any], header: str) -> None:
        if name:
            lines.append(f"\n{header}")
        nested = []
        for key, value in content.items():
            if isinstance(value, Mapping) or (isinstance(value, list | tuple) and _are_tables(value)):
                nested.append((key, value))
            elif value is not None:
                lines.append(f"{key} = {_value(value)}")
        for key, value in nested:
            path = f"{name}.{key}" if name else key
            if isinstance(value, Mapping):
                table(path, value, f"[{path}]")
            else:
                for entry in value:
                    table(path, entry, f"[[{path}]]")

    table("", tree, "")
    return "\n".join(lines) + "\n"


def _are_tables(values: Any) -> bool:
    return bool(values) and all(isinstance(value, Mapping) for value in values)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)
