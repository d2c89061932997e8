"""What `tutti ingest status` says, and what it says when there is nothing to ask."""

import json

from prometheus_client import generate_latest
from typer.testing import CliRunner

from services.ingestion.lag import Lag
from services.ingestion.metrics import IngestionMetrics
from services.ingestion.verbs import ingest, lines

QUIET = Lag(0, 0, 0.0, 0.0, 0, None, "", 0, 12, ("one",))


def test_a_quiet_ingestion_says_so_line_by_line():
    assert lines(QUIET) == [
        "log:           0 unread, 0 in hand; nothing waits",
        "features:      everything is counted",
        "dead letters:  0",
        "redactions:    0 people's orders wait",
        "stream:        12 entries; consumers: one",
    ]


def test_what_waits_is_told_with_its_age_and_a_dead_letter_with_its_reason():
    said = lines(Lag(3, 1_200, 7.25, 1.5, 2, 60.0, "not JSON", 1, 5_000, ()))

    assert said[0] == "log:           3 unread, 1,200 in hand; oldest 7.2 s old"
    assert said[1] == "features:      oldest event not counted 1.5 s old"
    assert said[2] == "dead letters:  2, the last 60 s ago: not JSON"
    assert said[4] == "stream:        5,000 entries; consumers: none"


def test_without_a_running_system_one_sentence_says_what_to_do(tmp_path):
    answer = CliRunner().invoke(ingest, ["status", "--data", str(tmp_path)])

    assert answer.exit_code == 1
    assert "tutti up" in answer.output


def test_a_redis_that_does_not_answer_is_one_sentence_too(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    run.joinpath("status.json").write_text(json.dumps({"processes": [{"name": "redis", "address": "127.0.0.1:1"}]}))

    answer = CliRunner().invoke(ingest, ["status", "--data", str(tmp_path)])

    assert answer.exit_code == 1
    assert "127.0.0.1:1" in answer.output


def test_prometheus_is_told_the_same():
    metrics = IngestionMetrics()

    metrics.show(Lag(3, 1_200, 7.25, None, 2, 60.0, "not JSON", 1, 5_000, ()))

    text = generate_latest(metrics.registry).decode()
    for line in (
        "tutti_ingestion_unread 3.0",
        "tutti_ingestion_lag_seconds 7.25",
        "tutti_ingestion_features_rebuilding 1.0",
        "tutti_ingestion_dead_letters 2.0",
        "tutti_ingestion_up 1.0",
    ):
        assert line in text
