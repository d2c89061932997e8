"""Lessons from the logs on disk: what was served, seen and done becomes rows with gains, as it was served."""

import json

import numpy as np
import pytest

from protos.slate_log import MADE, SERVED, made_row, served_row
from services.chassis.model import Fitted
from services.ingestion.sinks import ParquetLog, parse
from services.ingestion.slates import SlateFiles
from services.training import affinity, from_log, registry, slate_log
from services.training.from_log import LEAST_LISTS
from tests.support.builders import a_user
from tests.support.slate_log import AT_S, a_made, a_served
from tests.support.small_dataset import a_dataset

DATASET = a_dataset()
CANDIDATES, SHOWN = (5, 9, 2, 7, 4), (9, 5, 7)


@pytest.fixture
def data(tmp_path):
    """A data directory with a re-ranker that has served; `version` is its version."""
    staged = registry.staging(tmp_path / "models", "reranking")
    affinity.learn(DATASET).save(staged / "affinities.npz")
    fitted = Fitted({}, {}, None)
    published = registry.publish(tmp_path / "models", "reranking", "reranker", staged, fitted, DATASET, 7)
    (tmp_path / "version").write_text(published.version)
    return tmp_path


def log_slates(data, n=LEAST_LISTS, **made):
    """*n* slates r0, r1, … of u0, u1, …; each was made for itself."""
    version, user = (data / "version").read_text(), a_user((1, 2), numeric=(0.5,), categorical=("a",))
    about = {"keys": CANDIDATES, "shown": SHOWN, "version": version, "user": user} | made
    served = [served_row(a_served(f"r{i}", SHOWN, f"r{i}", AT_S + i, user_id=f"u{i}")) for i in range(n)]
    asked = [made_row(a_made(f"r{i}", at_s=AT_S + i, user_id=f"u{i}", **about)) for i in range(n)]
    SlateFiles(data).write({SERVED: served, MADE: asked})


def log_events(data, *events):
    """(slate number, type, position from 1), a second after the slate each."""
    documents = [
        {
            "event_id": f"e{n}",
            "event_type": kind,
            "user_id": f"u{slate}",
            "item_id": f"i{SHOWN[position - 1]}",
            "timestamp": f"2026-03-01T10:{(slate + 1) // 60:02}:{(slate + 1) % 60:02}Z",
            "recommendation_id": f"r{slate}",
            "position": position,
        }
        for n, (slate, kind, position) in enumerate(events)
    ]
    ParquetLog(data / "event_log").write([parse(json.dumps(one).encode()) for one in documents])


def all_seen(n=LEAST_LISTS, clicked=2):
    """Both first slots of every slate were shown, one was clicked."""
    shown = [(i, "impression", position) for i in range(n) for position in (1, 2)]
    return [*shown, *((i, "click", clicked) for i in range(n))]


def learnt(data, digest="plan"):
    return from_log.learnt(data, DATASET, digest)


def test_a_lesson_holds_what_was_asked_and_gains_what_was_clicked(data):
    log_slates(data)
    log_events(data, *all_seen())

    logged = learnt(data)

    (lesson,) = logged.lessons
    assert len(lesson.queries.candidates) == LEAST_LISTS
    assert lesson.queries.candidates.row(3).tolist() == list(candidate_order())
    own = slice(0, len(CANDIDATES))
    by_key = dict(zip(lesson.queries.candidates.row(0).tolist(), lesson.gains[own].tolist(), strict=True))
    assert by_key == {9: 0.0, 5: 1.0, 7: 0.0, 2: 0.0, 4: 0.0}
    seen = dict(zip(lesson.queries.candidates.row(0).tolist(), (lesson.seen[own] > 0).tolist(), strict=True))
    assert seen == {9: True, 5: True, 7: False, 2: False, 4: False}
    assert logged.report["lists"] == LEAST_LISTS
    assert logged.report["is_taught"]
    assert logged.report["events"]["impressions"] == 2 * LEAST_LISTS


def candidate_order():
    from tests.contract.slate_log import asked_about

    return asked_about(*CANDIDATES).candidates.keys.tolist()


def test_items_are_as_they_were_served_and_what_was_not_logged_is_missing(data):
    log_slates(data)
    log_events(data, *all_seen())

    (lesson,) = learnt(data).lessons

    keys = lesson.queries.candidates.row(1)
    rows = lesson.item_rows[len(CANDIDATES) : 2 * len(CANDIDATES)]
    for key, row in zip(keys.tolist(), rows.tolist(), strict=True):
        if key in SHOWN:
            assert lesson.item_numeric[row].tolist() == [np.float32(key / 10)]
            assert lesson.item_categorical[row].tolist() == [f"brand{key % 2}"]
        else:
            assert row == len(lesson.item_numeric)


def test_a_shopper_keeps_the_number_of_the_data_and_a_stranger_has_one_too(data):
    log_slates(data, n=LEAST_LISTS + 5)
    log_events(data, *all_seen(LEAST_LISTS + 5))

    (lesson,) = learnt(data).lessons

    known = len(DATASET.user_ids)
    assert lesson.users[:known].tolist() == list(range(known))
    assert (lesson.users[known:] >= known).all()


def test_too_few_lists_teach_nothing_and_are_counted(data):
    log_slates(data)
    log_events(data, *all_seen(LEAST_LISTS - 1))

    logged = learnt(data)

    assert logged.lessons == ()
    assert not logged.report["is_taught"]
    assert logged.report["lists"] == LEAST_LISTS - 1
    assert logged.report["left_out"] == {"not_shown": 1}


def test_why_an_answer_is_no_list_is_said(data):
    log_slates(data, n=2, digest="older")
    SlateFiles(data).write(
        {
            SERVED: [
                served_row(a_served("popular", made_as="")),
                served_row(a_served("lost", made_as="never-written")),
            ]
        }
    )
    log_events(data, (0, "click", 1), (1, "impression", 1))

    assert learnt(data).report["left_out"] == {
        "not_reranked": 1,
        "without_features": 1,
        "of_another_plan": 1,
        "nothing_gained": 1,
    }


def test_what_a_model_served_that_is_gone_is_left_out(data):
    log_slates(data, n=1, version="gone")
    log_events(data, (0, "click", 1))

    assert learnt(data).report["left_out"] == {"of_a_model_that_is_gone": 1}


def test_a_slate_served_twice_is_two_lists_of_one_making(data):
    log_slates(data)
    SlateFiles(data).write({SERVED: [served_row(a_served("again", SHOWN, "r0", AT_S, user_id="u0"))]})
    log_events(data, *all_seen())
    again = {"event_type": "click", "recommendation_id": "again", "position": 3, "item_id": f"i{SHOWN[2]}"}
    again |= {"event_id": "x", "timestamp": "2026-03-01T10:00:05Z", "user_id": "u0"}
    ParquetLog(data / "event_log").write([parse(json.dumps(again).encode())])

    assert learnt(data).report["lists"] == LEAST_LISTS + 1


def test_an_empty_directory_teaches_nothing(tmp_path):
    logged = from_log.learnt(tmp_path, DATASET, "plan")

    assert logged.lessons == ()
    assert logged.report["slates"] == 0
    assert slate_log.files(tmp_path) == []


def test_what_stands_twice_after_a_crash_is_taken_once(data):
    log_slates(data)
    log_slates(data)
    log_events(data, *all_seen())

    assert learnt(data).report["lists"] == LEAST_LISTS
