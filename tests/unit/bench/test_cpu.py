"""CPU seconds of processes."""

import os

import pytest

from services.bench import cpu


def test_our_own_seconds_are_those_the_system_tells_us():
    before = cpu.seconds(os.getpid())
    sum(i * i for i in range(300_000))
    after, times = cpu.seconds(os.getpid()), os.times()

    assert after > before
    assert after == pytest.approx(times.user + times.system, abs=0.05)


def test_what_was_spent_before_does_not_count():
    assert cpu.between({"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 2.0, "c": 9.0}) == {"a": 0.5, "b": 0.0}
