"""
A partial change merged into what is there.

Source: RFC 7396, JSON Merge Patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def patched(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """*document* with *changes*: null removes a member, objects are merged member by member, all else replaces."""
    merged = dict(document)
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            here = merged.get(name)
            merged[name] = patched(here if isinstance(here, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged
