"""
The contract of every model service: each folder of services/ with a ROLE is fitted, saved, loaded and asked.

A new folder is tested by being there.
"""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

import services
from protos.arrays import Rows
from protos.artefacts import load as open_artefact
from protos.feast_layout import EntityPlan, ReadPlan, ViewPlan
from protos.tutti.v1 import common_pb2
from services.chassis.model import FeatureSkew, GenerateQueries, RerankQueries, Resources, Shoppers
from services.training import lessons, registry
from services.training.lessons import Lesson
from services.training.repeatable import repeatable
from tests.support.small_dataset import N_ITEMS, UNTOUCHED, a_dataset

DATASET = a_dataset()


def model_services(role):
    names = [m.name for m in pkgutil.iter_modules(services.__path__) if m.ispkg]
    return [n for n in names if getattr(importlib.import_module(f"services.{n}"), "ROLE", None) == role]


def train_one(name, models, seed=7):
    module = importlib.import_module(f"services.{name}.train")
    staged = registry.staging(models, name)
    with repeatable(seed):
        fitted = module.fit(DATASET, {}, seed, staged)
    return registry.publish(models, name, "generator", staged, fitted, DATASET, seed)


@pytest.fixture(scope="module", params=model_services("generator"))
def generator(request, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    artefact = train_one(request.param, models)
    opened = open_artefact(models, request.param, artefact.version)
    return importlib.import_module(f"services.{request.param}.serve").load(opened, Resources(models))


def some_shoppers(histories, contexts=None, placement=common_pb2.PLACEMENT_HOME):
    rows = Rows.of(histories)
    n = len(rows.values)
    return Shoppers(
        rows,
        np.full(n, common_pb2.EVENT_TYPE_PURCHASE, np.uint8),
        np.linspace(0, 86_400 * 30, n).astype(np.float32),
        Rows.of(contexts or [[]] * len(histories)),
        np.full(len(histories), placement, np.uint8),
    )


def some_queries(histories, count=10, exclude=None, within=None, **rest):
    q = len(histories)
    return GenerateQueries(
        np.full(q, count, np.int32),
        some_shoppers(histories, **rest),
        Rows.of(exclude or [[]] * q),
        Rows.of(within or [[]] * q),
    )


HISTORIES = [[0, 2, 4], [1, 3], [], [5, 5, 5, 7], [38]]


def test_there_are_services_of_both_roles():
    assert {"collaborative_filtering", "content_based"} <= set(model_services("generator"))
    assert model_services("reranker") == ["reranking"]


def test_candidates_are_distinct_finite_falling_and_no_more_than_asked_for(generator):
    answer = generator.generate(some_queries(HISTORIES, count=7))

    assert len(answer.rows) == len(HISTORIES)
    assert answer.rows.values.dtype == np.int32
    assert answer.scores.dtype == np.float32
    assert len(answer.scores) == len(answer.rows.values)
    assert np.isfinite(answer.scores).all()
    for i in range(len(HISTORIES)):
        row, scores = answer.rows.row(i), answer.scores[answer.rows.offsets[i] : answer.rows.offsets[i + 1]]
        assert len(row) <= 7
        assert len(set(row.tolist())) == len(row)
        assert (np.diff(scores) <= 0).all()
        assert ((row >= 0) & (row < N_ITEMS)).all()


def test_the_excluded_never_come_back(generator):
    first = generator.generate(some_queries([[0, 2, 4]], count=10)).rows.row(0).tolist()

    rest = generator.generate(some_queries([[0, 2, 4]], count=10, exclude=[[*first[:5], 10000, -1]])).rows.row(0)

    assert not set(first[:5]) & set(rest.tolist())
    assert set(first[5:]) <= set(rest.tolist())


def test_within_is_a_fence(generator):
    fence = [2, 3, 6, 9, 2, 10_000, -3, UNTOUCHED]

    row = generator.generate(some_queries([[0, 2, 4]], within=[fence], exclude=[[6]])).rows.row(0)

    assert set(row.tolist()) <= {2, 3, 9, UNTOUCHED}
    assert len(set(row.tolist())) == len(row)


def test_unknown_keys_change_nothing(generator):
    clean = generator.generate(some_queries([[0, 2]], contexts=[[4]]))
    noisy_shoppers = some_queries([[0, 10_000, 2, -7]], contexts=[[4, 99_999]])
    ages = noisy_shoppers.shoppers.history_ages_s
    ages[[0, 2]] = some_queries([[0, 2]]).shoppers.history_ages_s
    noisy = generator.generate(noisy_shoppers)

    assert clean.rows.values.tolist() == noisy.rows.values.tolist()


def test_a_query_about_nobody_gets_an_answer(generator):
    answer = generator.generate(some_queries([[]]))

    assert len(answer.rows) == 1
    assert answer.rows.offsets.tolist() == [0, len(answer.rows.values)]


def test_no_query_at_all_is_answered(generator):
    answer = generator.generate(some_queries([]))

    assert len(answer.rows) == 0
    assert len(answer.scores) == 0


def test_a_batch_answers_as_single_calls_do(generator):
    histories = [[k, (k * 7) % N_ITEMS] for k in range(25)]
    batch = generator.generate(some_queries(histories, count=5))

    for i, history in enumerate(histories):
        query = some_queries([history], count=5)
        query.shoppers.history_ages_s[:] = np.linspace(0, 86_400 * 30, 50)[2 * i : 2 * i + 2]
        alone = generator.generate(query)
        np.testing.assert_allclose(
            batch.scores[batch.rows.offsets[i] : batch.rows.offsets[i + 1]], alone.scores, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("name", model_services("generator"))
def test_the_same_seed_gives_the_same_version(name, tmp_path):
    assert train_one(name, tmp_path / "a").version == train_one(name, tmp_path / "b").version


PLAN = ReadPlan(
    "reranking_v1",
    EntityPlan(
        "tutti",
        "user_id",
        "STRING",
        (ViewPlan("profile", 0.0, (("mean_price", "FLOAT"), ("favourite_brand", "STRING"))),),
    ),
    EntityPlan("tutti", "item_id", "STRING", (ViewPlan("catalogue", 0.0, (("price", "FLOAT"), ("brand", "STRING"))),)),
)
ITEM_COLUMNS = DATASET.items.prices[:, None], DATASET.items.brands[:, None]


class Everything:
    """A generator that proposes all items in key order, so that only the re-ranker can tell them apart."""

    version = "0"

    def generate(self, queries):
        from services.chassis.model import Candidates

        rows = [np.setdiff1d(np.arange(N_ITEMS), queries.exclude.row(i)) for i in range(len(queries.shoppers))]
        found = Rows.of(rows)
        return Candidates(found, -found.values.astype(np.float32))


def some_lessons():
    taught = []
    for number, window in enumerate(lessons.windows(DATASET)[-2:]):
        asked = lessons.ask(DATASET, window, number)
        candidates, scores, ranks = lessons.propose({"all": Everything()}, {"all": 50}, asked.shoppers, asked.exclude)
        queries = RerankQueries(
            asked.shoppers, candidates, ("all",), scores, ranks, *user_columns(len(asked.users)), PLAN.digest
        )
        gains = lessons.label(candidates, asked.wanted, asked.gains)
        taught.append(Lesson(queries, gains, asked.users, *ITEM_COLUMNS, DATASET.before(window.start_us)))
    return taught


def user_columns(q):
    return np.full((q, 1), 20.0, np.float32), np.full((q, 1), "brand1", object)


def train_reranker(models, taught, seed=7):
    from services.reranking import train

    staged = registry.staging(models, "reranking")
    serving = train.Serving(PLAN, DATASET, *ITEM_COLUMNS)
    with repeatable(seed):
        fitted = train.fit(taught, serving, ["all"], {"epochs": 4, "hidden": (16,)}, seed, staged)
    return registry.publish(models, "reranking", "reranker", staged, fitted, DATASET, seed)


@pytest.fixture(scope="module")
def taught():
    return some_lessons()


@pytest.fixture(scope="module")
def ranker_artefact(tmp_path_factory, taught):
    return train_reranker(tmp_path_factory.mktemp("models"), taught)


@pytest.fixture(scope="module")
def ranker(ranker_artefact):
    return importlib.import_module("services.reranking.serve").load(ranker_artefact, Resources(ranker_artefact.path))


def rank_queries(histories, candidates, digest=PLAN.digest):
    found = Rows.of(candidates)
    n = len(found.values)
    ranks = np.concatenate([np.arange(1, len(c) + 1) for c in candidates]) if n else np.empty(0)
    return RerankQueries(
        some_shoppers(histories),
        found,
        ("all",),
        -np.arange(n, dtype=np.float32)[:, None],
        ranks.astype(np.uint16)[:, None],
        *user_columns(len(histories)),
        digest,
    )


def test_the_ranker_scores_every_candidate_in_its_place(ranker):
    candidates = [list(range(N_ITEMS)), [3, 2], []]

    scores = ranker.rank(rank_queries([[0, 2], [1], []], candidates))

    assert scores.shape == (N_ITEMS + 2,)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_the_ranker_has_learnt_what_the_generator_could_not_know(ranker):
    scores = ranker.rank(rank_queries([[0, 2, 4, 6, 8]], [list(range(N_ITEMS - 1))]))

    assert scores[0::2].mean() > scores[1::2].mean()


def test_the_ranker_answers_a_batch_as_single_calls(ranker):
    both = ranker.rank(rank_queries([[0, 2], [1, 3]], [[5, 6, 7], [8, 9]]))
    query = rank_queries([[0, 2]], [[5, 6, 7]])
    query.shoppers.history_ages_s[:] = np.linspace(0, 86_400 * 30, 4)[:2]

    np.testing.assert_allclose(both[:3], ranker.rank(query), rtol=1e-3, atol=1e-4)


def test_the_ranker_survives_items_and_keys_it_never_saw(ranker):
    scores = ranker.rank(rank_queries([[10_000, -1]], [[99_999, 0]]))

    assert np.isfinite(scores).all()


def test_features_of_another_plan_are_skew_by_name(ranker):
    with pytest.raises(FeatureSkew, match="reload the read plan"):
        ranker.rank(rank_queries([[0]], [[1]], digest="0" * 64))


def test_the_same_lessons_and_seed_give_the_same_ranker(ranker_artefact, taught, tmp_path):
    assert train_reranker(tmp_path, taught).version == ranker_artefact.version


def test_without_lessons_the_ranker_keeps_the_fused_order(tmp_path):
    artefact = train_reranker(tmp_path, [])
    untaught = importlib.import_module("services.reranking.serve").load(artefact, Resources(tmp_path))

    scores = untaught.rank(rank_queries([[0, 2]], [[9, 4, 7, 1]]))

    assert (np.diff(scores) < 0).all()


def test_a_ranker_taught_by_too_few_lists_keeps_the_fused_order(tmp_path, taught, monkeypatch):
    """A shop of ten events learnt from all it had, and what its shoppers bought again came last."""
    monkeypatch.setattr("services.reranking.train.LEAST_LISTS", 1_000_000)

    artefact = train_reranker(tmp_path, taught)

    model = importlib.import_module("services.reranking.serve").load(artefact, Resources(artefact.path))
    scores = model.rank(rank_queries([[0, 2, 4]], [[9, 3, 6, 1]]))
    assert (np.diff(scores) < 0).all()
    assert artefact.manifest.metrics["queries"] == 0
