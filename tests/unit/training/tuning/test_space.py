"""What may be moved: defaults stand in their own ranges, and names lead to parameters that there are."""

from dataclasses import fields

import pytest

from services.training.sources import Fusion, service
from services.training.tuning import space
from services.training.tuning.space import Axis

MODELS = {"collaborative_filtering": "generator", "content_based": "generator", "reranking": "reranker"}


@pytest.mark.parametrize("name", MODELS)
def test_every_default_stands_in_its_own_range(name):
    for axis in space.of(name):
        assert axis.decoded(axis.coded(axis.default)) == axis.default, axis
        assert axis.why


@pytest.mark.parametrize(("name", "role"), MODELS.items())
def test_the_defaults_of_a_space_are_the_defaults_of_the_model(name, role):
    kind = service(name, "train", role).Parameters
    tree = space.nested(space.defaults(space.of(name)))

    assert set(tree) <= {field.name for field in fields(kind)}
    for key, value in tree.items():
        if not isinstance(value, dict):
            assert value == getattr(kind(), key)


def test_closeness_is_moved_with_the_names_it_is_learnt_by():
    from services.training import affinity

    tree = space.nested(space.defaults(space.of("collaborative_filtering")))["affinity"]

    used, usual = affinity.Parameters(**tree), affinity.Parameters()
    assert {n: getattr(used, n) for n in tree if n != "history_d"} == {
        n: getattr(usual, n) for n in tree if n != "history_d"
    }
    assert set(tree["history_d"]) <= set(affinity.HALF_LIVES_D)


def test_tables_and_dotted_names_are_two_ways_of_saying_it():
    values = {"a.b": 1, "a.c.d": 2.5, "e": "f"}

    assert space.nested(values) == {"a": {"b": 1, "c": {"d": 2.5}}, "e": "f"}
    assert space.flat(space.nested(values)) == values


def test_a_value_outside_has_no_code():
    axis = Axis("x", 0.5, "", low=0.0, high=1.0)

    assert axis.coded(2.0) is None
    assert Axis("x", 1, "", steps=(1, 2)).coded(3) is None


def fusion(**about):
    return Fusion(**{"method": "z_score", "k": 60, "weights": {"a": 1.0, "b": 0.3, "c": 2.0}, **about})


def test_weights_are_moved_beside_that_of_the_first_source():
    axes = {axis.name: axis for axis in space.of_fusion(["a", "b", "c"], fusion())}

    assert set(axes) == {"weights.b", "weights.c", "method"}
    assert axes["weights.b"].default == 0.3
    assert axes["weights.c"].high == 2.0
    assert axes["method"].steps[0] == "z_score"


def test_what_somebody_wrote_down_is_not_moved():
    axes = space.of_fusion(["a", "b", "c"], fusion(written=frozenset({"b"}), method_is_written=True))

    assert [axis.name for axis in axes] == ["weights.c"]


def test_one_source_alone_has_no_fusion():
    assert space.of_fusion(["a"], fusion()) == ()
