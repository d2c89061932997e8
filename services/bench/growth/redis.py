"""
Bytes of Redis a shopper: a real store, seeded with the shop, and what it says of the keys of everybody in it.

Measured on the shoppers of one shop and multiplied for more: a key costs what it costs however many there are, but for
the table of keys, which doubles now and then and is 16 bytes a key at most.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import redis

from services.bench.system import SystemFailed

FEATURES, HISTORY, SHOWN, WATERMARK = "features", "history", "shown", "watermark"

_PREFIXES = {b"tutti:history:u:": HISTORY, b"tutti:shown:u:": SHOWN, b"tutti:watermark:u:": WATERMARK}

_USER_ENTITY = b"user_id"
"""Feast's key of an entity's row carries the name of what it is joined by."""

READY_WITHIN_S, SEEDED_WITHIN_S = 30.0, 600.0

MOST_KEYS = 20_000
"""Of each kind that are asked about. Judged: one costs 20 µs, and shoppers of one shop differ by a factor of ten."""


def bytes_a_user(data: Path, folder: Path, port: int) -> tuple[dict[str, float], int]:
    """
    What → mean bytes a user of *data*, in a Redis of its own at *port*; and how many users were looked at.

    Args:
        data: a copy of a trained data directory: seeding may write into it.
        folder: for Redis' files.

    Raises:
        SystemFailed: Redis did not start, or the store could not be filled.
    """
    folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.supervisor.redis_server", str(folder), "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            with redis.Redis(port=port, socket_timeout=READY_WITHIN_S) as client:
                _ready(client)
                _seed(data, port)
                return measured(client)
        finally:
            server.kill()


def measured(client: redis.Redis) -> tuple[dict[str, float], int]:
    """What → mean bytes a user of the store; and how many users have features or a history there."""
    summed: dict[str, int] = defaultdict(int)
    looked_at: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for key in client.scan_iter(count=1000):
        if (kind := kind_of(key)) is None:
            continue
        total[kind] += 1
        if looked_at[kind] < MOST_KEYS:
            looked_at[kind] += 1
            summed[kind] += int(client.memory_usage(key, samples=0) or 0)  # type: ignore[arg-type]  # redis-py types it as async, too
    users = max(total.values(), default=0)
    means = {kind: summed[kind] / looked_at[kind] * total[kind] / users for kind in summed}
    return dict(sorted(means.items())), users


def kind_of(key: bytes) -> str | None:
    """What *key* holds of a user; None: it is of nobody, or of an item."""
    for prefix, kind in _PREFIXES.items():
        if key.startswith(prefix):
            return kind
    return FEATURES if _USER_ENTITY in key and not key.startswith(b"tutti:") else None


def _ready(client: redis.Redis) -> None:
    gives_up = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            client.ping()
            return
        except redis.exceptions.RedisError as error:
            if time.monotonic() > gives_up:
                raise SystemFailed(f"Redis did not start within {READY_WITHIN_S:g} s: {error}") from error
        time.sleep(0.1)


def _seed(data: Path, port: int) -> None:
    command = [sys.executable, "-m", "services.ingestion.seed", "--data", str(data)]
    done = subprocess.run(
        [*command, "--redis", f"redis://127.0.0.1:{port}/0"],
        capture_output=True,
        text=True,
        timeout=SEEDED_WITHIN_S,
        check=False,
    )
    if done.returncode:
        raise SystemFailed(f"the store was not filled: {done.stderr.strip().splitlines()[-1:]}")
