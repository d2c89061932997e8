"""
The direct reader and Feast's SDK read the same values from the same Redis: what docs call the format, and what Feast
really writes. The definitions here hold every type; the SDK is right by definition, but for a ttl, which it ignores.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import redis

from orchestrator.adapters.feast_reader import FeastRedisReader
from protos.feast_layout import EntityPlan, ReadPlan
from protos.history import encode_entries, history_key, watermark_key
from services.chassis.item_matrix import ItemMatrix
from services.training import features
from services.training.feature_store import open_store

pytestmark = pytest.mark.integration

SETTINGS = """
project: parity
provider: local
registry: {registry_type: sql, path: "sqlite:///${TUTTI_DATA}/feature_store/registry.db"}
online_store: {type: redis, connection_string: "localhost:1"}
offline_store: {type: duckdb}
entity_key_serialization_version: 3
data_quality_monitoring: {auto_baseline: false}
"""

DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

SCALARS = {
    "f32": Float32, "f64": Float64, "i32": Int32, "i64": Int64, "flag": Bool, "text": String, "at": UnixTimestamp,
    "raw": Bytes, "f32s": Array(Float32), "f64s": Array(Float64), "i64s": Array(Int64), "texts": Array(String),
    "flags": Array(Bool),
}
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)


def view(name, entity, types, ttl_s=0):
    return FeatureView(
        name=name, entities=[entity], ttl=timedelta(seconds=ttl_s), source=FileSource(
            name=name, path="/nowhere.parquet", timestamp_field="event_timestamp"
        ), schema=[Field(name=n, dtype=t) for n, t in types.items()],
    )


every_type = view("every_type", user, SCALARS)
short_lived = view("short_lived", user, {"f32": Float32, "text": String}, ttl_s=3600)
numbers = view("numbers", item, {"f32": Float32, "i64": Int64, "text": String})
service = FeatureService(name="parity_v1", features=[every_type, numbers, short_lived])
"""

NOW = datetime.now(UTC).replace(microsecond=123456)
USERS = ["anna", "", "ünïcödé 名前 🎻", "x" * 300, "42", "nulls", "empty"]
MISSING_USER = "nobody"
EDGE_INTS = [0, 1, -1, 127, 128, 2**31 - 1, -(2**31)]
EDGE_FLOATS = [0.0, -0.0, 1.5, -3.25, float("inf"), float("-inf"), 1e-40]


def every_type_rows() -> pd.DataFrame:
    rows = [
        {
            "user_id": user,
            "event_timestamp": NOW - timedelta(minutes=i),
            "f32": EDGE_FLOATS[i],
            "f64": EDGE_FLOATS[i] / 3,
            "i32": EDGE_INTS[i],
            "i64": EDGE_INTS[i] * 2**31,
            "flag": bool(i % 2),
            "text": ["", "plain", "ü" * 200, "x" * 127, "x" * 128, "a\x00b", "z"][i],
            "at": datetime(2020, 1, 1 + i, tzinfo=UTC),
            "raw": bytes(range(i)),
            "f32s": [0.5 * j for j in range(i)],
            "f64s": [0.1 * j for j in range(i)],
            "i64s": [-j for j in range(i)],
            "texts": [f"ß{j}" for j in range(i)],
            "flags": [j % 2 == 0 for j in range(i)],
        }
        for i, user in enumerate(USERS)
    ]
    nulls = {name: None for name in rows[0] if name not in ("user_id", "event_timestamp")}
    rows[USERS.index("nulls")] |= nulls
    return pd.DataFrame(rows).astype({"i32": "Int32", "i64": "Int64", "flag": "boolean"})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory whose registry holds DEFINITIONS."""
    repo = tmp_path_factory.mktemp("feature_repo")
    (repo / "feature_store.yaml").write_text(SETTINGS)
    (repo / "definitions.py").write_text(DEFINITIONS)
    data = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTTI_FEATURE_REPO", str(repo))
        features.apply(data)
        yield data


@pytest.fixture
def store(repository: Path, redis_url: str):
    """Feast's SDK on a Redis that holds the rows."""
    store = open_store(repository, redis_url)
    store.write_to_online_store("every_type", every_type_rows())
    old, fresh = NOW - timedelta(hours=2), NOW - timedelta(minutes=5)
    short_lived = {"user_id": ["anna", "42"], "event_timestamp": [old, fresh], "f32": [1.0, 2.0], "text": ["a", "b"]}
    store.write_to_online_store("short_lived", pd.DataFrame(short_lived))
    numbers = {
        "item_id": range(-20, 20),
        "event_timestamp": [NOW] * 40,
        "f32": np.linspace(-1, 1, 40),
        "i64": [i * 3**25 for i in range(-20, 20)],
        "text": [f"item {i}" for i in range(40)],
    }
    store.write_to_online_store("numbers", pd.DataFrame(numbers))
    return store


@pytest.fixture
def plan(repository: Path) -> ReadPlan:
    return features.compile_plan(repository, "parity_v1")


def through_sdk(store, entity: EntityPlan, ids: list) -> dict[str, list]:
    refs = [f"{view.name}:{name}" for view in entity.views for name, _ in view.features]
    return store.get_online_features(refs, {entity.join_key: ids}, full_feature_names=True).to_dict()


def directly(redis_url: str, entity: EntityPlan, ids: list, now_s: float):
    with redis.Redis.from_url(redis_url) as client:
        return entity.decode([client.hmget(entity.redis_key(str(i)), entity.fields) for i in ids], now_s)


def as_float(value) -> float:
    if value is None:
        return np.nan
    return value.timestamp() if isinstance(value, datetime) else float(value)


# 1: the path of one shopper; 4: many rows, the path of the item matrix.
@pytest.mark.parametrize("repeat", [1, 4])
def test_every_type_reads_as_the_sdk_reads_it(store, plan: ReadPlan, redis_url: str, repeat: int) -> None:
    ids = [*USERS, MISSING_USER] * repeat
    sdk = through_sdk(store, plan.user, ids)

    direct = directly(redis_url, plan.user, ids, now_s=0)

    with np.errstate(over="ignore"):
        numeric = np.array([[as_float(v) for v in sdk[c]] for c in plan.user.numeric], np.float64).T.astype(np.float32)
    np.testing.assert_array_equal(direct.numeric, numeric)
    assert len(plan.user.numeric) == 7
    for i, column in enumerate(plan.user.categorical):
        assert direct.categorical[:, i].tolist() == [value or "" for value in sdk[column]]
    assert set(direct.others) == {f"every_type__{n}" for n in ("raw", "f32s", "f64s", "i64s", "texts", "flags")}
    for column, values in direct.others.items():
        assert [list(v) if isinstance(v, tuple) else v for v in values] == sdk[column]
    assert direct.found.tolist() == [user != MISSING_USER for user in ids]


def test_integer_keys_read_as_the_sdk_reads_them(store, plan: ReadPlan, redis_url: str) -> None:
    ids = list(range(-22, 22))
    sdk = through_sdk(store, plan.item, ids)

    direct = directly(redis_url, plan.item, ids, now_s=0)

    numeric = np.array([[as_float(v) for v in sdk[c]] for c in plan.item.numeric], np.float64).T.astype(np.float32)
    np.testing.assert_array_equal(direct.numeric, numeric)
    assert direct.categorical[:, 0].tolist() == [value or "" for value in sdk["numbers__text"]]
    assert direct.found.sum() == 40


def test_a_row_past_its_ttl_is_missing_here_and_served_by_the_sdk(store, plan: ReadPlan, redis_url: str) -> None:
    column = plan.user.numeric.index("short_lived__f32")

    direct = directly(redis_url, plan.user, ["anna", "42"], NOW.timestamp())

    assert through_sdk(store, plan.user, ["anna", "42"])["short_lived__f32"] == [1.0, 2.0]
    np.testing.assert_array_equal(direct.numeric[:, column], [np.nan, 2.0])
    assert direct.categorical[:, plan.user.categorical.index("short_lived__text")].tolist() == ["", "b"]
    assert direct.found.tolist() == [True, True]


async def test_the_reader_gives_features_history_and_watermark_together(store, plan: ReadPlan, redis_url: str) -> None:
    user = USERS[2]
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(history_key(f"u:{user}"), *encode_entries([5, 7], [1, 6], [10, 20]))
        client.set(watermark_key(f"u:{user}"), 12)
    reader = FeastRedisReader(plan, redis_url)
    await reader.start()

    row = await reader.read(f"u:{user}", user, NOW.timestamp())
    visitor = await reader.read("v:somebody", None, NOW.timestamp())
    await reader.close()

    expected = directly(redis_url, plan.user, [user], NOW.timestamp())
    np.testing.assert_array_equal(row.numeric, expected.numeric[0])
    assert row.categorical == tuple(expected.categorical[0])
    assert row.found
    assert row.history_keys.tolist() == [5, 7]
    assert row.watermark == 12
    assert np.isnan(visitor.numeric).all()
    assert visitor.numeric.shape == row.numeric.shape
    assert (visitor.categorical, visitor.found, len(visitor.history_keys), visitor.watermark) == (("", ""), False, 0, 0)


def test_the_item_matrix_holds_what_the_store_holds(store, plan: ReadPlan, redis_url: str) -> None:
    ids = [str(i) for i in range(-22, 22)]
    snapshot = np.full((44, 2), 99, np.float32), np.full((44, 1), "then", object)
    matrix = ItemMatrix(plan, ids, redis_url, snapshot)
    before = matrix.numeric

    n_found = matrix.refresh()

    expected = directly(redis_url, plan.item, ids, time.time())
    assert n_found == 40
    np.testing.assert_array_equal(matrix.numeric[expected.found], expected.numeric[expected.found])
    # What the store does not know stays as training saw it; the old arrays are untouched.
    np.testing.assert_array_equal(matrix.numeric[~expected.found], np.full((4, 2), 99))
    assert matrix.categorical[:, 0].tolist() == ["then"] * 2 + expected.categorical[2:42, 0].tolist() + ["then"] * 2
    assert (before == 99).all()


def test_the_item_matrix_outlives_its_redis(plan: ReadPlan) -> None:
    snapshot = np.full((2, 2), 7, np.float32), np.full((2, 1), "then", object)
    matrix = ItemMatrix(plan, ["1", "2", "3"], "redis://127.0.0.1:1/0", snapshot)

    matrix.start(every_s=60)
    matrix.stop()

    np.testing.assert_array_equal(matrix.numeric, [[7, 7], [7, 7], [np.nan, np.nan]])
    assert matrix.categorical[:, 0].tolist() == ["then", "then", ""]
    with pytest.raises(redis.exceptions.ConnectionError):
        matrix.refresh()
