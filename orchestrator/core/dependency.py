"""
What is remembered of one dependency and method, and what that allows next: breaker, limiter, budgets, replicas.

Decides, never calls. `begin` answers an Attempt or the loss that stands instead of it; whoever makes the call ends the
attempt exactly once, and the outcome table (`outcomes`) says what breaker, limiter, histogram and replicas learn.
Order, outer to inner: enough budget, throttle, breaker permit, limiter slot, replica; what an inner one refuses, the
outer ones get back. Source: resilience specification §1.2 to §1.5 and §1.10.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from orchestrator.core import hedge, retry
from orchestrator.core.breaker import Breaker, BreakerPolicy, Permit, State
from orchestrator.core.deadline import MIN_USEFUL_S
from orchestrator.core.hedge import HedgeBudget
from orchestrator.core.latency import Latencies
from orchestrator.core.limiter import Limiter, LimiterPolicy, Slot
from orchestrator.core.model import Loss
from orchestrator.core.outcomes import Judgement, Sample, Verdict, judge
from orchestrator.core.replicas import ReplicaPolicy, Replicas
from orchestrator.core.retry import RetryBudget, Throttle

SLOW_SHARE = 0.8
"""Of the cap; an answer that took longer is slow (resilience specification §1.2)."""

FAIR_SHARE = 0.5
"""
Of the cap, at most: a call that was given this long and did not answer has failed, whatever the histogram says.
Derived: the histogram holds timeouts too, so of a dependency that always hangs its 95th percentile is the timeout
itself, and no call would ever be given a fair time.
"""


class Kind(Enum):
    """Why an attempt is made."""

    FIRST = "first"
    RETRY = "retry"
    HEDGE = "hedge"


@dataclass(frozen=True, slots=True)
class Policy:
    """
    How one dependency is treated.

    cap_s     the longest a call may ever take: its stage's cap, times its share of it
    replicas  how many addresses may be asked; hedges need two
    hedged    a second request may be sent to another replica when the first is late
    is_up     whether a replica can be called at all; see `Replicas`
    """

    cap_s: float
    replicas: int = 1
    hedged: bool = True
    is_up: Callable[[int], bool] | None = None
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    limiter: LimiterPolicy = field(default_factory=LimiterPolicy)
    ejection: ReplicaPolicy = field(default_factory=ReplicaPolicy)


class Attempt:
    """One call in flight: its permit, slot and replica. Ended once, by `end` or `let_go`; later ones are ignored."""

    __slots__ = ("_dependency", "_is_over", "_permit", "_slot", "began_at", "kind", "replica", "timeout_s")

    def __init__(
        self,
        dependency: Dependency,
        kind: Kind,
        replica: int,
        began_at: float,
        timeout_s: float,
        permit: Permit,
        slot: Slot,
    ) -> None:
        self._dependency = dependency
        self._permit = permit
        self._slot = slot
        self._is_over = False
        self.kind = kind
        self.replica = replica
        self.began_at = began_at
        self.timeout_s = timeout_s

    def end(self, now: float, loss: Loss | None, stalled_s: float = 0.0) -> Judgement:
        """
        It answered (None) or was lost; tells everybody who learns from it, and returns what it was judged to be.

        stalled_s: how long our own event loop stood still meanwhile; not the dependency's time.
        """
        took_s = max(0.0, now - self.began_at - stalled_s)
        judgement = self._dependency.judgement(loss, took_s, self.timeout_s, now)
        if not self._is_over:
            self._is_over = True
            self._give_back(now, judgement, took_s)
            self._dependency.learn(now, self.replica, loss, took_s, judgement)
        return judgement

    def let_go(self, now: float, *, superseded: bool = False) -> None:
        """
        Nobody waits any more: the caller hung up, or the other attempt of a hedge answered (*superseded*).

        That says nothing about the dependency, unless a loser was slow already when it was cancelled.
        """
        if self._is_over:
            return
        self._is_over = True
        took_s = now - self.began_at
        is_slow = superseded and took_s > self._dependency.slow_s
        if is_slow:
            self._permit.success(now, slow=True)
        else:
            self._permit.ignore(now)
        self._slot.release(now)
        if superseded:
            self._dependency.learn_of_a_loser(now, self.replica, took_s, is_slow)

    def _give_back(self, now: float, judgement: Judgement, took_s: float) -> None:
        match judgement.verdict:
            case Verdict.SUCCESS:
                self._permit.success(now)
            case Verdict.SLOW_SUCCESS:
                self._permit.success(now, slow=True)
            case Verdict.FAILURE:
                self._permit.failure(now)
            case Verdict.SLOW_FAILURE:
                self._permit.failure(now, slow=True)
            case Verdict.IGNORE:
                self._permit.ignore(now)
        match judgement.sample:
            # A hedge's own time would count the same wait twice (specification §1.3).
            case Sample.RTT if self.kind is not Kind.HEDGE:
                self._slot.sample(now, took_s)
            case Sample.DROP:
                self._slot.drop(now)
            case _:
                self._slot.release(now)


class Dependency:
    """One dependency and method; safe for any number of attempts at once in one event loop."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        rng: random.Random,
        on_change: Callable[[State, State], None] | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.slow_s = SLOW_SHARE * policy.cap_s
        self.breaker = Breaker(name, policy.breaker, rng, on_change)
        self.limiter = Limiter(policy.limiter)
        self.latencies = Latencies()
        self.replicas = Replicas(policy.replicas, policy.ejection, rng, policy.is_up)
        self.retry_budget = RetryBudget()
        self.hedge_budget = HedgeBudget()
        self.throttle = Throttle()
        self._rng = rng

    def begin(
        self, now: float, timeout_s: float, kind: Kind = Kind.FIRST, besides: int | None = None
    ) -> Attempt | Loss:
        """
        An attempt that may be made now, or why not.

        Args:
            timeout_s: what it may take; less than the median answer takes is not worth a call.
            besides: the replica that must not be asked: the one that has failed or is late.
        """
        # The wait before a retry, or a loop that stood still, may have used up what there was when it was decided.
        if timeout_s < MIN_USEFUL_S:
            return Loss.NO_BUDGET
        median_s = self.latencies.percentile(now, 0.5)
        if median_s is not None and timeout_s < median_s and timeout_s < FAIR_SHARE * self.policy.cap_s:
            return Loss.NO_BUDGET
        if kind is Kind.FIRST and self.throttle.should_reject(now, self._rng, self.limiter.in_flight):
            self.throttle.sent(now)
            return Loss.SHED
        # A probe of nobody fails, and its failure makes the breaker wait again when they have just come back.
        is_probe = self.breaker.state_at(now) in (State.OPEN, State.HALF_OPEN)
        permit = None if is_probe and self.replicas.are_down() else self.breaker.try_acquire(now, timeout_s)
        if permit is None:
            return Loss.BREAKER_OPEN
        slot = self.limiter.try_acquire(now, self.breaker.ramp(now))
        if slot is None:
            permit.ignore(now)
            return Loss.SHED
        replica = self.replicas.pick(now, besides)
        if replica is None:
            permit.ignore(now)
            slot.release(now)
            return Loss.SHED
        self.throttle.sent(now)
        if kind is Kind.FIRST:
            self.retry_budget.deposit(now)
            if self.policy.replicas > 1:
                self.hedge_budget.sent(now)
        return Attempt(self, kind, replica, now, timeout_s, permit, slot)

    def hedge_after(self, now: float, timeout_s: float) -> float | None:
        """Seconds after which a second replica may be asked as well; None: not for this call."""
        if not self.policy.hedged or self.policy.replicas < 2:
            return None
        return hedge.hedge_delay(self.latencies, now, timeout_s)

    def begin_hedge(self, now: float, timeout_s: float, besides: int) -> Attempt | None:
        """A second attempt beside a late one, on another replica, if the budgets for extra load have a token each."""
        if self.breaker.state_at(now) is not State.CLOSED:
            return None
        attempt = self.begin(now, timeout_s, Kind.HEDGE, besides)
        if isinstance(attempt, Loss):
            return None
        if not (self.hedge_budget.try_withdraw(now) and self.retry_budget.try_withdraw(now, reserve=False)):
            attempt.let_go(now)
            return None
        return attempt

    def may_retry(self, now: float, loss: Loss, elapsed_s: float, remaining_s: float) -> bool:
        """Whether one more attempt may follow a lost first one; takes the token when it may."""
        median_s = self.latencies.percentile(now, 0.5) or 0.0
        is_closed = self.breaker.state_at(now) is State.CLOSED
        return retry.may_retry(loss, elapsed_s, remaining_s, median_s, is_closed) and self.retry_budget.try_withdraw(
            now, reserve=True
        )

    def judgement(self, loss: Loss | None, took_s: float, timeout_s: float, now: float) -> Judgement:
        """What an outcome says about this dependency."""
        fair_s = FAIR_SHARE * self.policy.cap_s
        usual_s = self.latencies.percentile(now, 0.95)
        if usual_s is not None:
            fair_s = min(fair_s, usual_s)
        return judge(loss, took_s=took_s, timeout_s=timeout_s, slow_s=self.slow_s, fair_s=fair_s)

    def learn(self, now: float, replica: int, loss: Loss | None, took_s: float, judgement: Judgement) -> None:
        """Histogram, throttle and ejection learn from an attempt that ended."""
        if loss is None or judgement.sample is Sample.DROP:
            # Not fast failures: they would drag the hedge delay and the medians down.
            self.latencies.record(now, took_s)
        if loss is not Loss.OVERLOADED:
            self.throttle.accepted(now)
        if judgement.verdict is not Verdict.IGNORE:
            self.replicas.record(now, replica, ok=judgement.verdict in (Verdict.SUCCESS, Verdict.SLOW_SUCCESS))

    def learn_of_a_loser(self, now: float, replica: int, took_s: float, is_slow: bool) -> None:
        """A loser's time so far belongs in the histogram; a replica that lost by a lot is on its way out."""
        self.latencies.record(now, took_s)
        self.throttle.accepted(now)
        if is_slow:
            self.replicas.record(now, replica, ok=False)

    def __repr__(self) -> str:
        return f"<Dependency {self.name}: {self.breaker!r}, {self.limiter!r}, {self.replicas!r}>"
