"""
The sizes of a request as the defaults have them, and the things of these sizes that the benchmarks handle.

Not random: the same arrays in every run, so that two runs differ by the code and the machine only.
"""

from __future__ import annotations

import numpy as np

from orchestrator.adapters.catalogue import Catalogue
from orchestrator.core.model import Candidates, Level, Retrieved, Slate, SlateItem, SourceReport, UserContext
from protos.feast_cells import cell, moment
from protos.feast_layout import EntityPlan, ViewPlan
from protos.history import ENTRY

N_ITEMS = 50_000
QUOTAS = {"collaborative_filtering": 300, "content_based": 100}
WEIGHTS = {"collaborative_filtering": 1.0, "content_based": 0.3}
HISTORY, SHELF, POOL, BATCH = 200, 12, 40, 12
NOW_US = 1_700_000_000_000_000

USER_PLAN = EntityPlan(
    "tutti",
    "user_id",
    "STRING",
    (
        ViewPlan(
            "user_activity",
            0.0,
            (
                *((f"count_{n}", "INT64") for n in range(8)),
                *((f"mean_{n}", "FLOAT") for n in range(5)),
            ),
        ),
        ViewPlan(
            "user_profile",
            0.0,
            (
                *((f"favourite_{n}", "STRING") for n in ("category", "department", "brand")),
                *((f"mean_{n}", "FLOAT") for n in range(4)),
            ),
        ),
    ),
)
"""As the shipped feature repository has them: thirteen numbers of one view, three words and four numbers of another."""

_VALUES = {"INT64": 1234, "FLOAT": 0.25, "STRING": "Home > Kitchen > Mugs"}


def user_cells() -> list[bytes]:
    """One shopper's reply of HMGET to `USER_PLAN`."""
    cells: list[bytes] = []
    for view in USER_PLAN.views:
        cells += [cell(_VALUES[dtype], dtype) for _, dtype in view.features]
        cells.append(moment(NOW_US))
    return cells


def entries(n: int = HISTORY) -> list[bytes]:
    """A history list as LRANGE returns it, newest first."""
    rows = np.zeros(n, ENTRY)
    rows["key"], rows["type"], rows["at_us"] = np.arange(n) * 7, 1, NOW_US - np.arange(n) * 60_000_000
    raw = rows.tobytes()
    return [raw[i : i + ENTRY.itemsize] for i in range(0, len(raw), ENTRY.itemsize)]


def a_shopper() -> UserContext:
    """Twenty features and a full history."""
    n = HISTORY
    at_us = NOW_US - np.arange(n, dtype=np.int64)[::-1] * 60_000_000
    numeric = np.linspace(0, 1, len(USER_PLAN.numeric)).astype(np.float32)
    keys = (np.arange(n) * 7).astype(np.int32)
    words = ("Home > Kitchen > Mugs",) * len(USER_PLAN.categorical)
    return UserContext(numeric, words, keys, np.ones(n, np.uint8), at_us, n, NOW_US)


def proposals() -> dict[str, Retrieved]:
    """What both sources propose, a third of the smaller list in both."""
    first, second = QUOTAS.values()
    return {
        "collaborative_filtering": Retrieved(
            (np.arange(first) * 131 % N_ITEMS).astype(np.int32), np.linspace(1, 0, first).astype(np.float32), "v1"
        ),
        "content_based": Retrieved(
            (np.arange(200, 200 + second) * 131 % N_ITEMS).astype(np.int32),
            np.linspace(0.9, 0.1, second).astype(np.float32),
            "v1",
        ),
    }


def catalogue_of(candidates: Candidates) -> Catalogue:
    """A catalogue of the shop's size in which every one of *candidates* has a title, category, brand and price."""
    columns = {
        "title": [f"Mug number {key}" for key in range(N_ITEMS)],
        "category": [f"Home > Kitchen > {key % 40}" for key in range(N_ITEMS)],
        "brand": [f"brand{key % 25}" for key in range(N_ITEMS)],
        "price": [1.0 + key % 90 for key in range(N_ITEMS)],
    }
    return Catalogue([f"item-{key}" for key in range(N_ITEMS)], columns, candidates.keys)


def a_slate(candidates: Candidates) -> Slate:
    """A home shelf as it is remembered, with a pool for exploration."""
    line = [
        SlateItem(int(key), round(float(score), 6), ("collaborative_filtering", "content_based"))
        for key, score in zip(candidates.keys[: SHELF + POOL], candidates.scores, strict=False)
    ]
    return Slate(
        items=tuple(line[:SHELF]),
        level=Level.FULL,
        sources=tuple(SourceReport(name, "ok", 3.25, quota, 6) for name, quota in QUOTAS.items()),
        degraded=(),
        losses=(),
        model_versions=(*((name, "f83149f34546") for name in QUOTAS), ("reranking", "f83149f34546")),
        watermark=HISTORY,
        created_at=NOW_US / 1e6,
        removed=(("excluded", 2),),
        stages_ms=(("user", 1.2), ("retrieve", 7.5), ("rerank", 4.1)),
        pool=tuple(line[SHELF:]),
        made_as="b1946ac92492d2347c6235b4d2611184",
    )
