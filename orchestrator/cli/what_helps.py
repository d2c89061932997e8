"""
What each trained model has to say, and from how many events on: a line a model, from the manifests of the champions.

The rule: no model is known here by name. What one waits for stands among its figures (protos/needs.py); files are read
and not verified, which is the business of whoever serves them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from protos import artefacts, needs
from protos.needs import Need


def lines(data: Path) -> list[str]:
    """A line for what was trained, then one a model in the order of their names; empty before the first training."""
    manifests = [m for m in (_manifest(folder) for folder in sorted((data / "models").glob("*"))) if m is not None]
    if not manifests:
        return []
    events = max(_events(manifest) for manifest in manifests)
    return [f"trained from {events:,} events:", *(f"  {line(manifest, events)}" for manifest in manifests)]


def line(manifest: dict[str, Any], events: int) -> str:
    """
    One model in words: whether it has anything to say, and what would make it say more.

    The first need decides whether it speaks; the others say from when on it speaks better.
    """
    found = needs.of(manifest.get("metrics", {}))
    name = str(manifest["name"])
    if not found:
        return f"{name}: does not say what it needs"
    first, *others = found
    verb = "helps" if first.is_met else "silent"
    return f"{name}: {verb}; " + "; ".join(_said(need, events) for need in (first, *others))


def _said(need: Need, events: int) -> str:
    found = "" if need.has is None else f", has {need.has:,}"
    text = f"from {need.needed:,} {need.what} on{found}"
    if need.is_met:
        return text if need.has is not None else f"{text}, has them"
    if (pace := need.in_events(events)) is not None:
        return f"{text} (about {pace:,} events at the pace so far)"
    return f"{text}, not yet" if need.has is None else text


def _events(manifest: dict[str, Any]) -> int:
    return int(manifest.get("data", {}).get("events", 0))


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The champion's manifest; None where there is none to read."""
    try:
        version = artefacts.read_aliases(folder.parent, folder.name)[artefacts.CHAMPION]
        found = json.loads((folder / version / artefacts.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, artefacts.ArtefactError):
        return None
    return found if isinstance(found, dict) and "name" in found else None
