"""
What "now" is for the models: the wall clock, or the end of old data, running on from there.

A data set that ended years ago would otherwise make every event of every shopper equally ancient, and models
would be asked about ages they never saw. Only ages and expiry of features use this clock; cached slates do not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

OLD_AFTER_S = 90 * 86_400
"""Data whose newest event is older than this is history. Derived: the longest window of the shipped features."""


def shop_clock(
    data: Path, choice: Literal["auto", "wall", "data"], wall: Callable[[], float] = time.time
) -> Callable[[], float]:
    """
    A clock in seconds since the epoch.

    Args:
        choice: `wall`; `data` starts at the newest event of *data* and runs on; `auto` is `data` for old data only.
    """
    newest = _newest_event_at(data)
    if choice == "wall" or newest is None:
        return wall
    behind_s = wall() - newest
    if choice == "auto" and behind_s <= OLD_AFTER_S:
        return wall
    return lambda: wall() - behind_s


def _newest_event_at(data: Path) -> float | None:
    """Seconds since the epoch, or None when the data directory does not say."""
    try:
        said = json.loads((data / "dataset.json").read_text(encoding="utf-8"))["last_event_at"]
        return datetime.fromisoformat(said).timestamp()
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
