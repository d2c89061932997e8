"""
Artefacts: what training hands to serving. Data, never code: arrays, indices, ONNX graphs, JSON.

    models/<name>/<version>/manifest.json   what it is, what it was made from, the sha256 of every file
    models/<name>/aliases.json              {"champion": "<version>"}

The rule: nothing is opened before its hash was checked, and a folder that holds one file more or one less than its
manifest says is refused. A version is derived from what is in the artefact, so that the same data, parameters and
seed give the same version, and nobody can change a file without changing the version.

    ArtefactError
    ├── ArtefactMissing   no such model, version or alias
    └── ArtefactBroken    a file is changed, missing, unknown, or the manifest is unreadable
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Role = Literal["generator", "reranker", "popular"]

MANIFEST = "manifest.json"
ALIASES = "aliases.json"
CHAMPION = "champion"
CHALLENGER = "challenger"

_VERSION_LENGTH = 12
# Names become folders and metric labels: what `import services.<name>` allows, and nothing that leaves the folder.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NOT_IN_VERSION = ("version", "created_at", "metrics")


class ArtefactError(Exception):
    """An artefact cannot be used; see the tree above."""


class ArtefactMissing(ArtefactError):
    """No such model, version or alias."""


class ArtefactBroken(ArtefactError):
    """What lies on disk is not what was written."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    The manifest of one artefact, field for field as in `manifest.json`.

    created_at  ISO 8601, UTC; metrics and created_at do not enter the version
    data        {"events", "items", "first_event_at", "last_event_at", "sha256"} of what it was trained on
    vocabulary  {"size", "digest"} of the item vocabulary whose keys it speaks
    features    for a model that reads Feast: {"service", "digest", "plan"}
    files       file name → sha256 hex
    """

    name: str
    role: Role
    version: str
    created_at: str
    data: Mapping[str, Any]
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any]
    seed: int
    vocabulary: Mapping[str, Any]
    features: Mapping[str, str] | None
    files: Mapping[str, str] = field(default_factory=dict)

    def derived_version(self) -> str:
        """The version that this content must have."""
        content = {k: v for k, v in asdict(self).items() if k not in _NOT_IN_VERSION}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:_VERSION_LENGTH]


@dataclass(frozen=True, slots=True)
class Artefact:
    """A verified artefact. `path` is its folder; every file in it has the hash its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    def file(self, name: str) -> Path:
        """
        Path of a verified file.

        Raises:
            ArtefactBroken: the manifest knows no such file, so nobody has verified it.
        """
        if name not in self.manifest.files:
            known = ", ".join(sorted(self.manifest.files))
            raise ArtefactBroken(f"{self.name} {self.version} has no file {name!r}; it has: {known}")
        return self.path / name

    def array(self, name: str) -> NDArray[Any]:
        """One `.npy` file, never unpickled."""
        array: NDArray[Any] = np.load(self.file(name), allow_pickle=False)
        return array

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Every array of one `.npz` file, never unpickled."""
        with np.load(self.file(name), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    def json(self, name: str) -> Any:
        """One JSON file."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """File name → sha256 of everything in *folder* but the manifest. Artefacts are flat: no folders inside."""
    return {p.name: sha256_of(p) for p in sorted(folder.iterdir()) if p.name != MANIFEST}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` whole or not at all."""
    write_json(folder / MANIFEST, asdict(manifest))


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file in one step, so that a reader sees the old content or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def check_name(name: str) -> str:
    """
    The name, if it can name a model.

    Raises:
        ArtefactMissing: it cannot; in particular it cannot leave the models folder.
    """
    if not _NAME.fullmatch(name):
        raise ArtefactMissing(f"no model can be called {name!r}; a name is lower case letters, digits and underscores")
    return name


def read_aliases(models: Path, name: str) -> dict[str, str]:
    """Alias → version of model *name*; empty when nothing was promoted yet."""
    path = models / check_name(name) / ALIASES
    if not path.is_file():
        return {}
    try:
        aliases = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as broken:
        raise ArtefactBroken(f"{path} is not JSON ({broken}); promote a version to write it anew") from broken
    if not isinstance(aliases, dict) or not all(isinstance(v, str) for v in aliases.values()):
        raise ArtefactBroken(f"{path} must map aliases to versions; promote a version to write it anew")
    return aliases


def load(models: Path, name: str, alias: str = CHAMPION) -> Artefact:
    """
    Find and verify the artefact that *alias* (an alias or a version) names.

    Args:
        models: the folder `DIR/models`.

    Raises:
        ArtefactMissing: no such model, or no such version or alias.
        ArtefactBroken: see `verify`.
    """
    aliases = read_aliases(models, name)
    version = aliases.get(alias, alias)
    folder = models / name / version
    if not _FILE.fullmatch(version) or not (folder / MANIFEST).is_file():
        known = ", ".join(sorted(aliases)) or "none"
        raise ArtefactMissing(
            f"no artefact {name!r} {alias!r} under {models}; aliases there: {known}. "
            f"Run `tutti train --data {models.parent}`"
        )
    return verify(folder)


def verify(folder: Path) -> Artefact:
    """
    Read the manifest of *folder* and check every file against it.

    Raises:
        ArtefactBroken: an unreadable manifest, a version that its content does not have, a changed, missing
            or unknown file.
    """
    manifest = _read_manifest(folder / MANIFEST)
    where = f"{manifest.name} {manifest.version} in {folder}"
    advice = "train it anew or restore the folder"
    if manifest.version != manifest.derived_version():
        raise ArtefactBroken(
            f"{where}: the manifest was changed: its content has version {manifest.derived_version()}; {advice}"
        )
    present = {p.name for p in folder.iterdir()} - {MANIFEST}
    if missing := sorted(set(manifest.files) - present):
        raise ArtefactBroken(f"{where}: missing {', '.join(missing)}; {advice}")
    if unknown := sorted(present - set(manifest.files)):
        raise ArtefactBroken(f"{where}: the manifest does not know {', '.join(unknown)}; {advice}")
    for name, expected in manifest.files.items():
        if (found := sha256_of(folder / name)) != expected:
            raise ArtefactBroken(
                f"{where}: {name} has sha256 {found[:12]}…, the manifest says {expected[:12]}…; {advice}"
            )
    return Artefact(folder, manifest)


def _read_manifest(path: Path) -> Manifest:
    try:
        manifest = Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as broken:
        raise ArtefactBroken(f"{path} is not a readable manifest: {broken}; train the model anew") from broken
    if manifest.role not in get_args(Role):
        raise ArtefactBroken(f"{path}: role {manifest.role!r} is none of {', '.join(get_args(Role))}")
    strange = [name for name in manifest.files if not _FILE.fullmatch(name)]
    if strange:
        raise ArtefactBroken(f"{path} names files that cannot be in an artefact: {strange[:3]}")
    return manifest
