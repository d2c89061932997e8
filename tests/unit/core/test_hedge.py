"""When a second replica is asked, and that hedges never make more load than they may."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.hedge import HEDGE_SHARE, MIN_SAMPLES, HedgeBudget, hedge_delay


class Known:
    """Latencies that were measured once, s; percentiles by rank."""

    def __init__(self, seconds):
        self._seconds = sorted(seconds)

    def count(self, now):
        return len(self._seconds)

    def percentile(self, now, p):
        return self._seconds[min(len(self._seconds) - 1, int(p * len(self._seconds)))] if self._seconds else None


def a_tail(fast_s=0.005, slow_s=0.030, slow_share=0.04, n=1000):
    n_slow = int(n * slow_share)
    return Known([fast_s] * (n - n_slow) + [slow_s] * n_slow)


def test_the_delay_is_the_percentile_that_leaves_the_share():
    latencies = Known([i / 100_000 for i in range(1, 1001)])

    assert hedge_delay(latencies, 0.0, 0.040) == pytest.approx(0.0095, abs=1e-4)
    assert hedge_delay(latencies, 0.0, 0.040, share=0.02) == pytest.approx(0.0098, abs=1e-4)


# case 54: hedge_cold
@pytest.mark.parametrize("n", [0, 1, MIN_SAMPLES - 1])
def test_nothing_is_hedged_before_the_latencies_are_known(n):
    assert hedge_delay(Known([0.005] * n), 0.0, 0.040) is None
    assert hedge_delay(Known([0.005] * MIN_SAMPLES), 0.0, 0.040) == 0.005


@pytest.mark.parametrize("unknown", [0.5, 0.75, 0.95])
def test_a_histogram_that_cannot_say_is_not_believed(unknown):
    class Shy(Known):
        def percentile(self, now, p):
            return None if p == unknown else super().percentile(now, p)

    assert hedge_delay(Shy([0.005] * 200), 0.0, 0.040) is None


def test_a_hedge_that_would_answer_too_late_is_not_sent():
    latencies = a_tail(fast_s=0.005)

    assert hedge_delay(latencies, 0.0, 0.0101) == 0.005
    assert hedge_delay(latencies, 0.0, 0.0099) is None


# With 1 % of the packets lost, or less than a minute after an outage, a twentieth of the calls and more are timeouts:
# the percentile was the timeout itself, and just then nothing was hedged.
@pytest.mark.parametrize("slow_share", [0.06, 0.1, 0.2])
def test_where_the_percentile_is_the_timeout_a_second_is_asked_while_it_can_still_answer(slow_share):
    latencies = a_tail(fast_s=0.005, slow_s=0.031, slow_share=slow_share)

    assert hedge_delay(latencies, 0.0, 0.031) == pytest.approx(0.021)


@pytest.mark.parametrize("slow_share", [0.3, 0.5, 0.9])
def test_where_many_calls_never_end_it_is_no_tail_and_nothing_is_hedged(slow_share):
    latencies = a_tail(fast_s=0.005, slow_s=0.031, slow_share=slow_share)

    assert hedge_delay(latencies, 0.0, 0.031) is None


def test_a_call_with_little_time_is_not_hedged_at_the_last_moment_either():
    latencies = a_tail(fast_s=0.005, slow_s=0.031, slow_share=0.1)

    assert hedge_delay(latencies, 0.0, 0.0151) == pytest.approx(0.0051)
    assert hedge_delay(latencies, 0.0, 0.0149) is None


def test_a_percentile_out_of_the_histogram_hedges_nothing():
    assert hedge_delay(Known([0.001] * 90 + [1.0] * 10), 0.0, 60.0) is None


def test_a_dependency_that_is_slow_as_a_whole_is_not_hedged():
    assert hedge_delay(Known([0.036] * 1000), 0.0, 0.036) is None


def test_the_delay_is_a_millisecond_at_least():
    assert hedge_delay(Known([0.0001] * 1000), 0.0, 0.040) == 0.001


# case 52: hedge_storm
@pytest.mark.parametrize("per_s", [10, 100, 1000])
def test_when_every_call_is_late_hedges_stay_a_twentieth(per_s):
    budget, n_calls, hedges = HedgeBudget(), per_s * 30, 0

    for i in range(n_calls):
        budget.sent(i / per_s)
        hedges += budget.try_withdraw(i / per_s)

    assert 0.9 * HEDGE_SHARE * n_calls <= hedges <= HEDGE_SHARE * n_calls


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 40), st.integers(0, 5)), max_size=60))
def test_hedges_never_exceed_their_share_of_the_calls_before_them(steps):
    budget, now, calls, hedges = HedgeBudget(), 0.0, 0, 0

    for seconds, n_calls, n_hedges in steps:
        now += seconds
        for _ in range(n_calls):
            budget.sent(now)
        calls += n_calls
        hedges += sum(budget.try_withdraw(now) for _ in range(n_hedges))

        assert hedges <= HEDGE_SHARE * calls


def test_a_quiet_hour_saves_up_no_hedges():
    budget = HedgeBudget()
    for _ in range(1000):
        budget.sent(0.0)

    assert not budget.try_withdraw(3600.0)


# The specification's simulation: 2 % of the calls take 60 to 200 ms, a request waits for three.
def test_a_hedge_at_its_percentile_cuts_the_tail_for_its_share_of_load():
    rng = random.Random(13)

    def latency():
        return rng.uniform(0.060, 0.200) if rng.random() < 0.02 else rng.lognormvariate(-5.0, 0.35)

    latencies = Known([latency() for _ in range(5000)])
    budget, calls, hedges, plain, hedged = HedgeBudget(), 0, 0, [], []
    for i in range(5000):
        now = i / 100
        delay_s = hedge_delay(latencies, now, 0.250)
        waits, shorter = [], []
        for _ in range(3):
            first_s = latency()
            calls += 1
            budget.sent(now)
            waits.append(first_s)
            if first_s > delay_s and budget.try_withdraw(now):
                hedges += 1
                first_s = min(first_s, delay_s + latency())
            shorter.append(first_s)
        plain.append(max(waits))
        hedged.append(max(shorter))

    p99 = int(0.99 * 5000)
    assert hedges <= HEDGE_SHARE * calls
    assert sorted(plain)[p99] > 0.150
    assert sorted(hedged)[p99] < 0.060


def test_a_budget_says_what_is_left():
    budget = HedgeBudget()
    budget.sent(0.0)

    assert repr(budget) == "<HedgeBudget <SpoilingTokens 1.0 left, each lives 10 s>, 20 for a hedge>"
