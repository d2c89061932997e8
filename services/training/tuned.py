"""
The tuned file on the offline way: checked before anything is fitted, written whole, handed to an evaluation, forgotten.

The rule: nothing that has seen a judged window takes part in judging it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from protos import artefacts
from protos import tuned as tuned_file
from protos.tuned import Tuned, TunedUnusable
from services.training.dataset import iso
from services.training.sources import service

RERANKER = "reranking"


def of(data: Path, sources: Sequence[str]) -> Tuned:
    """
    What *data* was tuned to, if it was, for models that are trained: *sources* and the re-ranker.

    Raises:
        TunedUnusable: it cannot be read, or names a parameter that a model does not have: another version wrote it.
    """
    found = tuned_file.read(data)
    roles = {**dict.fromkeys(sources, "generator"), RERANKER: "reranker"}
    for name, values in found.parameters.items():
        known = _parameters_of(name, roles[name]) if name in roles else None
        if known is not None and (strange := sorted(set(values) - known)):
            raise TunedUnusable(
                f"{data / tuned_file.FILE} sets {', '.join(strange)} of {name}, which has no such parameter; "
                f"tune again, or `tutti tune --forget` goes back to the defaults"
            )
    return Tuned(
        {name: values for name, values in found.parameters.items() if name in roles},
        found.method,
        {name: weight for name, weight in found.weights.items() if name in roles},
        found.seen_until_us,
    )


def write(data: Path, tuned: Tuned, notes: Mapping[str, Any]) -> Path:
    """Write the file in one step; *notes* stand beside what counts, for whoever reads it."""
    artefacts.write_json(data / tuned_file.FILE, {**tuned.to_json(), "notes": dict(notes)})
    return data / tuned_file.FILE


def forget(data: Path) -> bool:
    """Remove the file; whether there was one. What is trained serves on until the next training."""
    path = data / tuned_file.FILE
    was_there = path.is_file()
    path.unlink(missing_ok=True)
    return was_there


def hand_on(data: Path, place: Path, start_us: int) -> str:
    """
    Give *place*, the past of a window that begins at *start_us*, the tuned file of *data* if that has not seen the
    window; otherwise see to it that there is none.

    Returns:
        what was done, in a sentence; empty where nothing was tuned.
    """
    forget(place)
    found = tuned_file.read(data)
    if not found.digest:
        return ""
    if found.seen_until_us > start_us:
        return (
            f"judging the defaults: {data / tuned_file.FILE} was found with events until "
            f"{iso(found.seen_until_us)}, and the window begins {iso(start_us)}"
        )
    write(place, found, {})
    return f"judging what was tuned with events until {iso(found.seen_until_us)}"


def _parameters_of(name: str, role: str) -> set[str] | None:
    """Names of the fields of a model service's `Parameters`; None where its train module has no such class."""
    kind = getattr(service(name, "train", role), "Parameters", None)
    return {field.name for field in fields(kind)} if kind is not None else None
