"""A data directory of a shape that is wanted, written in a moment: events and items as rows, nothing trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY_US = 86_400_000_000
START_US = 1_600_000_000_000_000

Row = tuple[str, str, str, float]
"""User, item, event type, day since the beginning."""


def write_shop(
    folder: Path,
    rows: Sequence[Row],
    *,
    titles: bool = True,
    categories: bool = True,
    prices: bool = True,
    sessions: bool = True,
    **columns: dict[str, object],
) -> Path:
    """Write *rows* as canonical data; *columns* override columns of the catalogue by item id."""
    folder.mkdir(parents=True, exist_ok=True)
    users, items, types, days = (list(part) for part in zip(*rows, strict=True))
    at_us = np.array([START_US + round(day * DAY_US) for day in days], np.int64)
    ids = sorted(set(items) | {item for one in columns.values() for item in one})
    events = {
        "event_id": [f"e{i}" for i in range(len(rows))],
        "user_id": users,
        "item_id": items,
        "event_type": types,
        "timestamp": pa.array(at_us, pa.timestamp("us", "UTC")),
        "session_id": pa.array(
            [f"{u}-{int(d)}" if sessions else None for u, d in zip(users, days, strict=True)], pa.string()
        ),
        "price": pa.array([2.0 if prices else None] * len(rows), pa.float64()),
    }
    catalogue = {
        "item_id": ids,
        "title": [f"{'lamp' if int(i[1:]) % 2 else 'mug'} number {i}" if titles else "" for i in ids],
        "category": pa.array(
            [("Home > Light" if int(i[1:]) % 2 else "Home > Kitchen") if categories else None for i in ids], pa.string()
        ),
        "price": pa.array([2.0 if prices else None] * len(ids), pa.float64()),
    }
    for name, values in columns.items():
        catalogue[name] = [values.get(item) for item in ids]
    pq.write_table(pa.table(events), folder / "events.parquet")
    pq.write_table(pa.table(catalogue), folder / "items.parquet")
    return folder


def tastes(
    users: int = 40, items: int = 30, days: int = 120, each: int = 24, seed: int = 1, kind: str = "view"
) -> list[Row]:
    """Even shoppers want even items, odd ones odd items, two or three a visit, all over *days*."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for user in range(users):
        visits = np.sort(rng.uniform(0, days, each // 3))
        for visit in visits:
            for step in range(3):
                item = int(rng.integers(0, items // 2)) * 2 + user % 2
                rows.append(
                    (
                        f"u{user}",
                        f"i{item}",
                        "purchase" if kind == "shop" and step == 2 else _kind(kind),
                        visit + step / 1440,
                    )
                )
    return rows


def _kind(kind: str) -> str:
    return "view" if kind == "shop" else kind
