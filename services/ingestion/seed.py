"""
`python -m services.ingestion.seed --data DIR --redis URL`: fill an online store from a data directory, once.

Features go through Feast's own materialisation, histories through the layout of protos/history.py. A marker in Redis
says what was seeded, as `shop.events.features`; when it matches, this ends before anything heavy is imported.
What shoppers did after the last event of the data directory stays in their histories.

Exit code 0 when the store holds what it should, 1 with one sentence when it does not, 2 for wrong usage.

Example:
    python -m services.ingestion.seed --data .tutti/shop --redis redis://127.0.0.1:6379/0
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from protos.catalogue import ITEMS, STREAM
from protos.live_features import POSITION

MARKER = "tutti:seeded"

EXAMPLE = "example: python -m services.ingestion.seed --data .tutti/shop --redis redis://127.0.0.1:6379/0"

# Borrowed from the limit of a batch job: a loaded machine may need seconds for a batch, a dead Redis must be noticed.
TIMEOUT_S = 30.0


class NotSeeded(Exception):
    """The store cannot be filled; the message is the one sentence that is shown."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """
    What a store was filled with, three digests.

    shop      the first interned item: keys in histories mean the same items
    events    the canonical data
    features  definitions that aliased models read
    """

    shop: str
    events: str
    features: str

    def __str__(self) -> str:
        return f"{self.shop}.{self.events}.{self.features}"

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """The marker's text; anything unreadable matches nothing."""
        shop, events, features = (*text.split("."), "", "", "")[:3]
        return cls(shop, events, features)


def main() -> int:
    """See the module."""
    arguments = _arguments()
    try:
        seed(arguments.data, arguments.redis, is_replacing=arguments.replace)
    except (NotSeeded, redis.exceptions.RedisError, OSError) as error:
        print(f"seed: {error}", file=sys.stderr)  # noqa: T201  # a command's answer
        return 1
    return 0


def seed(data: Path, redis_url: str, is_replacing: bool = False) -> bool:
    """
    Make the store at *redis_url* hold the features and histories of *data*.

    Returns:
        Whether anything was written.

    Raises:
        NotSeeded: no usable data directory, or the store belongs to another shop and *is_replacing* is not set.
        redis.exceptions.RedisError: Redis is not there or refuses.
    """
    began_at = time.monotonic()
    _without_erased(data, began_at)
    wanted = fingerprint(data)
    with redis.Redis.from_url(
        redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    ) as client:
        found = Fingerprint.parse((client.get(MARKER) or b"").decode())
        if found == wanted:
            _say("the store already holds this shop", began_at)
            return False
        if found.shop and found.shop != wanted.shop:
            if not is_replacing:
                raise NotSeeded(
                    f"the Redis at {redis_url.rsplit('@', maxsplit=1)[-1]} holds another shop than {data}; "
                    "use another database, or --replace to drop its histories"
                )
            _forget(client)
        elif found.events and found.events != wanted.events:
            # The data was made anew, its items with it: what was changed before is in it or is not meant.
            client.delete(ITEMS, STREAM)
        client.delete(MARKER, POSITION)  # whoever is stopped half-way starts again
        n_rows = _materialise(data, redis_url, began_at)
        _say(f"features: {n_rows} rows", began_at)
        if found.events != wanted.events or found.shop != wanted.shop:
            n_users, n_events = _histories(data, client)
            _say(f"histories: {n_events} events of {n_users} shoppers", began_at)
        # Rows of the data directory's last day stand where fresher ones did; ingestion makes them anew.
        client.delete(POSITION)
        client.set(MARKER, str(wanted))
    _say("seeded", began_at)
    return True


def fingerprint(data: Path) -> Fingerprint:
    """
    What *data* would fill a store with.

    Raises:
        NotSeeded: it is no data directory, or was never trained on.
    """
    from protos import vocabulary

    for name, maker in (
        ("dataset.json", "data import"),
        ("events.parquet", "data import"),
        ("vocabulary.parquet", "train"),
    ):
        if not (data / name).is_file():
            raise NotSeeded(f"no {name} in {data}; `tutti {maker}` makes one")
    ids = vocabulary.read(data / vocabulary.FILE_NAME)
    features = hashlib.sha256()
    for aliases in sorted((data / "models").glob("*/aliases.json")):
        for alias, version in sorted(json.loads(aliases.read_text()).items()):
            plan = aliases.parent / str(version) / "read_plan.json"
            if plan.is_file():
                features.update(f"{aliases.parent.name} {alias} {json.loads(plan.read_text())['digest']}\n".encode())
    return Fingerprint(
        shop=hashlib.sha256("".join(ids[:1]).encode()).hexdigest()[:16],
        events=hashlib.sha256((data / "dataset.json").read_bytes()).hexdigest()[:16],
        features=features.hexdigest()[:16],
    )


def _without_erased(data: Path, began_at: float) -> None:
    """Nobody who was erased comes back with an empty store."""
    from protos import redactions

    if (data / redactions.FILE_NAME).is_file():
        from services.training import redaction

        _say(f"erased people: {redaction.honour(data)} rows removed", began_at)


def _materialise(data: Path, redis_url: str, began_at: float) -> int:
    _say("importing Feast", began_at)
    from services.training import materialise
    from services.training.feature_store import FeatureError

    try:
        return materialise.materialise(data, redis_url, lambda text: _say(text, began_at))
    except FeatureError as error:
        raise NotSeeded(str(error)) from error


def _histories(data: Path, client: Any) -> tuple[int, int]:
    from services.ingestion import histories

    return histories.write(data, client)


def _forget(client: Any) -> None:
    """Drop what only makes sense with another shop's keys. Features are overwritten or never read."""
    for kind in ("history", "shown", "watermark", "slates", "identity", "visitors"):
        for key in client.scan_iter(f"tutti:{kind}:*", count=1000):
            client.delete(key)
    client.delete(ITEMS, STREAM)


def _say(text: str, began_at: float) -> None:
    print(f"seed {time.monotonic() - began_at:5.1f} s  {text}", flush=True)  # noqa: T201  # a command's progress


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m services.ingestion.seed",
        description="Fill an online store from a data directory.",
        epilog=EXAMPLE,
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory, trained")
    parser.add_argument("--redis", required=True, help="redis://host:port/db or unix:///path")
    parser.add_argument("--replace", action="store_true", help="drop the histories of another shop in the same Redis")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
