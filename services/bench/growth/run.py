"""
All axes, top to bottom: grow the shop to each size, measure its points in a process of its own, throw it away.

The rule: one size at a time is on disk and in memory. A million items are some gigabytes of both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import create_server

from services.bench import facts
from services.bench.beside import ONE_THREAD
from services.bench.growth import redis
from services.bench.growth.curve import AT, ITEMS, Cost, Growth, Point, points
from services.bench.growth.shop import grow
from services.bench.shop import copied
from services.bench.system import SystemFailed
from services.training import sources

RERANKER = "reranking"

MEASURED_WITHIN_S = 1800.0
"""For one size. Judged: a million items were loaded in minutes on a busy machine; the points take seconds each."""

Say = Callable[[str], None]


def measure(data: Path, seconds: float, say: Say, items: Sequence[int] = ITEMS, at: int = AT, seed: int = 7) -> Growth:
    """
    The curves of shops like the trained one in *data*.

    Args:
        seconds: each point and batch size is measured for this long.
        items: sizes of shop; *at* is the one in which other axes move.

    Raises:
        SystemFailed: a size could not be measured.
    """
    began = time.monotonic()
    growth = Growth(facts.machine(), {"data": data.name, "at": at})
    say("reading Redis")
    growth.redis, growth.redis_sample = _redis(data)
    names = [*(spec.name for spec in sources.configured()), RERANKER]
    for n in items:
        with tempfile.TemporaryDirectory(prefix="tutti-growth-") as folder:
            place = Path(folder) / "shop"
            (place / "models").mkdir(parents=True)
            say(f"{n:,} items: growing")
            step = time.monotonic()
            grow(data, place, n, names, seed)
            growth.seconds[f"growing to {n}"] = round(time.monotonic() - step, 1)
            say(f"{n:,} items: measuring")
            step = time.monotonic()
            _points(place, points(n, n == at), seconds, growth, n)
            growth.seconds[f"measuring {n}"] = round(time.monotonic() - step, 1)
    growth.machine["load_average_after"] = facts.load()
    growth.seconds["all"] = round(time.monotonic() - began, 1)
    return growth


def _points(place: Path, wanted: Sequence[Point], seconds: float, growth: Growth, n: int) -> None:
    spec = place / "points.json"
    named = [{name: getattr(point, name) for name in Point.__slots__} for point in wanted]
    spec.write_text(json.dumps({"seconds": seconds, "points": named}), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "services.bench.growth.points", "--data", str(place), "--spec", str(spec)],
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            timeout=MEASURED_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SystemFailed(f"{n:,} items were not measured within {MEASURED_WITHIN_S:g} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise SystemFailed(f"{n:,} items could not be measured: {said[-1] if said else 'killed for memory?'}")
    answer = json.loads(done.stdout.splitlines()[-1])
    growth.costs += [Cost.of_json(cost) for cost in answer["costs"]]
    for name, size in answer["memory"].items():
        growth.memory.setdefault(name, {})[n] = size


def _redis(data: Path) -> tuple[dict[str, float], int]:
    with copied(data) as place, create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        return redis.bytes_a_user(place, place / "redis", port)
