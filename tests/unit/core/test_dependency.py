"""What one dependency allows next: every permit comes back, whatever refuses and however an attempt ends."""

import random

import pytest

from orchestrator.core.breaker import BreakerPolicy, State
from orchestrator.core.dependency import FAIR_SHARE, Attempt, Dependency, Kind, Policy
from orchestrator.core.limiter import LimiterPolicy
from orchestrator.core.model import Loss
from orchestrator.core.outcomes import Verdict

CAP_S = 0.04
TIMEOUT_S = 0.036


def a_dependency(replicas=1, max_inflight=100, **about):
    limiter = LimiterPolicy(initial=min(20, max_inflight), max_inflight=max_inflight)
    return Dependency("cf", Policy(CAP_S, replicas, limiter=limiter, **about), random.Random(1))


def begun(dependency, now=0.0, timeout_s=TIMEOUT_S, **about) -> Attempt:
    attempt = dependency.begin(now, timeout_s, **about)
    assert isinstance(attempt, Attempt), attempt
    return attempt


def a_usual_day(dependency, calls=200, takes_s=0.005, now=0.0):
    """Enough answers for the histogram to speak; the moment after the last one."""
    for _ in range(calls):
        begun(dependency, now).end(now + takes_s, None)
        now += 0.01
    return now + 5


def nothing_is_held(dependency):
    return dependency.limiter.in_flight == 0 and dependency.breaker.n_in_flight == 0


def opened(dependency, now=0.0):
    for _ in range(BreakerPolicy().consecutive_failures):
        begun(dependency, now).end(now + 0.001, Loss.UNAVAILABLE)
    assert dependency.breaker.state_at(now) is State.OPEN
    return now


def test_an_attempt_holds_its_place_until_it_ends():
    dependency = a_dependency()

    attempt = begun(dependency)
    held = dependency.limiter.in_flight
    attempt.end(0.005, None)

    assert held == 1
    assert nothing_is_held(dependency)


@pytest.mark.parametrize("loss", [None, *(loss for loss in Loss)])
def test_however_it_ends_its_place_comes_back_once(loss):
    dependency = a_dependency()
    attempt, other = begun(dependency), begun(dependency)

    attempt.end(0.03, loss)
    attempt.end(0.03, loss)
    attempt.let_go(0.03)

    assert dependency.limiter.in_flight == 1
    other.let_go(0.03)
    assert nothing_is_held(dependency)


def test_an_open_breaker_refuses_before_anything_is_taken():
    dependency = a_dependency()
    now = opened(dependency)

    assert dependency.begin(now, TIMEOUT_S) is Loss.BREAKER_OPEN
    assert nothing_is_held(dependency)


def test_a_full_limiter_gives_the_breakers_permit_back():
    dependency = a_dependency(max_inflight=4)
    attempts = [begun(dependency) for _ in range(4)]

    assert dependency.begin(0.0, TIMEOUT_S) is Loss.SHED
    for attempt in attempts:
        attempt.let_go(0.0)
    assert nothing_is_held(dependency)


def test_without_another_replica_nobody_is_asked():
    dependency = a_dependency(replicas=1)

    assert dependency.begin(0.0, TIMEOUT_S, Kind.RETRY, besides=0) is Loss.SHED
    assert nothing_is_held(dependency)


def test_less_time_than_the_median_answer_takes_is_not_worth_a_call():
    dependency = a_dependency()
    now = a_usual_day(dependency, takes_s=0.012)

    assert dependency.begin(now, 0.008) is Loss.NO_BUDGET
    begun(dependency, now, 0.015).let_go(now)


def test_a_dependency_that_has_become_slow_is_still_asked_with_the_whole_cap():
    dependency = a_dependency()
    now = a_usual_day(dependency, takes_s=0.031)

    begun(dependency, now, 0.025).let_go(now)


def test_a_timeout_with_a_fair_time_is_a_failure_even_where_everything_always_times_out():
    dependency = a_dependency()
    now = 0.0
    for _ in range(200):
        attempt = dependency.begin(now, TIMEOUT_S)
        if isinstance(attempt, Attempt):
            attempt.end(now + TIMEOUT_S, Loss.DEADLINE)
        now += 0.05

    assert dependency.judgement(Loss.DEADLINE, TIMEOUT_S, TIMEOUT_S, now).verdict is Verdict.SLOW_FAILURE


def test_a_timeout_with_less_than_a_fair_time_says_nothing():
    dependency = a_dependency()
    short_s = FAIR_SHARE * CAP_S - 0.001

    assert dependency.judgement(Loss.DEADLINE, short_s, short_s, 0.0).verdict is Verdict.IGNORE


def test_time_in_which_our_own_loop_stood_still_is_not_its_time():
    dependency = a_dependency()

    judged = begun(dependency).end(0.11, None, stalled_s=0.1)

    assert judged.verdict is Verdict.SUCCESS


class TestHedge:
    def test_one_leaves_on_the_other_replica_when_the_usual_time_is_over(self):
        dependency = a_dependency(replicas=2)
        now = a_usual_day(dependency)
        first = begun(dependency, now)

        delay_s = dependency.hedge_after(now, TIMEOUT_S)
        second = dependency.begin_hedge(now + delay_s, TIMEOUT_S - delay_s, first.replica)

        assert 0.004 < delay_s < 0.01
        assert second.replica != first.replica
        assert second.kind is Kind.HEDGE

    def test_none_with_one_replica_or_when_switched_off(self):
        for dependency in (a_dependency(replicas=1), a_dependency(replicas=2, hedged=False)):
            now = a_usual_day(dependency)

            assert dependency.hedge_after(now, TIMEOUT_S) is None

    def test_none_while_the_breaker_is_not_closed(self):
        dependency = a_dependency(replicas=2)
        now = a_usual_day(dependency)
        first = begun(dependency, now)
        opened(dependency, now)

        assert dependency.begin_hedge(now, TIMEOUT_S, first.replica) is None

    def test_one_without_a_token_gives_back_what_it_took(self):
        dependency = a_dependency(replicas=2)
        now = a_usual_day(dependency)
        while dependency.hedge_budget.try_withdraw(now):
            pass
        first = begun(dependency, now)

        assert dependency.begin_hedge(now, TIMEOUT_S, first.replica) is None
        first.let_go(now)
        assert nothing_is_held(dependency)

    def test_a_loser_that_was_slow_already_counts_as_slow_and_against_its_replica(self):
        dependency = a_dependency(replicas=2)
        for _ in range(20):
            begun(dependency).let_go(0.035, superseded=True)

        assert dependency.breaker.state_at(0.035) is State.OPEN

    # case 51: hedge_delay_learned_from_fast_errors
    def test_the_delay_is_not_learned_from_fast_failures(self):
        dependency = a_dependency(replicas=2)
        now = a_usual_day(dependency, takes_s=0.01)
        before = dependency.hedge_after(now, TIMEOUT_S)
        for _ in range(9):
            begun(dependency, now).end(now + 0.0001, Loss.REFUSED)

        assert dependency.hedge_after(now + 4, TIMEOUT_S) == pytest.approx(before, rel=0.1)


class TestRetry:
    def test_one_after_nobody_was_there_while_there_is_time_and_budget(self):
        dependency = a_dependency()
        now = a_usual_day(dependency)

        assert dependency.may_retry(now, Loss.UNAVAILABLE, elapsed_s=0.001, remaining_s=0.03)
        assert not dependency.may_retry(now, Loss.UNAVAILABLE, elapsed_s=0.001, remaining_s=0.006)
        assert not dependency.may_retry(now, Loss.ERROR, elapsed_s=0.001, remaining_s=0.03)


# case 36: fast_errors_do_not_grow_limit
def test_a_flood_of_fast_failures_does_not_raise_the_limit():
    dependency = a_dependency()
    before = dependency.limiter.limit

    now = 0.0
    for _ in range(2000):
        attempt = dependency.begin(now, TIMEOUT_S)
        if isinstance(attempt, Attempt):
            attempt.end(now + 0.001, Loss.UNAVAILABLE)
        now += 0.002

    assert dependency.limiter.limit <= before


# case 32: two_processes_independent
def test_two_of_one_name_share_nothing():
    one, other = a_dependency(), a_dependency()

    opened(one)

    assert other.breaker.state_at(0.0) is State.CLOSED


def test_it_says_how_it_is_in_one_line():
    assert "\n" not in repr(a_dependency())
    assert "cf" in repr(a_dependency())


class TestNobodyIsUp:
    """A breaker that is open while no replica can be called: seen after packets were dropped, healed 4.5 s late."""

    def a_dependency(self, up):
        return a_dependency(replicas=2, is_up=lambda replica: replica in up)

    def test_nobody_is_probed_and_the_first_who_is_back_is_probed_at_once(self):
        up = set()
        dependency = self.a_dependency(up)
        opened(dependency)

        while_down = {dependency.begin(now, TIMEOUT_S) for now in range(1, 60)}
        up.add(1)
        probe = begun(dependency, 60.0)

        assert while_down == {Loss.BREAKER_OPEN}
        assert probe.replica == 1
        assert dependency.breaker.state_at(60.0) is State.HALF_OPEN

    def test_one_that_goes_down_half_way_does_not_open_the_breaker_again(self):
        up = {0, 1}
        dependency = self.a_dependency(up)
        opened(dependency)
        begun(dependency, 5.0).end(5.001, None)

        up.clear()
        refused = dependency.begin(5.1, TIMEOUT_S)

        assert refused is Loss.BREAKER_OPEN
        assert dependency.breaker.state_at(5.1) is State.HALF_OPEN
        assert nothing_is_held(dependency)

    def test_a_closed_breaker_lets_calls_find_out_that_nobody_is_there(self):
        dependency = self.a_dependency(set())

        attempt = begun(dependency)

        attempt.end(0.001, Loss.UNAVAILABLE)
        assert nothing_is_held(dependency)
