"""How far a stage is: what is told from inside a fit, and what is said of it on a terminal and in a log."""

import io

import pytest

from services.training import headway, speaking
from services.training.headway import Headway


def test_what_is_told_in_a_span_counts_for_that_part_of_the_stage():
    heard = []

    with headway.heard_by(heard.append):
        headway.told(1, 4)
        with headway.span(0.5, 0.9):
            headway.told(1, 2)
            with headway.span(0.5, 1.0):
                headway.told(1, 2)
        headway.told(1, 1)

    assert heard == pytest.approx([0.25, 0.7, 0.8, 0.9, 0.9, 1.0])


def test_nobody_has_to_listen():
    headway.told(1, 2)
    with headway.span(0, 0.5):
        headway.told(1, 2)
    headway.teller()(1, 2)


def test_a_thread_is_given_the_ear_of_who_began_it():
    heard = []
    with headway.heard_by(heard.append), headway.span(0.5, 1.0):
        tell = headway.teller()

    tell(1, 2)

    assert heard[-1] == 0.75


def test_time_left_is_the_pace_so_far_and_unknown_before_there_is_one():
    assert str(Headway("fitting", 0.25, 30.0)) == "fitting: 25%, 1 min 30 s left"
    assert str(Headway("fitting", 0.0, 300.0)) == "fitting: 0%, time left unknown"
    assert str(Headway("fitting", 0.5, 0.1)) == "fitting: 50%, time left unknown"
    assert str(Headway("fitting", 1.0, 30.0)) == "fitting: 100%, 0 s left"


def shown(stream):
    """A run of two stages, with the clock brought along: 0 s, then 100 s of which the second stage hears every ten."""
    now = [0.0]
    with speaking.steps(stream, lambda: now[0]) as begin:
        begin("reading the data")
        headway.told(1, 1)
        begin("fitting [x] before 2026-01-01")
        for done in range(1, 11):
            now[0] += 10
            headway.told(done, 10)


def test_a_log_is_told_each_step_by_its_bare_name_and_now_and_then_how_far_it_is():
    stream = io.StringIO()

    shown(stream)

    assert stream.getvalue().splitlines() == [
        "reading the data",
        "fitting [x] before 2026-01-01",
        "  fitting [x] before 2026-01-01: 20%, 1 min 20 s left",
        "  fitting [x] before 2026-01-01: 40%, 1 min 0 s left",
        "  fitting [x] before 2026-01-01: 60%, 40 s left",
        "  fitting [x] before 2026-01-01: 80%, 20 s left",
    ]


def test_a_terminal_has_one_line_that_rewrites_itself():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()

    shown(stream)

    # The one at the end, whose line is erased again.
    assert stream.getvalue().count("\n") == 1
    assert "2. fitting [x] before 2026-01-01: 100%, 0 s left" in stream.getvalue()
