"""
Circuit breaker: a table of states and signals, and a window of recent outcomes.

Everything that changes the state is in this file. It has no clock and awaits nothing: the caller brings `now` and
reports back. A permit comes back exactly once: it worked, it failed, or it told us nothing. Each change of state begins
a new generation; the verdict of an older one arrives too late to change anything.

Source: resilience specification §1.2. Diagram: docs/breaker.svg, drawn from TRANSITIONS.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from orchestrator.core.window import SPAN_S, Counts, Window

RAMP_S, LEAST_RAMP = 10.0, 0.1
"""Borrowed: Envoy's slow start, aggression 1 (specification §1.3)."""


STABLE_S = RAMP_S + SPAN_S
"""
Closed for so long, the next opening waits as the first did. Derived: before the end of the ramp it has not
carried its whole load, and then one window of it. Reset on closing, one that flaps would be asked every second.
"""


class State(Enum):
    """The last three are an operator's."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics_only"


class Signal(Enum):
    """What can happen to a breaker."""

    TRIPPED = "too many failed or were slow"
    COOLED = "the wait is over and somebody asks"
    RECOVERED = "the probes worked"
    FAILED_AGAIN = "the probes failed"
    FORCE = "an operator opens it"
    DISABLE = "an operator switches it off"
    WATCH = "an operator lets it only count"
    RESET = "an operator gives it back to itself"


_OPERATOR = {
    Signal.FORCE: State.FORCED_OPEN,
    Signal.DISABLE: State.DISABLED,
    Signal.WATCH: State.METRICS_ONLY,
    Signal.RESET: State.CLOSED,
}

TRANSITIONS: dict[tuple[State, Signal], State] = {
    (State.CLOSED, Signal.TRIPPED): State.OPEN,
    (State.OPEN, Signal.COOLED): State.HALF_OPEN,
    (State.HALF_OPEN, Signal.RECOVERED): State.CLOSED,
    (State.HALF_OPEN, Signal.FAILED_AGAIN): State.OPEN,
    **{(state, signal): after for state in State for signal, after in _OPERATOR.items()},
}
"""A pair that is not here is a bug."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """
    When to open, how long to wait, how to probe. Values are the specification's; see its table for whose they are.

    open_last_s       4 s, where the specification has 30: what heals must be used again within 5 s, and a probe costs
                      nobody's answer, since deadlines hold (docs/adr/0019-a-breaker-waits-four-seconds-at-most.md)
    lease_extra_s     added to what a probe may take; a probe that is not back by then has its place given away
    max_half_open_s   after this the probes that came back decide, however few
    """

    failure_share: float = 0.5
    slow_share: float = 0.6
    min_calls: int = 20
    consecutive_failures: int = 10
    open_first_s: float = 1.0
    open_last_s: float = 4.0
    probes: int = 5
    probes_at_once: int = 2
    lease_extra_s: float = 0.25
    max_half_open_s: float = 5.0


class Permit:
    """The right to make one call; given back by one of `success`, `failure`, `ignore`. Later ones are ignored."""

    __slots__ = ("_breaker", "_is_out", "expires_at", "generation", "is_probe")

    def __init__(self, breaker: Breaker, generation: int, expires_at: float, is_probe: bool) -> None:
        self._breaker = breaker
        self._is_out = True
        self.generation = generation
        self.expires_at = expires_at
        self.is_probe = is_probe

    def success(self, now: float, *, slow: bool = False) -> None:
        """It answered."""
        if self._is_out:
            self._is_out = False
            self._breaker._worked(self, now, slow)

    def failure(self, now: float, *, slow: bool = False) -> None:
        """It failed, and that is the dependency's doing."""
        if self._is_out:
            self._is_out = False
            self._breaker._failed(self, now, slow)

    def ignore(self, now: float) -> None:
        """It told us nothing: the caller hung up, or an inner permit was refused."""
        if self._is_out:
            self._is_out = False
            self._breaker._ignored(self)

    @contextmanager
    def held(self, now: Callable[[], float]) -> Iterator[Permit]:
        """Leaving without a verdict is `ignore`."""
        try:
            yield self
        finally:
            self.ignore(now())


class Breaker:
    """
    One dependency and method.

    Args:
        on_change: told (before, after); what it raises changes nothing and is counted.
    """

    def __init__(
        self,
        name: str,
        policy: BreakerPolicy,
        rng: random.Random,
        on_change: Callable[[State, State], None] | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.generation = 0
        self.late_verdicts = 0
        self.listener_failures = 0
        self._rng = rng
        self._on_change = on_change
        self._state = State.CLOSED
        self._window = Window()
        self._streak: deque[float] = deque(maxlen=policy.consecutive_failures)
        self._closed_at = -math.inf
        self._is_ramping = False
        self._times_opened = 0
        self._cooled_at = 0.0
        self._half_open_at = 0.0
        self._probes: set[Permit] = set()
        self._worked_probes = self._slow_probes = self._failed_probes = 0

    @property
    def n_in_flight(self) -> int:
        """Probes out in HALF_OPEN."""
        return len(self._probes)

    @property
    def n_issued(self) -> int:
        """Probes out or back with a verdict in HALF_OPEN."""
        return len(self._probes) + self._worked_probes + self._slow_probes + self._failed_probes

    def state_at(self, now: float) -> State:
        """The state; OPEN until somebody asks after the wait, HALF_OPEN until somebody asks after its longest."""
        return self._state

    def counts(self, now: float) -> Counts:
        """Calls of the last 10 s in CLOSED, and how many of them failed or were slow."""
        return self._window.counts(now)

    def ramp(self, now: float) -> float:
        """Share of the usual load that may pass: grows from 0.1 to 1 over 10 s after the breaker closed again."""
        if not self._is_ramping:
            return 1.0
        share = (now - self._closed_at) / RAMP_S
        if share >= 1.0:
            self._is_ramping = False
            return 1.0
        return max(LEAST_RAMP, share)

    def try_acquire(self, now: float, lease_s: float) -> Permit | None:
        """
        A permit, or None: fall back now. A refusal is counted nowhere.

        lease_s: the longest the call may take.
        """
        state = self._state
        if state is State.CLOSED or state is State.DISABLED or state is State.METRICS_ONLY:
            return Permit(self, self.generation, math.inf, False)
        if state is State.FORCED_OPEN:
            return None
        if state is State.OPEN:
            if now < self._cooled_at:
                return None
            self._change(Signal.COOLED, now)
        else:
            self._take_back_expired(now)
            if now - self._half_open_at >= self.policy.max_half_open_s:
                self._decide_by_what_is_back(now)
                return self.try_acquire(now, lease_s)
        if len(self._probes) >= self.policy.probes_at_once or self.n_issued >= self.policy.probes:
            return None
        probe = Permit(self, self.generation, now + lease_s + self.policy.lease_extra_s, True)
        self._probes.add(probe)
        return probe

    def force_open(self, now: float) -> None:
        """Refuse everything until `reset`."""
        self._change(Signal.FORCE, now)

    def disable(self, now: float) -> None:
        """Let everything pass and count nothing until `reset`."""
        self._change(Signal.DISABLE, now)

    def metrics_only(self, now: float) -> None:
        """Let everything pass and count until `reset`."""
        self._change(Signal.WATCH, now)

    def reset(self, now: float) -> None:
        """Closed, with nothing remembered."""
        self._times_opened = 0
        self._change(Signal.RESET, now)
        self._is_ramping = False

    def _worked(self, permit: Permit, now: float, slow: bool) -> None:
        if not self._counts(permit):
            return
        if permit.is_probe:
            self._slow_probes += slow
            self._worked_probes += not slow
            self._decide_early(now)
            return
        self._streak.clear()
        self._window.add(now, slow=slow)
        self._judge(now)

    def _failed(self, permit: Permit, now: float, slow: bool) -> None:
        if not self._counts(permit):
            return
        if permit.is_probe:
            self._failed_probes += 1
            self._decide_early(now)
            return
        self._streak.append(now)
        self._window.add(now, failed=True, slow=slow)
        self._judge(now)

    def _ignored(self, permit: Permit) -> None:
        if permit.generation == self.generation:
            self._probes.discard(permit)

    def _counts(self, permit: Permit) -> bool:
        """Whether a verdict still says something; one whose probe's place was given away does not."""
        if permit.generation != self.generation or (permit.is_probe and permit not in self._probes):
            self.late_verdicts += 1
            return False
        self._probes.discard(permit)
        return self._state is not State.DISABLED

    def _judge(self, now: float) -> None:
        if self._state is not State.CLOSED:
            return
        policy, counts = self.policy, self._window.counts(now)
        enough = counts.calls >= policy.min_calls
        in_a_row = len(self._streak) == policy.consecutive_failures and now - self._streak[0] <= SPAN_S
        if in_a_row or (
            enough
            and (
                counts.failures >= policy.failure_share * counts.calls
                or counts.slow >= policy.slow_share * counts.calls
            )
        ):
            # Closed for less than a window: it flaps, and waits longer each time. A whole window closed: a new story.
            self._times_opened = self._times_opened + 1 if now - self._closed_at < SPAN_S else 0
            self._change(Signal.TRIPPED, now)

    def _decide_early(self, now: float) -> None:
        """As soon as the probes still out cannot turn it round."""
        policy = self.policy
        failures_to_fail = math.ceil(policy.failure_share * policy.probes)
        # A failed probe may have been slow too; it counts as both, as in the window.
        slow_to_fail = math.ceil(policy.slow_share * policy.probes)
        still_out = policy.probes - self._worked_probes - self._slow_probes - self._failed_probes
        if self._failed_probes >= failures_to_fail or self._slow_probes + self._failed_probes >= slow_to_fail:
            self._fail_again(now)
        elif (
            self._failed_probes + still_out < failures_to_fail
            and self._slow_probes + self._failed_probes + still_out < slow_to_fail
        ):
            self._change(Signal.RECOVERED, now)

    def _decide_by_what_is_back(self, now: float) -> None:
        if self._worked_probes and not self._failed_probes and not self._slow_probes:
            self._change(Signal.RECOVERED, now)
        else:
            self._fail_again(now)

    def _fail_again(self, now: float) -> None:
        self._times_opened += 1
        self._change(Signal.FAILED_AGAIN, now)

    def _take_back_expired(self, now: float) -> None:
        for probe in [probe for probe in self._probes if probe.expires_at <= now]:
            self._probes.discard(probe)

    def _change(self, signal: Signal, now: float) -> None:
        before = self._state
        self._state = TRANSITIONS[before, signal]
        self.generation += 1
        self._probes.clear()
        self._worked_probes = self._slow_probes = self._failed_probes = 0
        if self._state is State.OPEN:
            longest_s = min(self.policy.open_first_s * 2 ** min(self._times_opened, 5), self.policy.open_last_s)
            self._cooled_at = now + longest_s / 2 + self._rng.random() * longest_s / 2
        elif self._state is State.HALF_OPEN:
            self._half_open_at = now
        elif self._state is State.CLOSED:
            self._window.clear()
            self._streak.clear()
            self._closed_at = now
            self._is_ramping = True
        if self._on_change is not None:
            try:
                self._on_change(before, self._state)
            except Exception:
                # Whoever listens must not decide whether calls are made; the counter's objective is zero.
                self.listener_failures += 1

    def __repr__(self) -> str:
        counts = f"{self._window.failures}/{self._window.calls} failed"
        match self._state:
            case State.OPEN:
                return (
                    f"<Breaker {self.name} open until {self._cooled_at:.1f} s, opened {self._times_opened + 1} times>"
                )
            case State.HALF_OPEN:
                return f"<Breaker {self.name} half open, {self.n_issued}/{self.policy.probes} probes issued>"
            case _:
                return f"<Breaker {self.name} {self._state.value}, {counts}>"
