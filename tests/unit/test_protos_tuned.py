"""What was tuned, as both sides read it: a wrong file is one sentence, and what serves decides what serving takes."""

import json

import pytest

from protos import tuned
from protos.tuned import Tuned, TunedUnusable

FOUND = Tuned({"content_based": {"half_life_days": 7.0}}, "reciprocal_rank", {"content_based": 0.1}, 5)


def a_file(folder, value):
    (folder / tuned.FILE).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def test_without_a_file_nothing_is_tuned(tmp_path):
    assert tuned.read(tmp_path) == Tuned()
    assert tuned.serving(tmp_path) == Tuned()
    assert Tuned().digest == ""


def test_what_is_written_is_read(tmp_path):
    assert tuned.read(a_file(tmp_path, {**FOUND.to_json(), "notes": {"why": "for people"}})) == FOUND


def test_the_digest_is_of_what_changes_a_slate():
    later = Tuned(FOUND.parameters, FOUND.method, FOUND.weights, 6)
    other = Tuned(FOUND.parameters, FOUND.method, {"content_based": 0.2}, 5)

    assert FOUND.digest == later.digest != other.digest


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "cannot be read"),
        ([], "format"),
        ({"format": 2}, "format 2 where 1"),
        ({"format": 1, "parameters": {"content_based": 3}}, "table of tables"),
        ({"format": 1, "fusion": 3}, "fusion 3"),
        ({"format": 1, "fusion": {"weights": {"a": -1}}}, "weights of 0 or more"),
        ({"format": 1, "fusion": {"weights": {"a": True}}}, "weights of 0 or more"),
        ({"format": 1, "fusion": {"method": "vote"}}, "'vote' where one of"),
        ({"format": 1, "seen_until_us": "yesterday"}, "microseconds"),
    ],
)
def test_a_wrong_file_says_what_is_wrong_and_how_to_go_back(tmp_path, value, said):
    with pytest.raises(TunedUnusable) as refused:
        tuned.read(a_file(tmp_path, value))

    assert said in str(refused.value)
    assert "tutti tune --forget" in str(refused.value)
    assert tuned.FILE in str(refused.value)


def a_run(folder, said):
    (folder / "models").mkdir()
    (folder / "models" / "training.json").write_text(json.dumps(said))
    return folder


def test_serving_takes_what_the_run_that_serves_was_trained_with(tmp_path):
    a_file(tmp_path, {**FOUND.to_json(), "fusion": {"method": None, "weights": {"content_based": 0.9}}})
    a_run(tmp_path, {"tuned": FOUND.to_json()})

    assert tuned.serving(tmp_path) == FOUND


@pytest.mark.parametrize("said", [{}, {"tuned": None}, []])
def test_a_run_that_was_not_tuned_serves_the_defaults(tmp_path, said):
    a_file(tmp_path, FOUND.to_json())

    assert tuned.serving(a_run(tmp_path, said)) == Tuned()
