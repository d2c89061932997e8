"""
The breaker against a model that knows only what may never happen, driven at random: time, verdicts of any age, twice,
and never.

More steps: TUTTI_STATEFUL_EXAMPLES=2000 pytest tests/unit/core/test_breaker_model.py
"""

import os
import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.core.breaker import TRANSITIONS, Breaker, BreakerPolicy, Permit, State

EXAMPLES = int(os.environ.get("TUTTI_STATEFUL_EXAMPLES", "200"))
STEPS = 100
LEASE_S = 0.04


class BreakerMachine(RuleBasedStateMachine):
    """
    Reference: which permits are out, of which generation, with which lease; when the state last changed.

    The model does not compute when to trip; it checks that a trip had its reason and that nothing else moves the state.
    """

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed):
        self.policy = BreakerPolicy()
        self.changes = []
        self.breaker = Breaker("cf", self.policy, random.Random(seed), self._heard)
        self.now = 0.0
        self.out: list[Permit] = []
        self.returned: list[Permit] = []
        self.opened_at = None

    def _heard(self, before, after):
        self.changes.append((before, after))
        if after is State.OPEN:
            self.opened_at = self.now

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.0, 6.0, 40.0, 3600.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(count=st.integers(1, 30))
    def callers_come(self, count):
        before = self.breaker.state_at(self.now)
        given = [one for one in (self.breaker.try_acquire(self.now, LEASE_S) for _ in range(count)) if one]
        if before is State.CLOSED:
            assert len(given) == count
        if before is State.OPEN and given:
            assert self.now - self.opened_at >= self.policy.open_first_s / 2
        if before is State.OPEN and self.now - self.opened_at >= self.policy.open_last_s:
            assert given, "after the longest wait somebody must be let through"
        self.out += given

    @rule(data=st.data(), verdict=st.sampled_from(["success", "slow", "failure", "ignore"]), all_of_them=st.booleans())
    def calls_end(self, data, verdict, all_of_them):
        if not self.out:
            return
        chosen = list(self.out) if all_of_them else [data.draw(st.sampled_from(self.out))]
        for one in chosen:
            state, generation = self.breaker.state_at(self.now), self.breaker.generation
            in_flight = self.breaker.n_in_flight
            self._end(one, verdict)
            if one.generation != generation:
                assert self.breaker.state_at(self.now) is state, "a late verdict moved the state"
                assert self.breaker.n_in_flight == in_flight, "a late verdict gave a probe's place back"
            self.out.remove(one)
            self.returned.append(one)

    @rule(data=st.data(), verdict=st.sampled_from(["success", "slow", "failure", "ignore"]))
    def somebody_reports_twice(self, data, verdict):
        if not self.returned:
            return
        before = (self.breaker.generation, self.breaker.counts(self.now), self.breaker.n_issued)
        self._end(data.draw(st.sampled_from(self.returned)), verdict)
        assert (self.breaker.generation, self.breaker.counts(self.now), self.breaker.n_issued) == before

    def _end(self, one, verdict):
        match verdict:
            case "ignore":
                one.ignore(self.now)
            case "failure":
                one.failure(self.now)
            case _:
                one.success(self.now, slow=verdict == "slow")

    # invariant I6
    @invariant()
    def never_more_than_two_probes_in_flight_nor_five_issued(self):
        if not hasattr(self, "breaker"):
            return
        assert self.breaker.n_in_flight <= self.policy.probes_at_once
        assert self.breaker.n_issued <= self.policy.probes

    # invariant I2
    @invariant()
    def a_probe_in_flight_is_one_that_is_out(self):
        if not hasattr(self, "breaker"):
            return
        probes = [one for one in self.out if one.is_probe and one.generation == self.breaker.generation]
        assert self.breaker.n_in_flight <= len(probes)

    @invariant()
    def the_state_moved_along_the_table_only(self):
        if not hasattr(self, "breaker"):
            return
        assert all(pair in {(a, b) for (a, _), b in TRANSITIONS.items()} for pair in self.changes)
        assert (self.changes[-1][1] if self.changes else State.CLOSED) is self.breaker.state_at(self.now)
        assert self.breaker.generation == len(self.changes)


# case 33: stateful_model
class TestBreakerModel(BreakerMachine.TestCase):
    settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
