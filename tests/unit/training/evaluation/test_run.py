"""A whole evaluation on the shapes that public data comes in, with a pipeline that answers at once."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos.tuned import Tuned
from services.training import tuned
from services.training.dataset import DatasetUnusable
from services.training.evaluation import methods, run, tables
from services.training.importers import import_dataset
from services.training.sources import SourceSpec
from tests.support.small_shop import START_US, tastes, write_shop

SOURCES = (SourceSpec("content_based"),)
DAY_S = 86_400


def popular_pipeline(place, queries, out, exclude_seen, diversity):
    """Answers everybody with the past's most frequent items, but what is in the context."""
    items = pq.read_table(place / "events.parquet", columns=["item_id"])["item_id"].to_numpy(zero_copy_only=False)
    names, counts = np.unique(items, return_counts=True)
    best = names[np.argsort(-counts, kind="stable")].tolist()
    lines = []
    for number, row in enumerate(pq.read_table(queries).to_pylist()):
        context = {*row["context_item_ids"], *row["cart_item_ids"]}
        kept = [item for item in best if item not in context][:20]
        for stage in ("source:one", "fused", "slate"):
            lines += [
                {
                    "query": number,
                    "user_id": row["user_id"],
                    "item_id": item,
                    "rank": r,
                    "score": -float(r),
                    "stage": stage,
                }
                for r, item in enumerate(kept, 1)
            ]
    pq.write_table(pa.Table.from_pylist(lines), out)


def untrained(place, sources, seed, force, progress, promote_anyway):
    """Nothing is trained; the pipeline above needs no model."""
    progress("fitting nothing")


# What is quick and has something to tune; where all methods matter, a test says so.
QUICK = tuple(method for method in methods.PERSONAL if method.name in ("EASE", "repeat"))


def evaluate(data, baselines=QUICK, **plan):
    return run.evaluate(data, SOURCES, run.Plan(baselines=baselines, **plan), recommend=popular_pipeline, fit=untrained)


def test_every_method_of_the_protocol_is_in_the_report_and_the_files(tmp_path):
    data = write_shop(tmp_path, tastes(kind="shop"))

    result = evaluate(data, methods.PERSONAL, split="test", seeds=(7, 8), diversity=("low",))

    report = json.loads(result.path.read_text())
    assert list(report["tasks"]) == ["discovery", "rebuy", "item", "cart", "category"]
    assert list(result.figures["rebuy"]) == [
        "popularity", "recent popularity", "popular (the last rung)",
        "item-kNN", "user-kNN", "EASE", "iALS (implicit)", "content (TF-IDF)", "repeat",
        "source:one", "fused", "slate", "slate, diversity low",
    ]  # fmt: skip
    assert list(result.figures["cart"])[3:] == ["co-occurrence", "content (TF-IDF)", "source:one", "fused", "slate"]
    slate = result.figures["rebuy"]["slate"]
    assert {
        "recall_at_20",
        "ndcg_at_10",
        "mrr_at_10",
        "hit_at_10",
        "coverage_at_10",
        "novelty_at_10",
        "gini_at_10",
    } <= set(slate)
    assert slate["interval"]["ndcg_at_10"][0] <= slate["ndcg_at_10"] <= slate["interval"]["ndcg_at_10"][1]
    assert len(slate["by_seed"]["ndcg_at_10"]) == 2
    assert result.figures["rebuy"]["repeat"]["slate_gains"]["ndcg_at_10"]["p"] <= 1
    assert report["settings"]["EASE"]["discovery"]["tried"] > 1
    assert {"splitting the data", "judging"} <= {cost["stage"] for cost in report["costs"]}
    judged = pq.read_table(result.path.with_name("judged.parquet")).to_pandas()
    means = judged[judged["task"] == "rebuy"].groupby("method", observed=True)["ndcg_at_10"].mean()
    assert means["slate"] == pytest.approx(slate["ndcg_at_10"], abs=1e-6)
    assert tables.report_markdown(report).count("| slate |") >= 5


def test_a_pipeline_that_knows_the_future_is_perfect_and_one_that_knows_nothing_scores_nothing(tmp_path):
    data = write_shop(tmp_path, tastes(kind="shop"))
    last = pq.read_table(data / "events.parquet").to_pandas()
    last = last[last["timestamp"] >= last["timestamp"].max() - np.timedelta64(28, "D")]
    wanted = last.groupby("user_id")["item_id"].unique()

    def oracle(place, queries, out, exclude_seen, diversity):
        past = pq.read_table(place / "events.parquet").to_pandas().groupby("user_id")["item_id"].agg(set)
        lines = []
        for number, row in enumerate(pq.read_table(queries).to_pylist()):
            items = [i for i in wanted[row["user_id"]] if not (exclude_seen and i in past[row["user_id"]])]
            for rank, item in enumerate(items[:20], 1):
                lines.append({"query": number, "item_id": item, "rank": rank, "stage": "slate"})
            lines.append({"query": number, "item_id": "i0" if row["user_id"][-1] in "13579" else "i1"} | FUSED)
        pq.write_table(pa.Table.from_pylist(lines), out)

    result = run.evaluate(data, SOURCES, run.Plan("test", baselines=()), recommend=oracle, fit=untrained)

    for task in ("discovery", "rebuy"):
        assert result.figures[task]["slate"]["ndcg_at_10"] == pytest.approx(1.0)
        assert result.figures[task]["slate"]["recall_at_20"] == pytest.approx(1.0)
        # Odd shoppers never want an even thing.
        assert result.figures[task]["fused"]["hit_at_10"] == 0.0
        assert 0 < result.figures[task]["popularity"]["ndcg_at_10"] < 1
        assert result.figures[task]["popularity"]["slate_gains"]["ndcg_at_10"]["p"] < 0.01


FUSED = {"rank": 1, "stage": "fused"}


def test_what_shoppers_with_two_tastes_want_is_found_by_what_knows_them(tmp_path):
    data = write_shop(tmp_path, tastes(kind="shop"))

    figures = evaluate(data, methods.PERSONAL, split="test").figures["rebuy"]

    for method in ("item-kNN", "user-kNN", "EASE", "iALS (implicit)"):
        assert figures[method]["ndcg_at_10"] > 1.2 * figures["popularity"]["ndcg_at_10"]


def movielens(folder):
    """Ratings with times, films with genres; no sessions, no prices, only one kind of event."""
    rows = [(u, i, d) for u, i, _, d in tastes(days=100)]
    ratings = "".join(f"{int(u[1:]) + 1}::{int(i[1:]) + 1}::5::{1_000_000_000 + int(d * DAY_S)}\n" for u, i, d in rows)
    films = "".join(f"{i + 1}::Film {i} (1999)::{'Drama' if i % 2 else 'Comedy|Romance'}\n" for i in range(30))
    (folder / "ratings.dat").write_text(ratings)
    (folder / "movies.dat").write_text(films)


def amazon(folder):
    """Reviews of a day, not of a minute; products with categories and prices of some."""
    rows = [(u, i, d) for u, i, _, d in tastes(days=100)]
    reviews = [
        {"user_id": u, "parent_asin": i, "rating": 5.0, "timestamp": (1_600_000_000 + int(d) * DAY_S) * 1000}
        for u, i, d in rows
    ]
    kinds = ("Mugs", "Light")
    products = [
        {
            "parent_asin": f"i{i}",
            "title": f"{kinds[i % 2]} {i}",
            "categories": ["Home", kinds[i % 2]],
            "price": 3.5 if i % 3 else None,
        }
        for i in range(30)
    ]
    (folder / "Home.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reviews))
    (folder / "meta_Home.jsonl").write_text("".join(json.dumps(row) + "\n" for row in products))


def retailrocket(folder):
    """Views of visitors without a name, most of whom come once; no titles, no sessions, no prices."""
    rng = np.random.default_rng(5)
    rows = [(int(u[1:]), int(i[1:]), d) for u, i, _, d in tastes(days=100)]
    rows += [(1_000 + n, int(rng.integers(0, 30)), float(d)) for n, d in enumerate(rng.uniform(0, 100, 300))]
    lines = [f"{1_430_000_000_000 + int(d * DAY_S * 1000)},{u},view,{i}," for u, i, d in rows]
    (folder / "events.csv").write_text("\n".join(["timestamp,visitorid,event,itemid,transactionid", *lines]) + "\n")
    properties = [f"1429000000000,{i},categoryid,{1 + i % 2}" for i in range(30)]
    (folder / "item_properties_part1.csv").write_text(
        "\n".join(["timestamp,itemid,property,value", *properties]) + "\n"
    )
    (folder / "item_properties_part2.csv").write_text("timestamp,itemid,property,value\n")
    (folder / "category_tree.csv").write_text("categoryid,parentid\n1,\n2,\n")


@pytest.mark.parametrize(
    ("source", "make"), [("movielens", movielens), ("amazon-reviews", amazon), ("retailrocket", retailrocket)]
)
def test_the_same_command_judges_every_public_format(tmp_path, source, make):
    (tmp_path / "source").mkdir()
    make(tmp_path / "source")
    import_dataset(source, tmp_path / "source", tmp_path / "shop")

    result = evaluate(tmp_path / "shop", split="test")

    assert {"discovery", "rebuy"} <= set(result.figures)
    left_out = result.report["left_out"]
    if source == "movielens":
        assert set(left_out["tasks"]) <= {"newcomers", "item", "cart"}
    if source == "retailrocket":
        assert "no basket" in left_out["tasks"]["cart"]
        assert "one event" in result.report["tasks"]["newcomers"]["slices"] or result.figures["newcomers"]
    assert {"EASE", "repeat", "slate"} <= set(result.figures["rebuy"])
    assert json.loads(result.path.read_text())["tasks"].keys() == result.report["tasks"].keys()


def test_what_is_too_big_is_left_out_by_name_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "EASE_LIMIT", 10)
    monkeypatch.setattr(methods, "MOST_PRODUCTS", 10)
    data = write_shop(tmp_path, tastes(), titles=False, categories=False)

    result = evaluate(data, methods.PERSONAL, split="test")

    reasons = result.report["left_out"]["methods"]
    assert set(reasons) == {"item-kNN", "user-kNN", "EASE", "content (TF-IDF)", "co-occurrence"}
    assert "30 items, at most 10" in reasons["EASE"]
    assert "repeat" in result.figures["rebuy"]
    assert all(f"- {name}: {reason}" in tables.report_markdown(result.report) for name, reason in reasons.items())


@pytest.mark.parametrize(("late_us", "is_judged"), [(0, True), (1, False)])
def test_what_was_tuned_is_judged_only_if_it_has_not_seen_the_window(tmp_path, late_us, is_judged):
    data = write_shop(tmp_path, tastes(kind="shop"))
    untuned = evaluate(data, baselines=(), split="test").report
    latest = pq.read_table(data / "events.parquet")["timestamp"].cast("int64").to_numpy().max()
    start_us = int(latest) + 1 - 28 * DAY_S * 10**6
    found = Tuned({"content_based": {"half_life_days": 7.0}}, None, {}, start_us + late_us)
    tuned.write(data, found, {})

    report = evaluate(data, baselines=(), split="test", seeds=(7, 8)).report

    for seed in (7, 8):
        place = data / "evaluation" / "test" / f"seed-{seed}"
        assert tuned.of(place, ["content_based"]) == (found if is_judged else Tuned())
    assert (report["recipe"] != untuned["recipe"]) == is_judged
    assert ("judging what was tuned" in report["tuned"]["said"]) == is_judged
    assert untuned["tuned"] is None


def test_data_too_short_to_tune_on_is_judged_with_the_defaults(tmp_path):
    data = write_shop(tmp_path, tastes(days=45))

    result = evaluate(data, split="test")

    assert result.report["settings"]["EASE"]["rebuy"]["tried"] == 0
    assert result.report["settings"]["EASE"]["rebuy"]["reached"] is None


def test_a_window_in_which_nobody_wanted_anything_has_nobody_to_judge(tmp_path):
    rows = [("a", "i1", "view", 1.0), ("b", "i1", "impression", 50.0)]

    with pytest.raises(DatasetUnusable, match="nobody to judge"):
        evaluate(write_shop(tmp_path, rows), split="test")


def test_a_shop_that_has_just_opened_is_judged_on_the_same_window(tmp_path):
    data = write_shop(tmp_path, tastes(kind="shop"))
    old = evaluate(data, split="test").report

    young = evaluate(data, split="test", young=10).report

    assert (young["from"], young["until"]) == (old["from"], old["until"])
    assert young["past"]["events"] == 10
    assert young["tasks"]["item"]["queries"] == old["tasks"]["item"]["queries"]
    assert young["tasks"]["newcomers"]["queries"] > 30
    # Hardly anything is known of what goes together, but what things are is known.
    figures = young["tasks"]["item"]["methods"]
    assert figures["content (TF-IDF)"]["ndcg_at_10"] > figures["popularity"]["ndcg_at_10"]


def test_a_hundred_thousand_shoppers_and_fifty_thousand_items_need_no_square(tmp_path):
    rng = np.random.default_rng(1)
    n_users, n_items, n = 100_000, 50_000, 250_000
    users = rng.integers(0, n_users, n)
    items = (n_items * rng.random(n) ** 3).astype(int)
    at = np.sort(START_US + (rng.random(n) * 90 * DAY_S * 1e6).astype(np.int64))
    known = run.datasets.Dataset(
        item_ids=[f"i{k}" for k in range(n_items)],
        user_ids=[f"u{k}" for k in range(n_users)],
        items=run.datasets.Items(
            *(np.full(n_items, "", object) for _ in range(4)), np.full(n_items, np.nan, np.float32)
        ),
        users=users.astype(np.int32),
        keys=items.astype(np.int32),
        types=np.full(n, 1, np.uint8),
        at_us=at,
        sessions=np.full(n, -1, np.int32),
        until_us=int(at[-1]) + 1,
        files={},
    )
    past = methods.Past(known)

    refused = {method.name for method in methods.PERSONAL if method.refuses(past) is not None}
    assert refused == {"EASE", "content (TF-IDF)"}
    assert not past.may_be_tuned
