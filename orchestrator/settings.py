"""
The one typed, frozen tree of settings.

Every default is written once, in `defaults.toml`; over it come the fusion that what serves was tuned to
(`protos/tuned.py`), the file named by --config or TUTTI_CONFIG, then the environment: TUTTI_SECTION__KEY=value. Read
once in `bootstrap`, checked as a whole, passed down in pieces. An impossible combination refuses to start and
names both keys.

    SettingsError   the tree is wrong; the message says which key, what was found, what was expected
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator.core.deadline import MIN_USEFUL_S
from orchestrator.core.shedding import Priority, Thresholds
from protos import tuned as tuned_file

DEFAULTS = Path(__file__).with_name("defaults.toml")
PREFIX = "TUTTI_"
LEAST_CALL_MS = MIN_USEFUL_S * 1000
_NOT_SETTINGS = {"TUTTI_CONFIG", "TUTTI_HOME", "TUTTI_DATA", "TUTTI_FEATURE_REPO", "TUTTI_DEFAULTS"}
_OF_NO_SECTION = {"TUTTI_COALESCE"}


class SettingsError(Exception):
    """The settings cannot be used; the message names the key."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Section):
    path: Path
    clock: Literal["auto", "wall", "data"]


class Edge(_Section):
    host: str
    port: int = Field(ge=0, le=65535)
    max_body_bytes: int = Field(gt=0)
    max_count: int = Field(gt=0)
    max_ranking_items: int = Field(gt=0)
    max_events: int = Field(gt=0)
    max_import_bytes: int = Field(gt=0)
    drain_ms: float = Field(ge=0)


class PriorityThresholds(_Section):
    cheap_share: float = Field(gt=0, le=1)
    cheap_lag_ms: float = Field(gt=0)
    shed_lag_ms: float = Field(gt=0)


class Admission(_Section):
    enabled: bool
    limit_initial: int = Field(ge=1)
    limit_min: int = Field(ge=1)
    limit_max: int = Field(ge=1)
    bulk: PriorityThresholds
    best_effort: PriorityThresholds
    critical: PriorityThresholds

    @property
    def table(self) -> Mapping[Priority, Thresholds]:
        """Priority → where it leaves the full way."""
        found = {}
        for priority in Priority:
            given: PriorityThresholds = getattr(self, priority.value)
            found[priority] = Thresholds(given.cheap_share, given.cheap_lag_ms / 1000, given.shed_lag_ms / 1000)
        return found

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if not self.limit_min <= self.limit_initial <= self.limit_max:
            raise ValueError(
                f"limit_min = {self.limit_min}, limit_initial = {self.limit_initial} and limit_max = {self.limit_max} "
                f"must not fall"
            )
        for lower, higher in pairwise(("bulk", "best_effort", "critical")):
            less, more = getattr(self, lower), getattr(self, higher)
            for name in PriorityThresholds.model_fields:
                if getattr(less, name) > getattr(more, name):
                    raise ValueError(
                        f"{lower}.{name} = {getattr(less, name):g} is above {higher}.{name} = {getattr(more, name):g}: "
                        f"what matters less would be served better"
                    )
        for name in ("bulk", "best_effort", "critical"):
            here: PriorityThresholds = getattr(self, name)
            if here.cheap_lag_ms > here.shed_lag_ms:
                raise ValueError(
                    f"{name}.cheap_lag_ms = {here.cheap_lag_ms:g} is above {name}.shed_lag_ms = {here.shed_lag_ms:g}: "
                    f"the cheap path would never answer"
                )
        return self


class Redis(_Section):
    url: str
    max_connections: int = Field(gt=0)
    event_timeout_ms: float = Field(gt=0)
    connect_timeout_ms: float = Field(gt=0)


class KafkaSettings(_Section):
    bootstrap_servers: str = Field(min_length=1)
    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    acks: Literal["all", "leader"]
    timeout_ms: float = Field(gt=0)
    properties: str

    @property
    def file(self) -> Path | None:
        """The file of properties, if one is named."""
        return Path(self.properties) if self.properties else None


class EventSettings(_Section):
    broker: Literal["redis", "kafka"]
    kafka: KafkaSettings
    wait_replicas: int = Field(ge=0)
    wait_ms: float = Field(gt=0)


class Retention(_Section):
    user_days: float = Field(gt=0)
    visitor_days: float = Field(gt=0)

    @property
    def user_s(self) -> int:
        """Whole seconds, at least one: what Redis takes."""
        return max(1, round(self.user_days * 86_400))

    @property
    def visitor_s(self) -> int:
        """The same, of a visitor."""
        return max(1, round(self.visitor_days * 86_400))


class Budget(_Section):
    total_ms: float = Field(gt=0)
    reply_ms: float = Field(ge=0)


class Stage(_Section):
    cap_ms: float = Field(gt=0)
    reserve_after_ms: float = Field(ge=0)
    grace_ms: float = Field(ge=0)


class Stages(_Section):
    cache: Stage
    user: Stage
    retrieve: Stage
    rerank: Stage


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _each_once(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(addresses)) != len(addresses):
        raise ValueError("every replica needs an address of its own")
    return addresses


Replicas = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), AfterValidator(_each_once), Field(min_length=1)]
"""Addresses of the replicas of one service; in a file, a single one may stand without brackets."""


class Source(_Section):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    targets: Mapping[str, Replicas] = Field(default_factory=dict)
    quota: int = Field(default=100, ge=1, le=1000)
    weight: float = Field(default=1.0, ge=0)
    share: float = Field(default=1.0, gt=0, le=1)
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    """Read by training alone."""


class RerankerSettings(_Section):
    name: str
    targets: Mapping[str, Replicas] = Field(default_factory=dict)
    candidates: int = Field(ge=1)
    narrow_candidates: int = Field(ge=1)


class GuardSettings(_Section):
    enabled: bool
    max_in_flight: int = Field(ge=4)


class LadderSettings(_Section):
    exercise_share: float = Field(ge=0, le=1)


class Fusion(_Section):
    method: Literal["reciprocal_rank", "z_score"]
    k: int = Field(gt=0)


class SlateCacheSettings(_Section):
    enabled: bool
    fresh_s: float = Field(gt=0)
    stale_s: float = Field(ge=0)
    kept_s: float = Field(ge=0)
    popular_s: float = Field(ge=0)


class CapSettings(_Section):
    category: int = Field(ge=0)
    brand: int = Field(ge=0)
    parent: int = Field(ge=0)


class PlacementSettings(_Section):
    rerank: bool
    caps: CapSettings


class Placements(_Section):
    home: PlacementSettings
    item: PlacementSettings
    cart: PlacementSettings
    category: PlacementSettings


class Filters(_Section):
    within_share: float = Field(ge=0, le=1)


class RulesSettings(_Section):
    path: str
    reload_s: float = Field(ge=0)

    @property
    def file(self) -> Path | None:
        """The file, if one is named."""
        return Path(self.path) if self.path else None


class FatigueSettings(_Section):
    patience: float = Field(ge=0)
    window_s: float = Field(gt=0)


class Exploration(_Section):
    share: float = Field(ge=0, le=1)
    pool: int = Field(ge=2)


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["json", "text"]
    slates_share: float = Field(ge=0, le=1)


class Settings(_Section):
    """The whole tree. A section's fields are explained, with what happens at the extremes, in defaults.toml."""

    coalesce: bool
    data: Data
    edge: Edge
    admission: Admission
    redis: Redis
    events: EventSettings
    retention: Retention
    budget: Budget
    stages: Stages
    sources: tuple[Source, ...] = Field(min_length=1)
    reranker: RerankerSettings
    guard: GuardSettings
    ladder: LadderSettings
    fusion: Fusion
    slate_cache: SlateCacheSettings
    placements: Placements
    filters: Filters
    rules: RulesSettings
    fatigue: FatigueSettings
    exploration: Exploration
    log: Log

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"sources: names must be unique, found {names}")
        if sum(source.weight for source in self.sources) <= 0:
            raise ValueError("sources: at least one weight must be above 0")
        if self.slate_cache.kept_s < self.slate_cache.stale_s:
            raise ValueError(
                f"slate_cache.kept_s = {self.slate_cache.kept_s:g} forgets slates that slate_cache.stale_s = "
                f"{self.slate_cache.stale_s:g} would still serve; raise the one or lower the other"
            )
        if self.events.wait_replicas and self.events.wait_ms >= self.redis.event_timeout_ms:
            raise ValueError(
                f"events.wait_ms = {self.events.wait_ms:g} is longer than redis.event_timeout_ms = "
                f"{self.redis.event_timeout_ms:g} waits for any answer; lower the one or raise the other"
            )
        if self.retention.user_days < self.retention.visitor_days:
            raise ValueError(
                f"retention.user_days = {self.retention.user_days:g} forgets users before visitors, "
                f"retention.visitor_days = {self.retention.visitor_days:g}; raise the one or lower the other"
            )
        usable_ms = self.budget.total_ms - self.budget.reply_ms
        for name in ("cache", "user", "retrieve", "rerank"):
            stage: Stage = getattr(self.stages, name)
            if stage.reserve_after_ms >= usable_ms:
                raise ValueError(
                    f"stages.{name}.reserve_after_ms = {stage.reserve_after_ms:g} leaves nothing of "
                    f"budget.total_ms − budget.reply_ms = {usable_ms:g}; lower the one or raise the other"
                )
            if stage.cap_ms - stage.grace_ms < LEAST_CALL_MS:
                raise ValueError(
                    f"stages.{name}: cap_ms − grace_ms = {stage.cap_ms - stage.grace_ms:g} is no time for a call; "
                    f"at least {LEAST_CALL_MS:g} is needed"
                )
        retrieve = self.stages.retrieve
        for source in self.sources:
            if retrieve.cap_ms * source.share - retrieve.grace_ms < LEAST_CALL_MS:
                raise ValueError(
                    f"sources: {source.name}.share = {source.share:g} of stages.retrieve.cap_ms = {retrieve.cap_ms:g} "
                    f"leaves no time for a call; raise the share"
                )
        return self


def load(path: Path | None = None, environment: Mapping[str, str] | None = None, data: Path | None = None) -> Settings:
    """
    Read defaults, what was tuned, file and environment into one checked tree.

    Args:
        path: the file laid over the defaults; None reads the one TUTTI_CONFIG names, if any.
        environment: os.environ when None.
        data: the data directory whose tuned fusion counts; None takes the one the settings name.

    Raises:
        SettingsError: unreadable file, unknown key, wrong type, impossible combination.
    """
    environment = os.environ if environment is None else environment
    tree = _read(DEFAULTS)
    named = path or (Path(environment["TUTTI_CONFIG"]) if environment.get("TUTTI_CONFIG") else None)
    above = [_read(named) if named is not None else {}, _from_environment(environment)]
    tree = _laid(_merged(tree, _tuned(_laid(tree, above), data)), above)
    if isinstance(tree.get("sources"), list):
        tree["sources"] = [source for source in tree["sources"] if source.get("quota") != 0]
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "settings"
        raise SettingsError(f"{key}: {first['msg']}; found {first.get('input')!r:.120}") from error


def overlay(settings: Settings) -> dict[str, Any]:
    """
    The tree that, laid over the defaults, gives *settings* again.

    A source of the defaults that *settings* do without is in it with quota 0: left out, it would come back.
    """
    laid = settings.model_dump(mode="json")
    kept = {source.name for source in settings.sources}
    off = [source["name"] for source in _read(DEFAULTS).get("sources", []) if source["name"] not in kept]
    laid["sources"] = [*laid["sources"], *({"name": name, "quota": 0} for name in off)]
    return laid


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise SettingsError(f"no settings file at {path}; give one with --config or unset TUTTI_CONFIG") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error


def _tuned(tree: Mapping[str, Any], data: Path | None) -> dict[str, Any]:
    """
    The fusion that what serves was tuned to, as a layer of settings, for sources that *tree* has.

    It lies under the user's own file: a weight that somebody wrote down is meant.
    """
    section = tree["data"]
    place = data or (section.get("path") if isinstance(section, Mapping) else None)
    if not isinstance(place, str | Path):
        return {}  # data.path is no path: said where the tree is checked
    try:
        found = tuned_file.serving(Path(place))
    except tuned_file.TunedUnusable as error:
        raise SettingsError(f"fusion: {error}") from error
    known = {source.get("name") for source in tree["sources"]} if isinstance(tree["sources"], list) else set()
    sources = [{"name": name, "weight": weight} for name, weight in found.weights.items() if name in known]
    return {"sources": sources} | ({"fusion": {"method": found.method}} if found.method else {})


def _laid(tree: dict[str, Any], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    for layer in layers:
        tree = _merged(tree, layer)
    return tree


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """*above* laid over *below*: tables key by key, `sources` entry by entry by name, all else replaced."""
    merged = dict(below)
    for key, value in above.items():
        here = merged.get(key)
        if key == "sources" and isinstance(value, list) and isinstance(here, list):
            merged[key] = _merged_sources(here, value)
        elif isinstance(value, Mapping) and isinstance(here, Mapping):
            merged[key] = _merged(dict(here), value)
        else:
            merged[key] = value
    return merged


def _merged_sources(below: list[dict[str, Any]], above: list[Any]) -> list[dict[str, Any]]:
    merged = {source["name"]: source for source in below}
    for entry in above:
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise SettingsError(f"sources: every entry needs a name; found {entry!r:.120}")
        merged[entry["name"]] = _merged(merged.get(entry["name"], {}), entry)
    return list(merged.values())


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """TUTTI_REDIS__URL=… → {"redis": {"url": …}}; values are TOML where they parse, else plain strings."""
    tree: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in _NOT_SETTINGS:
            continue
        if "__" not in name and name not in _OF_NO_SECTION:
            continue
        *sections, key = name.removeprefix(PREFIX).lower().split("__")
        here = tree
        for section in sections:
            here = here.setdefault(section, {})
            if not isinstance(here, dict):
                raise SettingsError(f"{name}: {section!r} is a value by another variable, not a table; unset one")
        try:
            here[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            here[key] = value
    return tree
