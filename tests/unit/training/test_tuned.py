"""The tuned file on the offline way: checked against the models, kept from what it must not judge."""

import pytest

from protos import tuned as tuned_file
from protos.tuned import Tuned, TunedUnusable
from services.training import tuned

SOURCES = ("collaborative_filtering", "content_based")


def found(parameters=None, weights=None, seen_until_us=100):
    return Tuned(parameters or {"content_based": {"half_life_days": 7.0}}, None, weights or {}, seen_until_us)


def test_what_was_tuned_of_models_that_are_not_trained_is_left_out(tmp_path):
    both = {"content_based": {"half_life_days": 7.0}, "trending": {"days": 3}}
    tuned.write(tmp_path, found(both, {"content_based": 0.1, "trending": 1.0}), {})

    used = tuned.of(tmp_path, SOURCES)

    assert used == found(weights={"content_based": 0.1})


@pytest.mark.parametrize("name", ["collaborative_filtering", "reranking"])
def test_a_parameter_that_a_model_does_not_have_is_refused_before_anything_is_fitted(tmp_path, name):
    tuned.write(tmp_path, found({name: {"colour": "red"}}), {})

    with pytest.raises(TunedUnusable, match=f"sets colour of {name}"):
        tuned.of(tmp_path, SOURCES)


def test_forgetting_leaves_nothing(tmp_path):
    tuned.write(tmp_path, found(), {})

    assert tuned.forget(tmp_path)
    assert not tuned.forget(tmp_path)
    assert tuned.of(tmp_path, SOURCES) == Tuned()


@pytest.mark.parametrize(("start_us", "is_handed_on"), [(100, True), (99, False)])
def test_an_evaluation_is_given_only_what_has_not_seen_its_window(tmp_path, start_us, is_handed_on):
    data, place = tmp_path / "data", tmp_path / "past"
    data.mkdir()
    place.mkdir()
    tuned.write(data, found(), {"why": "x"})
    tuned.write(place, found(seen_until_us=1), {})

    said = tuned.hand_on(data, place, start_us)

    assert tuned_file.read(place) == (found() if is_handed_on else Tuned())
    assert ("judging what was tuned" if is_handed_on else "judging the defaults") in said


def test_where_nothing_was_tuned_an_evaluation_forgets_what_an_earlier_one_left(tmp_path):
    data, place = tmp_path / "data", tmp_path / "past"
    data.mkdir()
    place.mkdir()
    tuned.write(place, found(), {})

    assert tuned.hand_on(data, place, 100) == ""
    assert tuned_file.read(place) == Tuned()
