"""The circuit breaker: a table of states, a window of outcomes, leased probes, generations."""

import random
import sys

import pytest

from orchestrator.core.breaker import STABLE_S, TRANSITIONS, Breaker, BreakerPolicy, Permit, Signal, State

POLICY = BreakerPolicy()
LEASE_S = 0.04


def a_breaker(on_change=None, seed=1, **about) -> Breaker:
    return Breaker("cf", BreakerPolicy(**about), random.Random(seed), on_change)


def permit(breaker, now=0.0) -> Permit:
    given = breaker.try_acquire(now, LEASE_S)
    assert given is not None, breaker
    return given


def calls(breaker, now, *, ok=0, slow=0, failed=0):
    """Outcomes one after the other at *now*, mixed so that no streak of failures decides."""
    outcomes = ["ok"] * ok + ["slow"] * slow + ["failed"] * failed
    random.Random(7).shuffle(outcomes)
    for outcome in outcomes:
        one = breaker.try_acquire(now, LEASE_S)
        if one is None:
            return
        one.failure(now) if outcome == "failed" else one.success(now, slow=outcome == "slow")


def tripped(breaker, now=0.0) -> float:
    """Open it by a streak; a moment at which it has cooled for sure."""
    for _ in range(POLICY.consecutive_failures):
        permit(breaker, now).failure(now)
    assert breaker.state_at(now) is State.OPEN
    return now + 2 * POLICY.open_last_s


def half_open(breaker, now=0.0) -> tuple[float, Permit]:
    now = tripped(breaker, now)
    probe = permit(breaker, now)
    assert breaker.state_at(now) is State.HALF_OPEN
    return now, probe


def recovered(breaker, now=0.0) -> float:
    now, probe = half_open(breaker, now)
    probe.success(now)
    while breaker.state_at(now) is State.HALF_OPEN:
        permit(breaker, now).success(now)
    assert breaker.state_at(now) is State.CLOSED
    return now


class TestClosed:
    def test_half_of_twenty_calls_failed_is_too_many(self):
        breaker = a_breaker()

        calls(breaker, 0.0, ok=11, failed=8)
        before = breaker.state_at(0.0)
        permit(breaker).failure(0.0)
        permit(breaker).failure(0.0)
        permit(breaker).failure(0.0)

        assert before is State.CLOSED
        assert breaker.state_at(0.0) is State.OPEN

    # case 22: slow_success_trips
    def test_answers_that_are_all_slow_open_it(self):
        breaker = a_breaker()

        calls(breaker, 0.0, slow=20)

        assert breaker.state_at(0.0) is State.OPEN

    # case 23: slow_rate_boundary
    @pytest.mark.parametrize(("slow", "state"), [(11, State.CLOSED), (12, State.OPEN)])
    def test_the_slow_share_counts_from_its_very_value(self, slow, state):
        breaker = a_breaker()

        calls(breaker, 0.0, ok=20 - slow, slow=slow)

        assert breaker.state_at(0.0) is state

    # case 24: min_calls
    def test_nineteen_failures_open_it_only_by_the_streak(self):
        patient = a_breaker(consecutive_failures=1000)
        calls(patient, 0.0, failed=19)
        streak = a_breaker()
        for _ in range(9):
            permit(streak).failure(0.0)
        before = streak.state_at(0.0)
        permit(streak).failure(0.0)

        assert patient.state_at(0.0) is State.CLOSED
        assert before is State.CLOSED
        assert streak.state_at(0.0) is State.OPEN

    def test_a_success_ends_the_streak(self):
        breaker = a_breaker()

        for _ in range(9):
            permit(breaker).failure(0.0)
        permit(breaker).success(0.0)
        for _ in range(9):
            permit(breaker).failure(0.0)

        assert breaker.counts(0.0) == (19, 18, 0)
        assert breaker.state_at(0.0) is State.CLOSED

    # case 25: window_rollover
    def test_failures_of_an_hour_ago_do_not_count(self):
        breaker = a_breaker()
        calls(breaker, 0.0, ok=12, failed=9)
        for _ in range(3):
            permit(breaker, 3600.0).failure(3600.0)

        assert breaker.state_at(3600.0) is State.CLOSED
        assert breaker.counts(3600.0).calls == 3

    def test_a_streak_that_is_older_than_the_window_does_not_count(self):
        breaker = a_breaker()

        for n in range(30):
            permit(breaker, n * 2.0).failure(n * 2.0)

        assert breaker.state_at(60.0) is State.CLOSED

    # case 18, 19: cancel_is_not_success, cancel_is_not_failure
    def test_what_told_us_nothing_is_counted_nowhere(self):
        breaker = a_breaker()
        for _ in range(9):
            permit(breaker).failure(0.0)

        for _ in range(100):
            permit(breaker).ignore(0.0)

        assert breaker.counts(0.0).calls == 9
        permit(breaker).failure(0.0)
        assert breaker.state_at(0.0) is State.OPEN, "the streak was not broken by those that hung up"

    def test_a_permit_counts_once(self):
        breaker = a_breaker()
        one = permit(breaker)

        one.success(0.0)
        one.failure(0.0)
        one.ignore(0.0)

        assert breaker.counts(0.0) == (1, 0, 0)

    def test_a_permit_left_without_a_verdict_is_ignored(self):
        breaker = a_breaker()

        with permit(breaker).held(lambda: 0.0), pytest.raises(ZeroDivisionError):
            _ = 1 / 0
        with permit(breaker).held(lambda: 0.0) as one:
            one.success(0.0)

        assert breaker.counts(0.0) == (1, 0, 0)


class TestOpen:
    def test_it_refuses_until_it_has_cooled_and_waits_half_a_second_to_one_at_first(self):
        waits = []
        for seed in range(50):
            breaker = a_breaker(seed=seed)
            tripped(breaker)
            waits.append(next(ms / 1000 for ms in range(10_000) if breaker.try_acquire(ms / 1000, LEASE_S)))

        assert 0.5 <= min(waits) < 0.6
        assert 0.9 < max(waits) <= 1.0

    # case 28: reject_is_cheap
    def test_a_refusal_leaves_nothing_behind(self):
        breaker = a_breaker()
        tripped(breaker)
        blocks = sys.getallocatedblocks()

        refused = {breaker.try_acquire(0.1, LEASE_S) for _ in range(100_000)}

        assert refused == {None}
        assert breaker.n_issued == breaker.n_in_flight == 0
        assert sys.getallocatedblocks() - blocks < 1000

    # case 29: rejects_not_recorded
    def test_a_refusal_is_counted_nowhere(self):
        breaker = a_breaker()
        tripped(breaker)
        before = breaker.counts(0.1)

        for _ in range(100):
            breaker.try_acquire(0.1, LEASE_S)

        assert breaker.counts(0.1) == before

    # case 26: flapping_backoff
    def test_one_that_flaps_waits_longer_each_time_up_to_the_longest_and_starts_anew_when_it_stayed_closed(self):
        breaker, now, waits = a_breaker(), 0.0, []
        for _ in range(8):
            for _ in range(POLICY.consecutive_failures):
                permit(breaker, now).failure(now)
            opened_at = now
            while (probe := breaker.try_acquire(now, LEASE_S)) is None:
                now += 0.05
            waits.append(now - opened_at)
            probe.success(now)
            while breaker.state_at(now) is State.HALF_OPEN:
                permit(breaker, now).success(now)
        longest = [min(POLICY.open_first_s * 2**k, POLICY.open_last_s) for k in (0, 1, 2, 3, 4, 5, 5, 5)]

        assert all(most / 2 <= wait <= most + 0.1 for wait, most in zip(waits, longest, strict=True)), waits

        now += STABLE_S
        tripped(breaker, now)
        assert breaker.try_acquire(now + 1.0, LEASE_S) is not None


class TestHalfOpen:
    # case 13: half_open_thundering
    def test_of_two_hundred_at_its_wake_up_two_pass(self):
        breaker = a_breaker()
        now = tripped(breaker)

        passed = [one for one in (breaker.try_acquire(now, LEASE_S) for _ in range(200)) if one]

        assert len(passed) == breaker.n_in_flight == 2
        passed[0].failure(now)
        more = [one for one in (breaker.try_acquire(now, LEASE_S) for _ in range(200)) if one]
        assert len(more) == 1
        assert breaker.n_issued <= POLICY.probes

    def test_no_more_than_five_probes_are_issued(self):
        breaker = a_breaker(failure_share=1.0, slow_share=1.0)
        now, probe = half_open(breaker)
        issued = 1
        verdicts = [False, True, False, True]
        probe.failure(now)
        for worked in verdicts:
            one = breaker.try_acquire(now, LEASE_S)
            if one is None or breaker.state_at(now) is not State.HALF_OPEN:
                break
            issued += 1
            one.success(now) if worked else one.failure(now)

        assert issued <= POLICY.probes

    # case 14: half_open_permit_leak
    @pytest.mark.parametrize("how", ["cancelled", "never finishes"])
    def test_a_lost_probe_gives_its_place_back(self, how):
        breaker = a_breaker()
        now, first = half_open(breaker)
        second = permit(breaker, now)
        assert breaker.try_acquire(now, LEASE_S) is None

        if how == "cancelled":
            first.ignore(now)
            second.ignore(now)
        else:
            now += LEASE_S + POLICY.lease_extra_s
        for _ in range(3):
            permit(breaker, now).success(now)

        assert breaker.state_at(now) is State.CLOSED

    def test_a_probe_whose_place_was_given_away_changes_nothing_when_it_comes_back(self):
        breaker = a_breaker()
        now, lost = half_open(breaker)
        now += LEASE_S + POLICY.lease_extra_s
        other = permit(breaker, now)

        lost.failure(now)

        assert breaker.late_verdicts == 1
        assert breaker.n_issued == breaker.n_in_flight == 1
        other.success(now)
        assert breaker.n_issued == 1

    # case 15: half_open_low_traffic
    def test_with_a_probe_a_minute_it_leaves_half_open(self):
        breaker = a_breaker()
        now, probe = half_open(breaker)
        probe.success(now)

        one = breaker.try_acquire(now + 60, LEASE_S)

        assert one is not None
        assert breaker.state_at(now + 60) is State.CLOSED

    @pytest.mark.parametrize("verdict", ["nothing", "failed", "slow"])
    def test_after_its_longest_it_opens_again_unless_something_worked_and_nothing_failed(self, verdict):
        breaker = a_breaker()
        now, probe = half_open(breaker)
        if verdict == "failed":
            probe.failure(now)
        elif verdict == "slow":
            probe.success(now, slow=True)
        else:
            probe.ignore(now)
        ok = permit(breaker, now)
        if verdict != "nothing":
            ok.success(now)

        assert breaker.try_acquire(now + POLICY.max_half_open_s, LEASE_S) is None
        assert breaker.state_at(now + POLICY.max_half_open_s) is State.OPEN

    # case 16: late_result_from_closed
    @pytest.mark.parametrize("works", [True, False])
    def test_a_verdict_from_before_it_opened_is_too_late(self, works):
        breaker = a_breaker()
        old = [permit(breaker) for _ in range(20)]
        in_open = tripped(breaker) - 2 * POLICY.open_last_s
        for one in old[:10]:
            one.success(in_open) if works else one.failure(in_open)
        state_in_open = breaker.state_at(in_open)
        now = in_open + 2 * POLICY.open_last_s
        permit(breaker, now)
        for one in old[10:]:
            one.success(now) if works else one.failure(now)

        assert state_in_open is State.OPEN
        assert breaker.state_at(now) is State.HALF_OPEN
        assert breaker.n_issued == 1
        assert breaker.late_verdicts == 20

    # case 17: release_from_old_generation
    def test_an_old_permit_that_is_ignored_adds_no_probe(self):
        breaker = a_breaker()
        old = permit(breaker)
        now = tripped(breaker)
        permit(breaker, now)
        permit(breaker, now)

        old.ignore(now)

        assert breaker.n_in_flight == 2
        assert breaker.try_acquire(now, LEASE_S) is None

    def test_it_decides_as_soon_as_the_outcome_is_determined(self):
        good, bad = a_breaker(), a_breaker()
        now, probe = half_open(good)
        probe.success(now)
        permit(good, now).success(now)
        still = good.state_at(now)
        permit(good, now).success(now)
        now, probe = half_open(bad)
        probe.failure(now)
        permit(bad, now).failure(now)
        permit(bad, now).failure(now)

        assert still is State.HALF_OPEN
        assert good.state_at(now) is State.CLOSED
        assert bad.state_at(now) is State.OPEN

    def test_slow_probes_open_it_again(self):
        breaker = a_breaker()
        now, probe = half_open(breaker)

        probe.success(now, slow=True)
        permit(breaker, now).success(now, slow=True)
        permit(breaker, now).success(now, slow=True)

        assert breaker.state_at(now) is State.OPEN


class TestAfterwards:
    def test_closed_again_it_has_forgotten_what_was(self):
        breaker = a_breaker()
        now = recovered(breaker)

        assert breaker.counts(now) == (0, 0, 0)

    def test_load_comes_back_over_ten_seconds(self):
        breaker = a_breaker()
        before = breaker.ramp(0.0)
        now = recovered(breaker)

        assert before == 1.0
        assert [breaker.ramp(now + s) for s in (0, 0.5, 2.5, 7.5)] == pytest.approx([0.1, 0.1, 0.25, 0.75])
        assert breaker.ramp(now + 10) == 1.0
        assert breaker.ramp(now) == 1.0


class TestOperator:
    # case 31: forced_open_sticks
    def test_forced_open_it_stays_open(self):
        breaker = a_breaker()
        old = permit(breaker)

        breaker.force_open(0.0)
        old.success(1.0)

        assert breaker.try_acquire(1e9, LEASE_S) is None
        assert breaker.state_at(1e9) is State.FORCED_OPEN
        breaker.reset(1e9)
        assert breaker.state_at(1e9) is State.CLOSED
        assert breaker.ramp(1e9) == 1.0

    def test_disabled_it_counts_nothing_and_watching_it_only_counts(self):
        disabled, watching = a_breaker(), a_breaker()
        disabled.disable(0.0)
        watching.metrics_only(0.0)

        calls(disabled, 0.0, failed=30)
        calls(watching, 0.0, failed=30)

        assert disabled.state_at(0.0) is State.DISABLED
        assert disabled.counts(0.0).calls == 0
        assert watching.state_at(0.0) is State.METRICS_ONLY
        assert watching.counts(0.0).calls == 30


class TestListener:
    def test_it_hears_of_every_change(self):
        heard = []
        breaker = a_breaker(on_change=lambda before, after: heard.append((before, after)))

        recovered(breaker)

        assert heard == [
            (State.CLOSED, State.OPEN),
            (State.OPEN, State.HALF_OPEN),
            (State.HALF_OPEN, State.CLOSED),
        ]

    # case 30: listener_raises
    def test_one_that_raises_changes_nothing_and_is_counted(self):
        def raises(before, after):
            raise RuntimeError("listener")

        breaker = a_breaker(on_change=raises)

        recovered(breaker)

        assert breaker.listener_failures == 3


def test_the_table_has_every_pair_that_can_happen_and_no_other():
    own = {(state, signal) for state, signal in TRANSITIONS if signal not in _OPERATORS}

    assert own == {
        (State.CLOSED, Signal.TRIPPED),
        (State.OPEN, Signal.COOLED),
        (State.HALF_OPEN, Signal.RECOVERED),
        (State.HALF_OPEN, Signal.FAILED_AGAIN),
    }
    assert len(TRANSITIONS) == len(own) + len(State) * len(_OPERATORS)


_OPERATORS = {Signal.FORCE, Signal.DISABLE, Signal.WATCH, Signal.RESET}


@pytest.mark.parametrize("make", [lambda b: None, tripped, half_open, lambda b: b.force_open(0.0)])
def test_it_says_how_it_is_in_one_line(make):
    breaker = a_breaker()
    make(breaker)

    assert repr(breaker).startswith("<Breaker cf ")
    assert "\n" not in repr(breaker)
