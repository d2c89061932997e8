"""
The file registry: publishes artefacts under DIR/models and moves the aliases that say which version serves.

The rule: a version that was published never changes; promotion only moves a name. Files first, manifest last, one
rename, so that a reader never meets half an artefact.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protos import artefacts, vocabulary
from protos.artefacts import CHAMPION, Artefact, Manifest, Role
from services.chassis.model import Fitted
from services.training.dataset import Dataset

MODELS = "models"

PREVIOUS = "previous"
"""The alias of what served before the champion."""


def staging(models: Path, name: str) -> Path:
    """An empty folder to fit model *name* into; what a run that was stopped left there is removed."""
    folder = models / artefacts.check_name(name) / ".staging"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def publish(models: Path, name: str, role: Role, staged: Path, fitted: Fitted, dataset: Dataset, seed: int) -> Artefact:
    """
    Give the files in *staged* a manifest and a version, and move them to `models/<name>/<version>`.

    The same content published twice is one artefact: the second finds the first in its place.
    """
    manifest = Manifest(
        name=name,
        role=role,
        version="",
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        data=dataset.describe(),
        parameters=dict(fitted.parameters),
        metrics=dict(fitted.metrics),
        seed=seed,
        vocabulary={"size": dataset.n_items, "digest": vocabulary.digest(dataset.item_ids)},
        features=dict(fitted.features) if fitted.features is not None else None,
        files=artefacts.hash_files(staged),
    )
    manifest = replace(manifest, version=manifest.derived_version())
    artefacts.write_manifest(staged, manifest)
    final = models / name / manifest.version
    if final.exists():
        try:
            published = artefacts.verify(final)
        except artefacts.ArtefactBroken:
            # Somebody changed what lies there; what was just trained is what this version means.
            shutil.rmtree(final)
        else:
            shutil.rmtree(staged)
            return published
    staged.rename(final)
    return artefacts.verify(final)


def promote(models: Path, name: str, version: str, alias: str = CHAMPION) -> None:
    """
    Let *alias* of model *name* mean *version* from now on; the champion that goes is remembered as `previous`.

    Raises:
        ArtefactMissing, ArtefactBroken: there is no such version, or it is not what was published.
    """
    artefacts.load(models, name, version)
    aliases: Mapping[str, Any] = artefacts.read_aliases(models, name)
    gone = aliases.get(CHAMPION)
    kept = {PREVIOUS: gone} if alias == CHAMPION and gone not in (None, version) else {}
    artefacts.write_json(models / name / artefacts.ALIASES, {**aliases, **kept, alias: version})


def names(models: Path) -> list[str]:
    """Models of which something was published, in order."""
    return sorted({folder.parent.parent.name for folder in models.glob("*/*/manifest.json")})


def rollback(models: Path) -> dict[str, str]:
    """
    Let every model's champion be the one before it; what served becomes `previous`, so that a second call undoes it.

    Models whose champion did not change with the last promotion stay as they are.

    Returns:
        model → version that serves now, of those that changed.

    Raises:
        ArtefactMissing: no model has an earlier champion; ArtefactBroken: one of them is not what was published.
    """
    known = {name: artefacts.read_aliases(models, name) for name in names(models)}
    changed = {name: aliases[PREVIOUS] for name, aliases in known.items() if PREVIOUS in aliases}
    if not changed:
        raise artefacts.ArtefactMissing(f"no model under {models} has an earlier champion to go back to")
    for name, version in changed.items():
        artefacts.load(models, name, version)
    for name, version in changed.items():
        promote(models, name, version)
    return changed


def versions(models: Path, name: str) -> list[Manifest]:
    """Manifests of every intact version, oldest first."""
    found = []
    for folder in sorted((models / artefacts.check_name(name)).glob("*/manifest.json")):
        try:
            found.append(artefacts.verify(folder.parent).manifest)
        except artefacts.ArtefactBroken:
            continue  # a broken version cannot be promoted, so it is not one to choose from
    return sorted(found, key=lambda m: (m.created_at, m.version))
