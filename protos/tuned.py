"""
What tuning found: read by training from the file that `tutti tune` writes, by the orchestrator from what serves.

    DIR/tuned.json             what was found; `tutti train` uses it, `tutti tune --forget` removes it
    DIR/models/training.json   field `tuned`: what the run that serves was trained with

The rule: the orchestrator takes fusion from the run that serves. Weights belong to the generators they were found
with; so they begin, and go back (`tutti models rollback`), together with them.

    TunedUnusable   the file is wrong; the message says what was found, what was expected and how to go back
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

FILE = "tuned.json"
FORMAT = 1
"""Raised when an older reader would misread the file."""

_RUN = Path("models") / "training.json"
_METHODS = ("reciprocal_rank", "z_score")


class TunedUnusable(ValueError):
    """What is written as tuned cannot be used."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """
    What is to replace the defaults; empty where nothing is.

    parameters     model service → overrides of its `Parameters`
    method         of fusion; None leaves the default
    weights        source → weight in fusion ≥ 0; sources not named keep theirs
    seen_until_us  no event at or after this moment was looked at; µs since the epoch
    """

    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    method: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    seen_until_us: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what changes a training or a slate; empty where nothing does."""
        if not (self.parameters or self.method or self.weights):
            return ""
        content = {name: value for name, value in self.to_json().items() if name != "seen_until_us"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """JSON values of everything."""
        return {
            "format": FORMAT,
            "parameters": {name: dict(values) for name, values in self.parameters.items()},
            "fusion": {"method": self.method, "weights": dict(self.weights)},
            "seen_until_us": self.seen_until_us,
        }


def read(data: Path) -> Tuned:
    """
    What `DIR/tuned.json` says; empty where there is no such file.

    Raises:
        TunedUnusable: it is no JSON, of another format, or not of the expected shape.
    """
    path = data / FILE
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Tuned()
    except (OSError, ValueError) as broken:
        raise TunedUnusable(
            f"{path} cannot be read: {broken}; `tutti tune --forget` goes back to the defaults"
        ) from None
    return of_json(value, str(path))


def serving(data: Path) -> Tuned:
    """
    What the run that serves was trained with; empty where there is no run, or it was not tuned.

    A report that cannot be read says nothing here: it is training's own, and serving does without it otherwise.

    Raises:
        TunedUnusable: the report can be read, and what it says of tuning is not of the expected shape.
    """
    try:
        report = json.loads((data / _RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Tuned()
    said = report.get("tuned") if isinstance(report, dict) else None
    return of_json(said, str(data / _RUN)) if said else Tuned()


def of_json(value: Any, where: str) -> Tuned:
    """
    What `Tuned.to_json` gave, through JSON; other fields are ignored.

    Raises:
        TunedUnusable: naming *where*.
    """
    hint = f"found in {where}; `tutti tune --forget` and `tutti train` go back to the defaults"
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, Mapping) else value
        raise TunedUnusable(f"format {found!r:.60} where {FORMAT} was expected, {hint}")
    parameters, fusion = value.get("parameters", {}), value.get("fusion", {})
    if not isinstance(parameters, Mapping) or not all(isinstance(one, Mapping) for one in parameters.values()):
        raise TunedUnusable(f"parameters {parameters!r:.60} where a table of tables was expected, {hint}")
    weights = fusion.get("weights", {}) if isinstance(fusion, Mapping) else None
    if not isinstance(weights, Mapping) or not all(_is_weight(one) for one in weights.values()):
        raise TunedUnusable(f"fusion {fusion!r:.60} where weights of 0 or more were expected, {hint}")
    if (method := fusion.get("method")) not in (None, *_METHODS):
        raise TunedUnusable(f"fusion.method {method!r:.60} where one of {', '.join(_METHODS)} was expected, {hint}")
    seen = value.get("seen_until_us", 0)
    if not isinstance(seen, int):
        raise TunedUnusable(f"seen_until_us {seen!r:.60} where microseconds were expected, {hint}")
    return Tuned({name: dict(one) for name, one in parameters.items()}, method, dict(weights), seen)


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
