"""Seeding, with this repository's feature definitions: all of it, once, and nothing that the edge wrote is lost."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import redis

from protos import vocabulary
from protos.history import decode_entries, encode_entries, history_key, slates_key, watermark_key
from services.ingestion.seed import MARKER, NotSeeded, seed
from services.training import features

pytestmark = pytest.mark.integration

LAST = datetime(2024, 3, 1, tzinfo=UTC)
LAST_US = int(LAST.timestamp()) * 1_000_000


def write_shop(data: Path, n_events: int = 250) -> None:
    """Anna saw item a many times and bought b last; Ben bought b once."""
    rows = [("anna", "a", "view", n_events - i) for i in range(n_events)]
    rows += [("ben", "b", "purchase", 5), ("anna", "b", "purchase", 0)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "minutes"])
    frame["timestamp"] = [LAST - timedelta(minutes=m) for m in frame.pop("minutes")]
    frame["event_id"] = [f"e{i}" for i in range(len(frame))]
    frame = frame.assign(session_id="s", quantity=1.0, price=2.0).sort_values("timestamp", kind="stable")
    data.mkdir(exist_ok=True)
    frame.to_parquet(data / "events.parquet", coerce_timestamps="us")
    items = pd.DataFrame({"item_id": ["a", "b"], "title": "t", "category": ["X > Y", None], "price": [2.0, 4.0]})
    items.to_parquet(data / "items.parquet")
    vocabulary.write(data / vocabulary.FILE_NAME, ["a", "b"])
    (data / "dataset.json").write_text(json.dumps({"events": n_events}))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("seed") / "shop"
    write_shop(data)
    return data


def column(entity, row, name: str) -> float:
    return row.numeric[0][entity.numeric.index(name)]


def test_a_new_store_gets_features_and_histories_and_is_left_alone_afterwards(shop: Path, redis_url: str) -> None:
    assert seed(shop, redis_url)
    assert not seed(shop, redis_url)

    plan = features.compile_plan(shop)
    with redis.Redis.from_url(redis_url) as client:
        anna = plan.user.decode([client.hmget(plan.user.redis_key("anna"), plan.user.fields)], LAST.timestamp())
        item = plan.item.decode([client.hmget(plan.item.redis_key("a"), plan.item.fields)], LAST.timestamp())
        history = decode_entries(client.lrange(history_key("u:anna"), 0, -1))
        assert client.get(watermark_key("u:ben")) == b"1"
    assert column(plan.user, anna, "user_activity__events") == 251
    assert column(plan.user, anna, "user_activity__purchases") == 1
    assert anna.categorical[0][plan.user.categorical.index("user_profile__favourite_category")] == "X > Y"
    assert column(plan.item, item, "item_activity__views_7d") == 250
    assert item.categorical[0][plan.item.categorical.index("item_catalogue__department")] == "X"
    assert len(history) == 200
    assert tuple(history[-1]) == (1, 6, LAST_US)


def test_after_a_retraining_features_are_new_and_live_history_stays(shop: Path, redis_url: str) -> None:
    seed(shop, redis_url)
    live = encode_entries([0], [1], [LAST_US + 1])
    plan = features.compile_plan(shop)
    key = plan.user.redis_key("anna")
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(history_key("u:anna"), *live)
        client.hset(slates_key("u:anna"), "home", "cached")
        client.hset(key, plan.user.fields[0], b"")  # a feature that the new definitions add: same moment, new value
        marker = client.get(MARKER).decode().split(".")
        # Other features on the same data, then other data of the same shop.
        for part in (2, 1):
            client.set(MARKER, ".".join("0" * 16 if i == part else d for i, d in enumerate(marker)))

            assert seed(shop, redis_url)

            assert client.lindex(history_key("u:anna"), 0) == live[0]
            assert client.llen(history_key("u:anna")) == 200 + (part == 2)
            assert client.hget(key, plan.user.fields[0])
        assert not client.exists(slates_key("u:anna"))


def test_another_shops_store_is_refused_until_told_to_replace(shop: Path, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(MARKER, "another.x.y")
        client.lpush(history_key("v:x"), *encode_entries([0], [1], [1]))

        with pytest.raises(NotSeeded, match="another shop"):
            seed(shop, redis_url)
        assert client.exists(history_key("v:x"))

        seed(shop, redis_url, is_replacing=True)
        assert not client.exists(history_key("v:x"))


def test_what_is_no_data_directory_is_named(tmp_path: Path, redis_url: str) -> None:
    with pytest.raises(NotSeeded, match=r"no dataset\.json"):
        seed(tmp_path, redis_url)
