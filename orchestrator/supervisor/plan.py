"""
Settings and free ports → the processes to start, with every argument. Pure: opens no socket and no file.

All ports but the edge's are handed in; the effective settings carry them to the orchestrator, so that the
two can never disagree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.settings import Edge, Settings
from orchestrator.supervisor.errors import CannotProxy

HOST = "127.0.0.1"
"""Everything but the edge listens on loopback: these processes trust whoever can reach them."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A model service runs one call at a time; pools of threads as wide as the machine would only fight each other."""

REDIS, INGESTION, ORCHESTRATOR, FAULT_PROXY = "redis", "ingestion", "orchestrator", "fault_proxy"

FAULTS_VARIABLE = "TUTTI_FAULTS_FILE"
"""Names the file from which model services read which faults to show; see services/chassis/faults.py."""


class Probe(Enum):
    """How a process is asked whether it is ready."""

    REDIS = "redis"  # PING
    GRPC = "grpc"  # gRPC health
    HTTP = "http"  # GET /livez, then /readyz
    TCP = "tcp"  # a connection is taken


@dataclass(frozen=True, slots=True)
class Shape:
    """
    How much of everything.

    replicas  processes of each model service
    workers   orchestrator processes behind the edge's one port
    faults    a proxy that can be told to misbehave before every model replica and before Redis as the orchestrator
              sees it, and a file by which model services can be told to
    """

    replicas: int = 1
    workers: int = 1
    faults: bool = False


SINGLE = Shape()
"""One of each, undisturbed."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """
    One process: the command that starts it, where it listens, and how to ask whether it is ready.

    inherits  file descriptors it takes over, by their numbers
    upstream  of a fault proxy: the name of what is behind it
    control   of a fault proxy: where it is told what to do
    metrics   where Prometheus reads what it says of itself; None: on its own address, or nowhere
    """

    name: str
    command: tuple[str, ...]
    address: str
    probe: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    replica: int = 0
    inherits: tuple[int, ...] = ()
    upstream: str | None = None
    control: str | None = None
    metrics: str | None = None

    @property
    def label(self) -> str:
        """Unlike the name, of one process only: `reranking`, `reranking-1`, `fault_proxy-reranking-1`."""
        name = self.name if self.upstream is None else f"{self.name}-{self.upstream}"
        return f"{name}-{self.replica}" if self.replica else name


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What to start, in order: `redis` (None: a given one is used), `seed` until it ends, `models` and `ingestion`
    together, `proxies`, `orchestrators` last. `settings` is what the orchestrators are told.
    """

    settings: Settings
    redis: ProcessSpec | None
    seed: tuple[str, ...]
    models: tuple[ProcessSpec, ...]
    ingestion: ProcessSpec
    proxies: tuple[ProcessSpec, ...]
    orchestrators: tuple[ProcessSpec, ...]


def make_plan(
    settings: Settings,
    data: Path,
    ports: Iterator[int],
    *,
    redis_url: str | None,
    redis_command: tuple[str, ...] = (),
    shape: Shape = SINGLE,
    edge_fd: int = 3,
    python: str = sys.executable,
) -> Plan:
    """
    Decide every command line.

    Args:
        settings: checked settings; sources, re-ranker and edge are read, addresses are replaced.
        data: the data directory, absolute.
        ports: free ports, `count_ports` of them.
        redis_url: a Redis that already runs; None to start one.
        redis_command: how to start one, without its port; needed when *redis_url* is None.
        edge_fd: number of the descriptor of the edge's listening socket, which every orchestrator takes over.

    Raises:
        CannotProxy: faults are wanted before a given Redis that is not reached by plain TCP.
    """
    redis = None
    if redis_url is None:
        port = next(ports)
        redis_url = f"redis://{HOST}:{port}/0"
        redis = ProcessSpec(REDIS, (*redis_command, "--port", str(port)), f"{HOST}:{port}", Probe.REDIS)

    shared = ("--data", str(data), "--redis", redis_url)
    environment = {**ONE_THREAD, **({FAULTS_VARIABLE: str(faults_file(data))} if shape.faults else {})}
    models = tuple(
        ProcessSpec(
            name,
            (
                *(python, "-m", "services.chassis", name, *shared),
                *("--address", address := f"{HOST}:{next(ports)}", "--replica", str(replica)),
                *("--metrics-port", str(metrics_port := next(ports))),
            ),
            address,
            Probe.GRPC,
            environment,
            replica,
            metrics=f"{HOST}:{metrics_port}",
        )
        for name in model_names(settings)
        for replica in range(shape.replicas)
    )
    ingestion_address, ingestion_metrics = f"{HOST}:{next(ports)}", next(ports)
    proxies: tuple[ProcessSpec, ...] = ()
    seen_redis_url = redis_url
    if shape.faults:
        store = _proxy(REDIS, 0, _tcp_address(redis_url), ports, python)
        proxies = (*(_proxy(spec.name, spec.replica, spec.address, ports, python) for spec in models), store)
        seen_redis_url = redis_url.replace(_tcp_address(redis_url), store.address)
    effective = _reaching(settings, data, seen_redis_url, proxies[:-1] or models)
    return Plan(
        settings=effective,
        redis=redis,
        seed=(python, "-m", "services.ingestion.seed", *shared),
        models=models,
        ingestion=ProcessSpec(
            INGESTION,
            (
                *(python, "-m", "services.ingestion", *shared, "--address", ingestion_address),
                *("--metrics-port", str(ingestion_metrics), *_topic(settings)),
            ),
            ingestion_address,
            Probe.GRPC,
            metrics=f"{HOST}:{ingestion_metrics}",
        ),
        proxies=proxies,
        orchestrators=tuple(
            ProcessSpec(
                ORCHESTRATOR,
                (
                    *(python, "-m", "orchestrator", "--config", str(settings_file(data))),
                    *("--fd", str(edge_fd), "--admin", address := f"{HOST}:{next(ports)}"),
                ),
                address,
                Probe.HTTP,
                replica=worker,
                inherits=(edge_fd,),
            )
            for worker in range(shape.workers)
        ),
    )


def count_ports(settings: Settings, shape: Shape) -> int:
    """How many free ports `make_plan` takes at most."""
    replicas = len(model_names(settings)) * shape.replicas
    proxies = replicas + 1 if shape.faults else 0
    # Redis; ingestion and each model replica with their metrics; a proxy with its control; an orchestrator's own.
    return 3 + 2 * replicas + 2 * proxies + shape.workers


def _reaching(settings: Settings, data: Path, redis_url: str, seen: Sequence[ProcessSpec]) -> Settings:
    """*settings* with the addresses of *seen*: model replicas, or the proxies before them."""

    def targets(name: str) -> dict[str, tuple[str, ...]]:
        return {"champion": tuple(spec.address for spec in seen if (spec.upstream or spec.name) == name)}

    return settings.model_copy(
        update={
            "data": settings.data.model_copy(update={"path": data}),
            "redis": settings.redis.model_copy(update={"url": redis_url}),
            "sources": tuple(
                source.model_copy(update={"targets": targets(source.name)}) for source in settings.sources
            ),
            "reranker": settings.reranker.model_copy(update={"targets": targets(settings.reranker.name)}),
        }
    )


def _topic(settings: Settings) -> Iterator[str]:
    """The options that name the topic of events, where they are in Kafka."""
    if settings.events.broker != "kafka":
        return
    about = settings.events.kafka
    yield from ("--kafka", about.bootstrap_servers, "--topic", about.topic)
    if about.file is not None:
        yield from ("--kafka-properties", about.properties)


def _proxy(name: str, replica: int, behind: str, ports: Iterator[int], python: str) -> ProcessSpec:
    address, control = f"{HOST}:{next(ports)}", f"{HOST}:{next(ports)}"
    command = (python, "-m", "orchestrator.doctor.fault_proxy", "--listen", address, "--upstream", behind)
    return ProcessSpec(
        FAULT_PROXY,
        (*command, "--control", control),
        address,
        Probe.TCP,
        replica=replica,
        upstream=name,
        control=control,
    )


def _tcp_address(redis_url: str) -> str:
    """`host:port` as it stands in the URL."""
    url = urlsplit(redis_url)
    if url.scheme != "redis" or url.hostname is None or url.port is None:
        raise CannotProxy(
            f"--faults needs a Redis at redis://host:port, found {url.scheme}://{url.netloc.rpartition('@')[2]}; "
            "unset REDIS_URL to use the embedded one, or leave --faults out"
        )
    return url.netloc.rpartition("@")[2]


def model_names(settings: Settings) -> tuple[str, ...]:
    """The model services that these settings ask for: every source, then the re-ranker."""
    return (*(source.name for source in settings.sources), settings.reranker.name)


def reachable(edge: Edge) -> str:
    """`host:port` at which this machine reaches the edge; a wildcard address is reached by loopback."""
    host = HOST if edge.host in ("0.0.0.0", "::", "") else edge.host
    return f"{host}:{edge.port}"


def faults_file(data: Path) -> Path:
    """Which faults the model services are to show, when the system was started for that."""
    return data / "run" / "faults.json"


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
