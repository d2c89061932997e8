"""The schedule, the specification and the history as they travel between processes."""

import random
from itertools import pairwise

import pytest

from orchestrator.doctor import history
from orchestrator.doctor.history import Seen
from orchestrator.doctor.http_client import Reply
from orchestrator.doctor.load import Heart, Segment, Spec, moments, process_of, spec_of


def test_a_constant_schedule_is_even_and_segments_follow_each_other():
    due = list(moments([Segment(10, 1), Segment(0, 1), Segment(2, 1)], "constant", random.Random(1)))

    assert due == pytest.approx([*(n / 10 for n in range(10)), 2.0, 2.5])


def test_a_poisson_schedule_has_its_rate_and_its_bursts():
    due = list(moments([Segment(100, 100)], "poisson", random.Random(1)))
    gaps = [b - a for a, b in pairwise(due)]

    assert len(due) == pytest.approx(10_000, rel=0.05)
    assert due == sorted(due)
    assert sum(gap < 0.001 for gap in gaps) > 500


def test_a_specification_arrives_as_it_was_sent():
    spec = Spec("127.0.0.1", 80, (Segment(5, 2),), ("u",), ("i",), priorities={"bulk": 1.0}, retries=3)

    assert spec_of(spec.document()) == spec


def test_a_history_is_read_as_it_was_written_in_the_order_of_schedule(tmp_path):
    late = Seen(2.0, 2.0, 2.1, "home", 200, degraded=("cf",), lost=(("cf", "open"),), rung=3, broken=("I7",))
    early = Seen(1.0, 1.5, 3.0, "item", 0, error="timeout", client_s=0.5)

    history.write(tmp_path / "seen.jsonl", [late, early])

    assert history.read(tmp_path / "seen.jsonl") == [early, late]


def test_a_half_open_interval_takes_each_answer_once():
    seen = [Seen(at, at, at, "home", 200) for at in (0.0, 1.0, 2.0)]

    assert [one.scheduled_at for one in history.between(seen, 0.0, 1.0)] == [0.0]
    assert [one.scheduled_at for one in history.between(seen, 1.0, 2.5)] == [1.0, 2.0]


def test_the_clients_own_stalls_are_counted_by_how_much_of_a_request_they_cover():
    heart = Heart()
    heart.stalls = [(1.0, 1.2), (2.0, 2.1)]

    assert heart.slept(1.1, 2.05) == pytest.approx(0.15)
    assert heart.slept(1.3, 1.9) == 0.0


def test_an_answer_says_which_process_gave_it_or_does_not():
    timing = b'http/1.1 200 ok\r\nserver-timing: total;dur=1.20, process;desc="4711"\r\n'

    assert process_of(Reply(200, timing, b"", 0.0)) == "4711"
    assert process_of(Reply(200, b"http/1.1 200 ok\r\nserver-timing: total;dur=1.20\r\n", b"", 0.0)) == ""
    assert process_of(Reply(200, b"http/1.1 200 ok\r\n", b"", 0.0)) == ""
