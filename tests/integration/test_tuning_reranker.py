"""The re-ranker's stage on a small shop: lessons, features by Feast, a fit, an order that is judged."""

import pytest

from services.training.sources import SourceSpec
from services.training.tuning import generators, grounds, space
from services.training.tuning.reranker import RerankerStage
from tests.support.small_shop import tastes, write_shop

pytestmark = pytest.mark.integration

SOURCES = (SourceSpec("collaborative_filtering", 30), SourceSpec("content_based", 15))
KEPT = {
    "collaborative_filtering": {"affinity": {"shrink": 3.0}, "dimensions": 16},
    "reranking": {"affinity": {"shrink": 3.0}},
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    shop = write_shop(tmp_path_factory.mktemp("tuning") / "shop", tastes(users=40, items=30, days=120))
    ground = grounds.of(shop, 7)

    def answers(sitting):
        return {spec.name: generators.answers(spec, KEPT.get(spec.name, {}), ground, sitting) for spec in SOURCES}

    return RerankerStage(SOURCES, KEPT, ground, answers)


def test_a_trial_is_a_fit_whose_order_is_judged_and_comes_out_the_same_twice(stage):
    values = space.defaults(stage.space)

    one, again = stage.attempt(values, lambda value: None), stage.attempt(values, lambda value: None)

    assert one == again > 0


def test_parameters_make_a_difference(stage):
    values = space.defaults(stage.space)

    usual, other = (
        stage.confirm({**values, **moved}) for moved in ({}, {"epochs": 12, "learning_rate": 8e-3, "trees.leaves": 7})
    )

    assert set(usual.judged) == set(other.judged) == {"discovery", "rebuy"}
    assert usual.figures() != other.figures()
