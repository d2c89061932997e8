"""How late the loop runs: the smoothed number one acts upon, and the worst of the last second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import settings
from orchestrator.core.lag import WORST_OF_S, Lag, LagMeter
from orchestrator.core.shedding import Priority

CRITICAL = settings.load(environment={}).admission.table[Priority.CRITICAL]


def beaten(*lates_s, every_s=0.01):
    meter, now = LagMeter(), 0.0
    for late_s in lates_s:
        now += every_s + late_s
        meter.beat(now, late_s)
    return meter, now


def test_before_the_first_beat_nothing_is_late():
    assert LagMeter().read(5.0) == Lag(0.0, 0.0)


def test_beats_are_counted_and_the_one_that_is_due_is_told_as_it_is():
    meter, now = beaten(0.0, 0.0, 0.0)

    assert meter.read(now, overdue_s=0.040) == Lag(0.0, 0.0, 0.040, 3)


def test_one_stall_does_not_cost_a_shopper_the_slate():
    meter, now = beaten(*[0.0] * 20, 0.150)

    lag = meter.read(now)
    assert lag.smoothed_s < CRITICAL.cheap_lag_s
    assert lag.worst_s == 0.150
    assert repr(meter) == "<LagMeter 30.0 ms>"


def test_a_loop_that_stays_late_is_found_out_within_a_second():
    meter, now = beaten(*[0.0] * 20, *[0.100] * 6)

    assert meter.read(now).smoothed_s > CRITICAL.shed_lag_s


def test_a_loop_that_recovers_is_trusted_again_within_a_second():
    meter, _ = beaten(*[0.100] * 50, *[0.0] * 20)

    assert meter.read(10.0).smoothed_s < 0.002


def test_the_worst_is_forgotten_after_a_second_even_if_no_beat_comes():
    meter, now = beaten(0.050)

    assert meter.read(now + WORST_OF_S - 0.001).worst_s == 0.050
    assert meter.read(now + WORST_OF_S + 0.001).worst_s == 0.0


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.3)), min_size=1))
def test_the_worst_is_the_maximum_of_the_beats_of_the_last_second(beats):
    meter, now = LagMeter(), 0.0
    seen = []

    for pause_s, late_s in beats:
        now += pause_s
        seen.append((now, late_s))
        meter.beat(now, late_s)

        assert meter.read(now).worst_s == max(late for at, late in seen if at >= now - WORST_OF_S)
        assert 0 <= meter.read(now).smoothed_s <= max(late for _, late in seen) * (1 + 1e-9)


def test_time_in_which_the_loop_stood_still_is_told_for_any_stretch():
    meter = LagMeter()
    meter.beat(1.0, 0.1)
    meter.beat(1.01, 0.0)
    meter.beat(1.1, 0.08)

    assert meter.stalled_s(0.5, 2.0) == pytest.approx(0.18)
    assert meter.stalled_s(0.95, 2.0) == pytest.approx(0.05 + 0.08)
    assert meter.stalled_s(0.5, 1.05) == pytest.approx(0.1)
    assert meter.stalled_s(1.2, 2.0) == 0


def test_ordinary_lateness_is_no_stall():
    meter = LagMeter()

    meter.beat(1.0, 0.009)

    assert meter.stalled_s(0.0, 2.0) == 0
