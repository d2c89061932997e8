"""
Which generators to train, and how many candidates each will be asked for: the `[[sources]]` of the settings.

Read as plain TOML: the offline way shares the file with the orchestrator, not its code.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

DEFAULTS = Path(__file__).resolve().parents[2] / "orchestrator" / "defaults.toml"
DEFAULT_QUOTA = 100
DEFAULT_WEIGHT = 1.0
MAX_QUOTA = 1000


class SettingsUnusable(Exception):
    """The settings name no source, or one that cannot be trained."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """
    A generator: the folder of `services/` it lives in, its quota of candidates a query, and what its `fit` is told
    besides (names of its `model.Parameters`; what the settings say wins over what training chooses).
    """

    name: str
    quota: int = DEFAULT_QUOTA
    parameters: Mapping[str, Any] = field(default_factory=dict)


def configured() -> tuple[SourceSpec, ...]:
    """
    The sources of the defaults (TUTTI_DEFAULTS, otherwise the orchestrator's) overlaid, by name, with TUTTI_CONFIG's.

    A source with quota 0 is switched off and not trained.

    Raises:
        SettingsUnusable: a file is missing or no TOML, a source is without name, no source is left.
    """
    merged: dict[str, dict[str, Any]] = {}
    files = _files()
    for path in files:
        for table in _tables(path):
            merged.setdefault(str(table["name"]), {}).update(table)
    specs = [
        SourceSpec(name, int(table.get("quota", DEFAULT_QUOTA)), dict(table.get("parameters", {})))
        for name, table in merged.items()
    ]
    kept = tuple(spec for spec in specs if spec.quota > 0)
    if not kept:
        raise SettingsUnusable(f"no [[sources]] with a quota above 0 in {', '.join(map(str, files))}; name one")
    if wide := [spec.name for spec in kept if spec.quota > MAX_QUOTA]:
        raise SettingsUnusable(f"the quota of {wide[0]} is above {MAX_QUOTA}, the most a generator may be asked for")
    return kept


@dataclass(frozen=True, slots=True)
class Fusion:
    """
    How the orchestrator merges what the sources propose, by the settings alone.

    weights  source → weight; k flattens reciprocal ranks
    written  sources whose weight stands in the file of TUTTI_CONFIG: somebody meant it
    """

    method: str
    k: int
    weights: dict[str, float]
    written: frozenset[str] = frozenset()
    method_is_written: bool = False


def fusion() -> Fusion:
    """
    Fusion as `configured` reads the sources.

    Raises:
        SettingsUnusable: a file is missing or no TOML, a source is without name.
    """
    weights: dict[str, float] = {}
    merged: dict[str, Any] = {}
    written: set[str] = set()
    own: dict[str, Any] = {}
    for number, path in enumerate(_files()):
        own = _read(path).get("fusion", {})
        merged |= own
        for table in _tables(path):
            name = str(table["name"])
            weights[name] = float(table.get("weight", weights.get(name, DEFAULT_WEIGHT)))
            written |= {name} if number and "weight" in table else set()
    if missing := {"method", "k"} - set(merged):
        raise SettingsUnusable(f"no fusion.{min(missing)} in {', '.join(map(str, _files()))}")
    return Fusion(
        str(merged["method"]), int(merged["k"]), weights, frozenset(written), len(_files()) > 1 and "method" in own
    )


def service(name: str, part: str, role: str = "generator") -> ModuleType:
    """
    Module `services.<name>.<part>` of a model service.

    Raises:
        SettingsUnusable: there is no such folder, it is not of *role*, or it lacks the part.
    """
    try:
        package = importlib.import_module(f"services.{name}")
        module = importlib.import_module(f"services.{name}.{part}")
    except ModuleNotFoundError as missing:
        if missing.name is None or not missing.name.startswith(f"services.{name}"):
            raise
        raise SettingsUnusable(
            f"source {name!r} has no services/{name}/{part}.py; expected __init__, model, train and serve there"
        ) from missing
    if getattr(package, "ROLE", None) != role:
        raise SettingsUnusable(f"services/{name} has role {getattr(package, 'ROLE', None)!r}; expected {role!r}")
    return module


def learns_from_items_only(name: str) -> bool:
    """Whether the generator says (`LEARNS_FROM = "items"`) that events do not change it."""
    return getattr(importlib.import_module(f"services.{name}"), "LEARNS_FROM", "events") == "items"


def code_of(name: str) -> dict[str, str]:
    """File → SHA-256 (hex) of a model service's own code: a changed model is a reason to train."""
    folder = Path(str(importlib.import_module(f"services.{name}").__file__)).parent
    return {f"{name}/{p.name}": hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.py"))}


def check(specs: Sequence[SourceSpec]) -> None:
    """
    Import everything training will need, so that a wrong name fails now and not after minutes of fitting.

    Raises:
        SettingsUnusable: no such service, or it has no parameter of a name that the settings give.
    """
    for spec in specs:
        service(spec.name, "train")
        service(spec.name, "serve")
        if not spec.parameters:
            continue
        known = [one.name for one in fields(service(spec.name, "model").Parameters)]
        if unknown := sorted(set(spec.parameters) - set(known)):
            raise SettingsUnusable(f"source {spec.name!r} has no parameter {unknown[0]!r}; it has {', '.join(known)}")


def _files() -> list[Path]:
    """The defaults, and what is laid over them."""
    files = [Path(os.environ.get("TUTTI_DEFAULTS") or DEFAULTS)]
    if overlay := os.environ.get("TUTTI_CONFIG"):
        files.append(Path(overlay))
    return files


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as broken:
        raise SettingsUnusable(f"settings {path} cannot be read: {broken}") from broken


def _tables(path: Path) -> list[dict[str, Any]]:
    tables = _read(path).get("sources", [])
    if not all(isinstance(table, dict) and "name" in table for table in tables):
        raise SettingsUnusable(f"every [[sources]] of {path} needs a name")
    return list(tables)
