"""A process that stood still holds calls back for a moment; one that did not never does."""

import pytest

from services.chassis.stalls import BEAT_S, HOLD_S, STALL_S, SUSPECT_S, Stalls


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stalls(clock):
    return Stalls(clock)


def test_a_loop_that_turns_holds_nothing_back(stalls, clock):
    for _ in range(100):
        clock.now += BEAT_S + STALL_S / 2
        assert stalls.hold_s() == 0
        stalls.beat()


def test_a_call_that_arrives_before_the_first_beat_after_a_stall_is_held_back(stalls, clock):
    clock.now += 1

    assert stalls.hold_s() == HOLD_S


def test_calls_that_arrive_after_the_beat_that_noticed_a_stall_are_held_back_for_a_while(stalls, clock):
    clock.now += 1
    stalls.beat()
    holds = []
    for _ in range(40):
        holds.append(stalls.hold_s())
        clock.now += BEAT_S
        stalls.beat()

    assert holds == sorted(holds, reverse=True)
    assert holds.count(HOLD_S) == pytest.approx(SUSPECT_S / BEAT_S, abs=1)
