"""Faults on demand: what the file says, to whom, how often; and what a bent answer looks like."""

import json
import os
import random

import grpc
import numpy as np
import pytest

from protos.arrays import Rows, pack_rows, unpack_rows
from protos.tutti.v1 import candidate_generation_pb2, reranking_pb2
from services.chassis.faults import NO_FAULT, Answer, BadFaults, Fault, Faults, bend, parse


class Log:
    """Keeps what was said."""

    def __init__(self):
        self.said = []

    def warning(self, event, **_):
        self.said.append(("warning", event))

    def error(self, event, **_):
        self.said.append(("error", event))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def write(path, document):
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "faults.json"


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def faults(path, clock, log):
    return Faults(path, "toy", 1, log, random.Random(7), clock)


def test_without_the_variable_nothing_can_be_injected(path, log):
    write(path, {"toy": {"status": "INTERNAL"}})

    assert Faults.from_environment({}, "toy", 0, log) is None
    assert Faults.from_environment({"TUTTI_FAULTS_FILE": str(path)}, "toy", 0, log).draw() == Fault(
        status=grpc.StatusCode.INTERNAL
    )


def test_the_possibility_is_said_aloud(faults, log):
    assert log.said == [("warning", "fault injection is possible")]


def test_a_line_for_one_replica_wins_over_the_line_for_all():
    document = {"toy": {"status": "INTERNAL"}, "toy:1": {"delay_ms": 200, "share": 0.5}, "other": {"answer": "nan"}}

    assert parse(document, ("toy:1", "toy")) == Fault(delay_s=0.2, share=0.5)
    assert parse(document, ("toy:0", "toy")) == Fault(status=grpc.StatusCode.INTERNAL)
    assert parse(document, ("mine:0", "mine")) == NO_FAULT


def test_a_change_of_the_file_is_seen_at_the_next_look_and_its_end_too(faults, path, clock):
    write(path, {"toy": {"status": "INTERNAL"}})
    assert faults.draw().status is grpc.StatusCode.INTERNAL

    write(path, {"toy": {"status": "UNAVAILABLE"}})
    clock.now = 0.049
    assert faults.draw().status is grpc.StatusCode.INTERNAL
    clock.now = 0.05
    assert faults.draw().status is grpc.StatusCode.UNAVAILABLE

    path.unlink()
    clock.now = 0.1
    assert faults.draw() == NO_FAULT


def test_a_share_of_the_calls_is_hit(faults, path):
    write(path, {"toy": {"status": "INTERNAL", "share": 0.1}})

    hit = sum(faults.draw().status is not None for _ in range(2_000))

    assert 150 < hit < 250


@pytest.mark.parametrize(
    "document",
    [
        "not json",
        "[]",
        {"toy": 1},
        {"toy": {"statu": "INTERNAL"}},
        {"toy": {"status": "SLEEPY"}},
        {"toy": {"status": "OK"}},
        {"toy": {"answer": "odd"}},
        {"toy": {"status": "INTERNAL", "answer": "nan"}},
        {"toy": {"share": 1.5}},
        {"toy": {"delay_ms": -1}},
    ],
)
def test_a_file_that_cannot_be_understood_is_no_fault_and_is_logged(faults, log, path, document):
    write(path, document)

    assert faults.draw() == NO_FAULT
    assert log.said[-1] == ("error", "faults cannot be read")
    if not isinstance(document, str):
        with pytest.raises(BadFaults):
            parse(document, ("toy:1", "toy"))


def candidates():
    return candidate_generation_pb2.GenerateReply(
        candidates=pack_rows(Rows.of([[3, 5], [], [7]])),
        scores=np.array([2, 1, 3], "<f4").tobytes(),
        model_version="v1",
    )


@pytest.mark.parametrize(
    ("answer", "rows", "n_scores"),
    [
        (Answer.EMPTY, [[], [], []], 0),
        (Answer.NAN, [[3, 5], [], [7]], 3),
        (Answer.DUPLICATE, [[3, 3], [], [7]], 3),
        (Answer.UNKNOWN, [[2**31 - 1, 2**31 - 2], [], [2**31 - 1]], 3),
        (Answer.HUGE, [[3, 5] * 10, [], [7] * 10], 30),
    ],
)
def test_a_generators_answer_is_bent_in_one_thing_only(answer, rows, n_scores):
    reply = bend(candidates(), Fault(answer=answer), 3)

    found = unpack_rows(reply.candidates, 3, "candidates")
    scores = np.frombuffer(reply.scores, "<f4")
    assert [found.row(i).tolist() for i in range(3)] == rows
    assert len(scores) == n_scores
    assert np.isnan(scores).all() == (answer in (Answer.NAN, Answer.EMPTY))
    assert reply.model_version == "v1"


@pytest.mark.parametrize(
    ("answer", "n_scores"),
    [(Answer.EMPTY, 0), (Answer.NAN, 3), (Answer.DUPLICATE, 4), (Answer.UNKNOWN, 2), (Answer.HUGE, 30)],
)
def test_a_rerankers_answer_is_bent_in_one_thing_only(answer, n_scores):
    reply = reranking_pb2.RerankReply(scores=np.array([2, 1, 3], "<f4").tobytes(), model_version="v2")

    scores = np.frombuffer(bend(reply, Fault(answer=answer), 1).scores, "<f4")

    assert len(scores) == n_scores
    assert np.isnan(scores).all() == (answer in (Answer.NAN, Answer.EMPTY))


def test_no_fault_leaves_an_answer_as_it_is():
    reply = candidates()

    assert bend(reply, NO_FAULT, 3) is reply
    assert reply == candidates()
