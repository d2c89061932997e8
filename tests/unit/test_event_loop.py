"""The loop's heartbeat and its watchdog, on a clock of ours; tests/integration/test_event_loop.py blocks a real one."""

import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.event_loop import HANG_S, INTERVAL_S, STALL_S, LoopWatch
from orchestrator.core.lag import Lag
from orchestrator.telemetry import new_metrics

STACK = ("slow.py:7 culprit", "asyncio/events.py:80 Handle._run")


class Watched:
    """A LoopWatch whose loop turns when told to, and the looks its thread took at the stack."""

    def __init__(self):
        self.now = 100.0
        self.metrics = new_metrics()
        self.looks = 0
        self.watch = LoopWatch(self.metrics, lambda: self.now, self._stack_of)
        self.beat()

    def _stack_of(self, _thread_id):
        self.looks += 1
        return STACK

    def pass_time(self, seconds):
        self.now += seconds

    def beat(self):
        # The first one ends the time before the watch, which is nobody's stall.
        if self.now == 100.0:
            self.watch._beaten_at = self.now
        self.watch.beat(self.now)

    def counted(self, name):
        return self.metrics.registry.get_sample_value(name)


@pytest.fixture
def watched():
    return Watched()


def test_a_loop_in_time_is_not_late_and_nobody_looks_at_it(watched):
    with capture_logs() as logged:
        for _ in range(100):
            watched.pass_time(INTERVAL_S)
            watched.watch.look(watched.now)
            watched.beat()

    assert watched.watch.lag.smoothed_s == pytest.approx(0, abs=1e-9)
    assert (watched.looks, logged, watched.counted("tutti_loop_stalls_total")) == (0, [], 0)


def test_lateness_is_what_a_beat_took_beyond_its_interval(watched):
    watched.pass_time(INTERVAL_S + 0.030)
    watched.beat()

    assert watched.watch.lag == Lag(pytest.approx(0.006), pytest.approx(0.030), beats=2)
    assert watched.counted("tutti_loop_lag_seconds_sum") == pytest.approx(0.030)


def test_a_turn_that_is_not_over_is_as_late_as_its_beat_is_overdue(watched):
    watched.watch._next = object()

    overdue_s = []
    for _ in range(3):
        overdue_s.append(watched.watch.lag.overdue_s)
        watched.pass_time(INTERVAL_S)
    watched.beat()

    assert overdue_s == pytest.approx([0.0, 0.0, INTERVAL_S])
    assert watched.watch.lag.overdue_s == 0.0


def test_a_stall_is_told_once_with_its_culprit_and_its_length(watched):
    with capture_logs() as logged:
        for _ in range(4):
            watched.pass_time(STALL_S)
            watched.watch.look(watched.now + 0.001)
        assert logged == [], "its length is known when it ends"
        watched.beat()
        for _ in range(10):
            watched.pass_time(INTERVAL_S)
            watched.watch.look(watched.now)
            watched.beat()

    assert watched.looks == 1
    assert logged == [
        {
            "event": "loop_stalled",
            "log_level": "warning",
            "lasted_s": 0.19,
            "culprit": "slow.py:7 culprit",
            "frames": list(STACK),
        }
    ]
    assert watched.counted("tutti_loop_stalls_total") == 1


def test_every_stall_gets_its_own_look(watched):
    with capture_logs() as logged:
        for _ in range(3):
            watched.pass_time(0.080)
            watched.watch.look(watched.now)
            watched.beat()

    assert watched.looks == len(logged) == 3


def test_a_stall_nobody_could_see_is_told_all_the_same_and_not_blamed_on_the_last(watched):
    watched.pass_time(0.080)
    watched.watch.look(watched.now)
    with capture_logs() as logged:
        watched.beat()
        watched.pass_time(0.080)
        watched.beat()

    assert [line["frames"] for line in logged] == [list(STACK), []]
    assert logged[1]["culprit"].startswith("unseen")


def test_a_loop_that_hangs_is_told_while_it_hangs_once(watched):
    with capture_logs() as logged:
        while watched.now < 100 + 3 * HANG_S:
            watched.pass_time(watched.watch.look(watched.now))

    assert [(line["event"], line["frames"]) for line in logged] == [("loop_hangs", list(STACK))]
    assert HANG_S - INTERVAL_S < logged[0]["since_s"] < HANG_S + 2 * STALL_S


def test_the_thread_sleeps_until_there_is_something_to_see(watched):
    watched.pass_time(0.010)
    wait_s = watched.watch.look(watched.now)

    assert wait_s == pytest.approx(0.041)
    watched.pass_time(wait_s)
    assert watched.watch.look(watched.now) == STALL_S
    assert watched.looks == 1


def test_a_watch_that_was_never_started_is_not_late_and_can_be_stopped():
    watch = LoopWatch(new_metrics())
    watch.stop()

    assert watch.lag == Lag()
    assert repr(watch) == "<LoopWatch 0.0 ms late, off>"


# Once: told as text, a stall broke the renderer and with it the heartbeat.
def test_a_stall_counts_from_the_turn_after_it_before_the_next_beat_and_once(watched):
    watched.watch._next = object()
    began_at = watched.now
    watched.pass_time(INTERVAL_S + 0.1)
    in_the_turn_after = watched.watch.stalled_s(began_at, watched.now)
    watched.beat()

    assert in_the_turn_after == pytest.approx(0.1)
    assert watched.watch.stalled_s(began_at, watched.now) == pytest.approx(0.1)
    assert watched.watch.stalled_s(watched.now, watched.now) == 0


def test_before_it_is_started_nothing_stood_still(watched):
    watched.pass_time(5)

    assert watched.watch.stalled_s(100.0, watched.now) == 0
