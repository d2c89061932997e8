"""What each generator is for: taste from company, and items nobody has touched."""

from dataclasses import replace

import numpy as np
import pytest

from protos.arrays import Rows
from protos.tutti.v1 import common_pb2
from services.chassis.model import GenerateQueries, Resources, Shoppers
from services.chassis.retrieval import VectorIndex
from services.collaborative_filtering import choice
from services.collaborative_filtering import serve as cf_serve
from services.collaborative_filtering import train as cf_train
from services.collaborative_filtering.model import METHODS, Solver
from services.content_based import serve as cb_serve
from services.content_based import train as cb_train
from services.training import popular, registry
from tests.support.small_dataset import PURCHASE, UNTOUCHED, a_dataset

DATASET = a_dataset()
DAY_S = 86_400.0


def fitted(name, train, serve, models, **parameters):
    staged = registry.staging(models, name)
    result = train.fit(DATASET, parameters, 7, staged)
    artefact = registry.publish(models, name, "generator", staged, result, DATASET, 7)
    return serve.load(artefact, Resources(models))


@pytest.fixture(scope="module")
def collaborative(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    return fitted("collaborative_filtering", cf_train, cf_serve, models, dimensions=8, regularisation=0.05)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return fitted("content_based", cb_train, cb_serve, tmp_path_factory.mktemp("models"))


def ask(history, context=(), placement=common_pb2.PLACEMENT_HOME, count=5, age_s=0.0):
    rows = Rows.of([list(history)])
    n = len(rows.values)
    shoppers = Shoppers(
        rows,
        np.full(n, PURCHASE, np.uint8),
        np.full(n, age_s, np.float32),
        Rows.of([list(context)]),
        np.array([placement], np.uint8),
    )
    return GenerateQueries(np.array([count], np.int32), shoppers, Rows.empty(1), Rows.empty(1))


def test_a_shopper_of_mugs_is_offered_mugs(collaborative, content):
    for model in (collaborative, content):
        proposed = model.generate(ask([0, 2, 4])).rows.row(0)

        assert (proposed % 2 == 0).all(), model


def test_on_a_product_page_the_item_looked_at_decides(collaborative, content):
    for model in (collaborative, content):
        proposed = model.generate(ask([0, 2, 4], [7], common_pb2.PLACEMENT_ITEM)).rows.row(0)

        assert (proposed % 2 == 1).all(), model


def test_an_item_nobody_touched_is_found_by_what_it_says(content, collaborative):
    wanted = ask([37, 35, 33], count=40)

    assert UNTOUCHED in content.generate(wanted).rows.row(0)
    found = collaborative.generate(wanted).rows.row(0).tolist()
    assert found.index(UNTOUCHED) > found.index(35), "what it borrows is less than what was seen"


def test_who_touched_only_the_untouched_item_gets_the_company_of_its_look_alikes(collaborative, content):
    for model in (collaborative, content):
        lamps = model.generate(ask([UNTOUCHED])).rows.row(0)[:5] % 2

        assert lamps.all(), "odd keys are lamps"


def test_who_comes_back_after_years_is_still_known(collaborative, content):
    for model in (collaborative, content):
        today, later = model.generate(ask([0, 2])), model.generate(ask([0, 2], age_s=20 * 365 * DAY_S))

        assert today.rows.values.tolist() == later.rows.values.tolist()


def test_folding_in_solves_the_formula():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(4, 3)).astype(np.float32)
    everything = rng.normal(size=(10, 3)).astype(np.float32)
    weights = np.array([1, 2, 3, 4], np.float32)
    solver = Solver(0.5 * everything.T @ everything, 0.5, 0.1, 1.0, 10)

    (found,) = solver.solve(factors, np.array([4]), weights)

    left = 0.5 * everything.T @ everything + (factors.T * weights) @ factors + 0.1 * (4 + 0.5 * 10) * np.eye(3)
    np.testing.assert_allclose(found, np.linalg.solve(left, factors.T @ weights), rtol=1e-4)


def test_what_is_left_out_or_outside_is_never_proposed(collaborative):
    wanted = ask([0, 2, 4], count=10)
    bounded = replace(wanted, within=Rows.of([[6, 8, 10, 12]]), exclude=Rows.of([[8, 99]]))
    without = replace(wanted, exclude=Rows.of([[0, 2, 4, -1, 10_000]]))

    assert set(collaborative.generate(bounded).rows.row(0).tolist()) == {6, 10, 12}
    assert not {0, 2, 4} & set(collaborative.generate(without).rows.row(0).tolist())


def test_scores_fall_and_no_key_stands_twice(collaborative):
    answer = collaborative.generate(ask([0, 2, 4], count=40))

    assert (np.diff(answer.scores) <= 0).all()
    assert len(set(answer.rows.values.tolist())) == len(answer.rows.values) > 10


def test_weights_go_to_the_method_that_found_what_was_wanted():
    rng = np.random.default_rng(0)
    lists = []
    for _ in range(50):
        closeness = rng.normal(size=(3, 30)).astype(np.float32)
        gain = np.zeros(30, np.float32)
        gain[np.argmax(closeness[1])] = 1
        lists.append((closeness, gain))

    weights = choice.blend_weights(lists)

    assert weights[1] == 1.0
    assert max(weights[0], weights[2]) < 0.2
    assert min(weights) >= 0


def test_weights_are_chosen_on_the_past_and_kept_with_the_model(tmp_path):
    chosen = cf_train.choose(DATASET, 7)

    assert "weights" in chosen  # of pages and baskets this shop has too few to choose by
    assert len(chosen["weights"]) == len(METHODS)
    assert max(chosen["weights"]) == 1
    model = fitted("collaborative_filtering", cf_train, cf_serve, tmp_path, dimensions=8, **chosen)
    assert model.generate(ask([0, 2, 4])).rows.row(0).size == 5


def test_a_past_too_short_to_choose_by_leaves_the_weights_equal():
    assert cf_train.choose(DATASET.before(int(DATASET.at_us[1])), 7) == {}


def test_weights_are_chosen_for_the_parameters_that_are_decided_already(tmp_path):
    base = {"dimensions": 4, "affinity": {"linear_ridge": 5.0}}

    chosen = cf_train.choose(DATASET, 7, base)

    assert {name: chosen[name] for name in base} == base
    assert chosen["weights"] != cf_train.choose(DATASET, 7)["weights"]
    assert base == {"dimensions": 4, "affinity": {"linear_ridge": 5.0}}
    assert fitted("collaborative_filtering", cf_train, cf_serve, tmp_path, **chosen).generate(ask([0])).rows.values.size


def test_a_brief_choice_holds_no_trial():
    whole, brief = cf_train.choose(DATASET, 7), cf_train.choose(DATASET, 7, is_brief=True)

    assert whole == {**brief, "sequence_trial": whole["sequence_trial"]}


def test_full_solves_lower_the_error_on_what_was_observed():
    from services.collaborative_filtering.model import Parameters

    users, keys, weights = cf_train.interactions(DATASET, 30 * DAY_S)
    shape = (len(DATASET.user_ids), DATASET.n_items)
    once = cf_train.als(users, keys, weights, shape, Parameters(dimensions=8, sweeps=1), 7)
    often = cf_train.als(users, keys, weights, shape, Parameters(dimensions=8, sweeps=6), 7)

    assert often[1] < once[1]


def test_batches_of_padded_rows_solve_what_single_rows_solve(monkeypatch):
    from services.collaborative_filtering.model import Parameters

    users, keys, weights = cf_train.interactions(DATASET, 30 * DAY_S)
    shape = (len(DATASET.user_ids), DATASET.n_items)
    wide, _ = cf_train.als(users, keys, weights, shape, Parameters(dimensions=4, sweeps=2), 7)
    monkeypatch.setattr(cf_train, "_BATCH_FLOATS", 1)
    narrow, _ = cf_train.als(users, keys, weights, shape, Parameters(dimensions=4, sweeps=2), 7)

    np.testing.assert_allclose(wide, narrow, atol=1e-4)


def test_an_index_knows_which_keys_it_has():
    index = VectorIndex(np.eye(3, dtype=np.float32), np.array([2, 5, 7], np.int32))

    assert index.rows_of(np.array([5, 0, 2, 99, -1])).tolist() == [1, -1, 0, -1, -1]


def test_a_catalogue_without_words_categories_or_prices_has_no_vectors(tmp_path):
    blank = np.full(3, "", object)
    from services.content_based.model import Parameters
    from services.training.dataset import Items

    items = cb_train.described(Items(blank, blank, blank, blank, np.full(3, np.nan, np.float32)))
    vectors = cb_train.fitted(items, Parameters(), 7).vectors(items)

    assert vectors.shape[0] == 3
    assert not vectors.any()


def test_popular_names_every_item_once_newest_demand_first():
    keys, scores = popular.ranking(DATASET, 7.0)

    assert sorted(keys.tolist()) == list(range(DATASET.n_items))
    assert keys[-1] == UNTOUCHED
    assert (np.diff(scores) <= 0).all()


def test_of_too_many_pairs_those_of_the_latest_shoppers_are_learnt_from(monkeypatch):
    users, keys, weights = cf_train.interactions(DATASET, 30 * DAY_S)
    monkeypatch.setattr(cf_train, "MOST_PAIRS", len(users) // 2)

    fewer, their_keys, their_weights = cf_train.interactions(DATASET, 30 * DAY_S)

    last = {int(user): int(at) for user, at in zip(DATASET.users, DATASET.at_us, strict=True)}
    left_out = set(users.tolist()) - set(fewer.tolist())
    assert len(users) // 3 < len(fewer) <= len(users) // 2
    assert min(last[user] for user in set(fewer.tolist())) >= max(last[user] for user in left_out)
    stays = np.isin(users, fewer)
    for whole, part in ((users, fewer), (keys, their_keys), (weights, their_weights)):
        np.testing.assert_array_equal(whole[stays], part)
