"""How long a method takes: percentiles of the last half minute or so."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.latency import HALF_S, LEAST_SAMPLES, REFRESH_S, SMALLEST_S, Latencies

WITHIN = 0.06
"""A bucket is 5 % wide, and a value is told as its middle."""


def filled(seconds, now=0.0):
    latencies = Latencies()
    for each in seconds:
        latencies.record(now, each)
    return latencies


def test_before_a_hundred_calls_it_says_nothing():
    latencies = filled([0.005] * (LEAST_SAMPLES - 1))

    assert latencies.percentile(0.0, 0.5) is None
    assert latencies.percentile(0.0, 0.5, least=1) == pytest.approx(0.005, rel=WITHIN)
    latencies.record(0.0, 0.005)
    assert latencies.percentile(0.0, 0.9) == pytest.approx(0.005, rel=WITHIN)


@given(st.lists(st.floats(0.0002, 2.0), min_size=LEAST_SAMPLES, max_size=300), st.floats(0.01, 1.0))
def test_a_percentile_is_off_by_a_buckets_width_at_most(seconds, p):
    told = filled(seconds).percentile(0.0, p)

    ordered = sorted(seconds)
    true = ordered[max(0, -int(-p * len(ordered) // 1) - 1)]
    assert told == pytest.approx(true, rel=WITHIN)


def test_a_first_value_is_told_at_once_and_later_ones_are_refreshed_every_three_seconds():
    latencies = filled([0.005] * 100)
    first = latencies.percentile(0.0, 0.5)
    for _ in range(300):
        latencies.record(1.0, 0.05)

    assert latencies.percentile(REFRESH_S - 0.1, 0.5) == first
    assert latencies.percentile(REFRESH_S, 0.5) == pytest.approx(0.05, rel=WITHIN)


def test_what_is_older_than_two_halves_is_forgotten():
    latencies = filled([0.005] * 200)

    assert latencies.count(HALF_S - 0.1) == 200
    assert latencies.count(HALF_S + 0.1) == 200
    assert latencies.count(2 * HALF_S + 0.1) == 0


def test_an_hour_of_silence_forgets_everything_and_goes_on():
    latencies = filled([0.005] * 200)

    latencies.record(3_600.0, 0.01)

    assert latencies.count(3_600.0) == 1


@pytest.mark.parametrize(("seconds", "told"), [(0.0, SMALLEST_S), (1e-9, SMALLEST_S), (1e9, 4.0)])
def test_what_lies_outside_the_buckets_counts_at_their_ends(seconds, told):
    latencies = filled([seconds] * 100)

    assert latencies.percentile(0.0, 0.5) == pytest.approx(told, rel=WITHIN)


def test_a_mixture_has_its_percentiles_where_they_belong():
    rng = random.Random(3)
    latencies = filled([0.2 if rng.random() < 0.02 else 0.01 for _ in range(5000)])

    assert latencies.percentile(0.0, 0.95) == pytest.approx(0.01, rel=WITHIN)
    assert latencies.percentile(0.0, 0.995) == pytest.approx(0.2, rel=WITHIN)
