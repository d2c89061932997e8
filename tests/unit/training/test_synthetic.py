"""The embedded shop: same seed same bytes, an honest catalogue, believable behaviour, a truth that is true."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.training.synthetic import Truth, build, calendar
from services.training.synthetic.taxonomy import LEAVES
from services.training.synthetic.writing import EVENTS_SCHEMA


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shop")
    build(out, seed=3, shoppers=900, items=600, days=150)
    return out


@pytest.fixture(scope="module")
def events(shop: Path) -> pd.DataFrame:
    return pd.read_parquet(shop / "events.parquet")


@pytest.fixture(scope="module")
def items(shop: Path) -> pd.DataFrame:
    return pd.read_parquet(shop / "items.parquet")


def digests(directory: Path) -> dict[str, str]:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(tmp_path / name, seed=5, shoppers=60, items=120, days=30)

    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_another_seed_is_another_shop(tmp_path: Path) -> None:
    one = build(tmp_path / "a", seed=5, shoppers=60, items=120, days=30)
    two = build(tmp_path / "b", seed=6, shoppers=60, items=120, days=30)

    assert set(one["sha256"].values()).isdisjoint(two["sha256"].values())


def test_the_dataset_file_tells_what_lies_beside_it(shop: Path, events: pd.DataFrame, items: pd.DataFrame) -> None:
    written = json.loads((shop / "dataset.json").read_text())

    assert written["source"] == "synthetic"
    assert (written["events"], written["items"]) == (len(events), len(items))
    assert written["users"] == events["user_id"].nunique()
    assert written["rows_kept"] + sum(written["rows_dropped"].values()) == written["rows_read"]
    assert written["sha256"] == {name: digests(shop)[name] for name in ("events.parquet", "items.parquet")}


def test_events_are_canonical_and_in_order_of_time(shop: Path, events: pd.DataFrame) -> None:
    assert pq.read_schema(shop / "events.parquet").equals(EVENTS_SCHEMA)
    assert events["timestamp"].is_monotonic_increasing
    assert events["event_id"].is_unique
    assert set(events["event_type"]) == {"view", "add_to_cart", "remove_from_cart", "purchase"}
    assert events["timestamp"].max().date() == calendar.LAST_DAY
    assert events["timestamp"].min().date() >= calendar.first_day(150)


def test_every_event_is_about_an_item_that_was_on_sale_that_day(
    shop: Path, events: pd.DataFrame, items: pd.DataFrame
) -> None:
    truth = pd.read_parquet(shop / "truth" / "items.parquet").set_index("item_id")

    day = (events["timestamp"].dt.tz_localize(None).dt.normalize() - pd.Timestamp(calendar.first_day(150))).dt.days
    lifetime = truth.loc[events["item_id"]]

    assert set(events["item_id"]) <= set(items["item_id"])
    assert (lifetime["born_day"].to_numpy() <= day.to_numpy()).all()
    assert (day.to_numpy() < lifetime["dies_day"].to_numpy()).all()


def test_titles_are_readable_and_no_two_are_the_same(items: pd.DataFrame) -> None:
    shape = re.compile(r"[A-Z][\w'’&éâ -]+(, [A-Z][\w ]+)?( No\. \d+)?")

    assert items["title"].is_unique
    assert [t for t in items["title"] if not shape.fullmatch(t)] == []
    assert items["title"].str.split().str.len().between(2, 11).all()
    assert items["description"].str.len().min() > 40
    assert items["item_id"].str.fullmatch(r"P\d{5}").all()


def test_the_catalogue_has_prices_brands_and_three_levels_of_categories(items: pd.DataFrame) -> None:
    assert 60 <= len(LEAVES) <= 100
    assert (items["price"] > 0).all()
    assert items["brand"].str.len().gt(0).all()
    assert items["category"].str.count(" > ").eq(2).all()
    assert 0.02 < 1 - items["in_stock"].mean() < 0.3
    assert items["attributes"].map(json.loads).map(lambda a: {"parent", "range", "released"} <= set(a)).all()


def test_complements_name_leaves_that_exist() -> None:
    names = {leaf.name for leaf in LEAVES}

    assert len(names) == len(LEAVES)
    assert {c for leaf in LEAVES for c in leaf.complements} <= names
    assert {leaf.season for leaf in LEAVES} <= set(calendar.SEASONS)


def test_the_funnel_is_near_100_to_12_to_4(events: pd.DataFrame) -> None:
    count = events["event_type"].value_counts()

    assert 8 < 100 * count["add_to_cart"] / count["view"] < 18
    assert 2.5 < 100 * count["purchase"] / count["view"] < 8
    assert 0 < count["remove_from_cart"] < count["add_to_cart"] / 4


def test_what_is_bought_or_removed_lay_in_the_cart_before(events: pd.DataFrame) -> None:
    carted = events[events["event_type"] == "add_to_cart"].set_index(["session_id", "item_id"])["timestamp"]
    ends = events[events["event_type"].isin(["purchase", "remove_from_cart"])]

    put_in = carted.reindex(pd.MultiIndex.from_frame(ends[["session_id", "item_id"]]))

    assert carted.index.is_unique
    assert put_in.notna().all()
    assert (put_in.to_numpy() <= ends["timestamp"].to_numpy()).all()
    assert not ends.duplicated(["session_id", "item_id"]).any()


def test_a_session_belongs_to_one_shopper_and_lasts_at_most_an_hour(events: pd.DataFrame) -> None:
    sessions = events.groupby("session_id").agg(
        users=("user_id", "nunique"), start=("timestamp", "min"), end=("timestamp", "max")
    )

    assert sessions["users"].max() == 1
    assert (sessions["end"] - sessions["start"]).max() < pd.Timedelta(hours=1)


def test_guests_exist_and_some_log_in_later(shop: Path, events: pd.DataFrame) -> None:
    people = pd.read_parquet(shop / "truth" / "shoppers.parquet")
    late = people[people["logs_in_at"].notna()].set_index("visitor_id")
    ids = set(events["user_id"])
    switched = late[late.index.isin(ids) & late["user_id"].isin(ids)]

    first_as_user = events.groupby("user_id")["timestamp"].min()
    last_as_guest = events.groupby("user_id")["timestamp"].max()

    assert all(re.fullmatch(r"u\d{4}|v-[0-9a-f]{12}", i) for i in ids)
    assert sum(i.startswith("v-") for i in ids) > 50
    assert len(switched) > 20
    assert (last_as_guest[switched.index].to_numpy() < switched["logs_in_at"].to_numpy()).all()
    assert (first_as_user[switched["user_id"]].to_numpy() >= switched["logs_in_at"].to_numpy()).all()


def test_true_complements_are_bought_together_far_more_than_chance(shop: Path, events: pd.DataFrame) -> None:
    lines = events[events["event_type"] == "purchase"][["session_id", "item_id"]]
    pairs = lines.merge(lines, on="session_id", suffixes=("", "_other")).query("item_id != item_id_other")
    truth = pd.read_parquet(shop / "truth" / "complements.parquet")
    known = set(zip(truth["item_id"], truth["complement_id"], strict=True))
    share = lines["item_id"].value_counts(normalize=True)

    seen = np.mean([pair in known for pair in zip(pairs["item_id"], pairs["item_id_other"], strict=True)])
    chance = sum(share.get(a, 0.0) * share.get(b, 0.0) for a, b in known)

    assert seen > 10 * chance


def test_substitutes_share_a_leaf_and_are_seldom_in_one_basket(shop: Path, events: pd.DataFrame) -> None:
    items = pd.read_parquet(shop / "truth" / "items.parquet").set_index("item_id")
    truth = pd.read_parquet(shop / "truth" / "substitutes.parquet")
    known = set(zip(truth["item_id"], truth["substitute_id"], strict=True))

    together = {}
    for kind in ("view", "purchase"):
        lines = events[events["event_type"] == kind][["session_id", "item_id"]]
        pairs = lines.merge(lines, on="session_id", suffixes=("", "_other")).query("item_id != item_id_other")
        together[kind] = np.mean([p in known for p in zip(pairs["item_id"], pairs["item_id_other"], strict=True)])

    assert (
        items.loc[truth["item_id"], "leaf"].to_numpy() == items.loc[truth["substitute_id"], "leaf"].to_numpy()
    ).all()
    assert together["purchase"] < together["view"]


def test_shoppers_buy_what_the_truth_says_they_like(shop: Path, events: pd.DataFrame) -> None:
    truth = Truth.load(shop / "truth")
    row = {item: k for k, item in enumerate(truth.item_ids)}
    bought = events[events["event_type"] == "purchase"].drop_duplicates(["user_id", "item_id"])
    people = np.array([truth.rows_of[user] for user in bought["user_id"]])
    columns = np.array([row[item] for item in bought["item_id"]])

    affinity = truth.affinity(people, 0.5)
    mine = affinity[np.arange(len(people)), columns]
    rank = (affinity < mine[:, None]).mean(axis=1)

    assert affinity.dtype == np.float32
    assert rank.mean() > 0.75


def test_consumables_come_back_and_lasting_things_seldom_do(events: pd.DataFrame, items: pd.DataFrame) -> None:
    cycle = {leaf.path: leaf.cycle_days for leaf in LEAVES}
    consumable = items.set_index("item_id")["category"].map(cycle) > 0
    lines = events[events["event_type"] == "purchase"]
    again = lines.duplicated(["user_id", "item_id"])
    is_consumable = lines["item_id"].map(consumable)

    assert 0.1 < again.mean() < 0.4
    assert again[is_consumable].mean() > 5 * again[~is_consumable].mean()


def test_a_number_of_events_can_be_asked_for(tmp_path: Path) -> None:
    written = build(tmp_path, seed=1, shoppers=400, items=200, days=60, events=20_000)

    assert written["events"] == pytest.approx(20_000, rel=0.05)


def test_rows_are_written_in_groups_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.training.synthetic.writing.ROW_GROUP", 500)

    written = build(tmp_path, seed=1, shoppers=200, items=120, days=40)

    file = pq.ParquetFile(tmp_path / "events.parquet")
    sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    assert sum(sizes) == written["events"]
    assert len(sizes) > 3
    assert max(sizes) <= 500
    assert file.schema_arrow.field("timestamp").type == pa.timestamp("us", "UTC")


def test_progress_rises_to_one(tmp_path: Path) -> None:
    told: list[float] = []

    build(tmp_path, shoppers=20, items=40, days=28, progress=lambda share, what: told.append(share))

    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)


@pytest.mark.parametrize("wrong", [{"shoppers": 3}, {"items": 5}, {"days": 2}, {"seed": -1}])
def test_a_size_that_cannot_make_a_shop_is_refused_by_name(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build(tmp_path / "shop", **wrong)

    assert not (tmp_path / "shop").exists()


def test_a_directory_without_truth_says_where_truth_comes_from(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="tutti data synth"):
        Truth.load(tmp_path)
