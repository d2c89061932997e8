"""The smaller parts: slices, costs, questions and answers, tables."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protos.arrays import Rows
from services.training.evaluation import asking, tables
from services.training.evaluation.asking import EvaluationFailed
from services.training.evaluation.costs import Costs
from services.training.evaluation.slices import slices
from services.training.evaluation.tasks import Task
from tests.support.small_dataset import a_dataset


def a_task(q=40, name="rebuy", placement="home", context=None, **more):
    rng = np.random.default_rng(q)
    return Task(
        name=name,
        objective="",
        placement=placement,
        users=np.arange(q),
        truth=Rows.of([rng.permutation(40)[:3] for _ in range(q)]),
        gone=Rows.empty(q),
        context=context or Rows.empty(q),
        **more,
    )


def test_shoppers_are_sliced_by_their_past_and_items_by_theirs():
    task = a_task()
    shopper_events = np.r_[np.ones(10), np.full(15, 3), np.full(10, 20), np.full(5, 500)].astype(int)
    item_events = np.where(np.arange(40) < 8, 0, 50)

    found = {one.name: one for one in slices(task, shopper_events, np.minimum(shopper_events, 2), item_events)}

    assert len(found["one visit"].rows) == 10
    assert found["one event"].rows.tolist() == list(range(10))
    assert len(found["cold shoppers, 1 to 4 events"].rows) == 25
    assert found["new items, no event before"].truth.values.max() < 8
    assert len(found["new items, no event before"].truth) == len(found["new items, no event before"].rows)
    assert "no event before" not in found  # nobody is


def test_a_slice_that_is_everybody_or_hardly_anybody_is_not_shown():
    task = a_task(q=6)

    found = slices(task, np.array([1, 20, 20, 20, 20, 20]), np.full(6, 3), np.full(40, 50))

    assert "one event" not in {one.name for one in found}
    assert all(one.truth is not task.truth for one in found)


def test_costs_are_told_and_kept_for_every_stage():
    told = []
    with Costs(told.append) as costs:
        costs.begin("one")
        big = np.ones(20_000_000)
        costs.begin("two")
        del big

    assert told == [cost.stage for cost in costs.costs] == ["one", "two"]
    assert costs.costs[0].peak_mb > 150
    assert all(cost.seconds >= 0 for cost in costs.costs)


def test_queries_carry_the_page_and_answers_find_their_way_back(tmp_path):
    dataset = a_dataset()
    context = Rows.of([[5], [6]])
    asked = [
        a_task(3),
        a_task(2, "item", "item", context),
        a_task(2, "cart", "cart", context),
        a_task(2, "category", "category", categories=("Home > Light", "Home > Kitchen")),
    ]
    seen = {}

    def recommend(place, queries, out, exclude_seen, diversity):
        rows = pq.read_table(queries).to_pylist()
        seen[exclude_seen, diversity] = rows
        lines = [
            {"query": n, "user_id": row["user_id"], "item_id": f"i{n}", "rank": 1, "score": 1.0, "stage": stage}
            for n, row in enumerate(rows)
            for stage in ("fused", "slate", "source:b", "fused:reciprocal_rank")
        ]
        pq.write_table(pa.Table.from_pylist(lines), out)

    lists = asking.ask(asked, dataset, tmp_path, tmp_path, recommend)

    assert list(seen) == [(False, None)]
    queries = seen[False, None]
    assert [row["placement"] for row in queries] == ["home"] * 3 + ["item"] * 2 + ["cart"] * 2 + ["category"] * 2
    assert [row["context_item_ids"] for row in queries][2:6] == [[], ["i5"], ["i6"], []]
    assert [row["cart_item_ids"] for row in queries][4:7] == [[], ["i5"], ["i6"]]
    assert queries[-1]["category"] == "Home > Kitchen"
    assert list(lists["item"]) == ["source:b", "fused:reciprocal_rank", "fused", "slate"]
    assert lists["cart"]["slate"][:, 0].tolist() == [5, 6]
    assert (lists["cart"]["slate"][:, 1:] == -1).all()


def test_an_answer_without_slates_is_a_failure(tmp_path):
    def recommend(place, queries, out, exclude_seen, diversity):
        line = {"query": 0, "user_id": "u0", "item_id": "i1", "rank": 1, "score": 1.0, "stage": "fused"}
        pq.write_table(pa.Table.from_pylist([line]), out)

    with pytest.raises(EvaluationFailed, match="expected one called 'slate'"):
        asking.ask([a_task(1)], a_dataset(), tmp_path, tmp_path, recommend)


def test_names_gains_and_stars_are_said_in_words():
    assert tables.label("source:content_based") == "content based"
    assert tables.label("fused:z_score") == "fused by z score"
    assert tables.label("slate") == "slate"
    assert [tables.stars(p) for p in (0.2, 0.04, 0.004, 0.0004)] == ["", " *", " **", " ***"]
    figures = {"slate_gains": {"ndcg_at_10": {"mean": 0.02, "low": 0.01, "high": 0.03, "p": 0.04}}}
    assert tables.gain(figures) == "+0.020 (+0.010 … +0.030) *"
    assert tables.gain({}) == ""
    assert tables.signed(-0.0001) == "+0.000"
