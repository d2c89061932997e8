"""
What a run would do with any data: sources, features, models' code, tuning. Its digest says whether two runs can differ.

The rule: everything but data and seed. Two runs of one recipe on the same past give the same models up to the seed, so
that what is to be compared between a champion and a candidate is their recipes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from protos import artefacts
from services.training import feature_store
from services.training.sources import SourceSpec, code_of

RERANKER = "reranking"


def digest(sources: Sequence[SourceSpec], version: int, tuned: str = "") -> str:
    """SHA-256 (hex) of the recipe; *version* is the offline run's own, *tuned* the digest of what was tuned."""
    content: dict[str, Any] = {
        "version": version,
        "sources": [asdict(spec) for spec in sources],
        "features": {p.name: artefacts.sha256_of(p) for p in sorted(feature_store.repository().glob("*.py"))},
        "code": [code_of(name) for name in [*(spec.name for spec in sources), RERANKER]],
    }
    if tuned:
        content["tuned"] = tuned
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
