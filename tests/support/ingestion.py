"""What every test of ingestion needs: an impatient consumer, a death that nothing survives, and a look at the log."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from services.ingestion.consume import Rhythm

QUICK = Rhythm(
    flush_s=0.02, block_s=0.02, claim_every_s=0.02, claim_idle_s=0.0, backoff_s=(0.02, 0.05), redact_every_s=0.0
)
"""Writes, claims and redacts at once."""


class Died(BaseException):
    """Nothing of ours catches it, as nothing catches SIGKILL."""


async def until(claim: Callable[[], Awaitable[Any] | Any], within_s: float = 40.0) -> Any:
    """Wait until *claim*, awaited where that is needed, is true of something; returns it."""
    async with asyncio.timeout(within_s):
        while True:
            found = claim()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


def logged(data: Path) -> list[dict[str, Any]]:
    """Every row of the event log of this data directory, by event_id; of one that stands in it twice, two."""
    folder = data / "event_log"
    if not list(folder.rglob("*.parquet")):
        return []
    rows = ds.dataset(folder, format="parquet", partitioning="hive").to_table().to_pylist()
    return sorted(rows, key=lambda row: row["event_id"])


def logged_ids(data: Path) -> list[str]:
    """The event_ids of `logged`."""
    return [row["event_id"] for row in logged(data)]
