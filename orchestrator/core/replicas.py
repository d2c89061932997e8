"""
Which replica of a dependency to ask: round robin over those that are not ejected.

Outlier ejection by failure percentage as in gRFC A50, always enforced. Ours because a balanced gRPC channel does not
say which replica serves a call, so that a hedge could not avoid it. No timer: a sweep happens with the first call after
it is due. Two departures from A50, both marked below: results are kept until there are enough to judge by, and an
ejection ends early when those left in service are no better.
Source: resilience specification §1.9, with its values.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplicaPolicy:
    """
    When a replica is left out, and for how long. All values but the last are the resilience specification's §1.9.

    interval_s      between sweeps; at 100 rps over two replicas, 13 calls are lost to one that hangs before it is out
    base_s, max_s   an ejection lasts base × multiplier, at most max
    max_share       of the replicas, never more are out at once
    threshold       failed share above which a replica is an outlier
    min_replicas    fewer are never judged
    min_calls       a replica with fewer results since it was last judged is not judged yet
    keep_s          results are kept for at most this long for lack of more; the breaker's window
    """

    interval_s: float = 0.25
    base_s: float = 5.0
    max_s: float = 30.0
    max_share: float = 0.5
    threshold: float = 0.5
    min_replicas: int = 2
    min_calls: int = 5
    keep_s: float = 10.0


@dataclass(slots=True)
class _Replica:
    """*since*: when its results began to be counted; *ejected_at*: None while it is in service."""

    since: float = 0.0
    calls: int = 0
    failures: int = 0
    ejected_at: float | None = None
    multiplier: int = 0

    def count_anew(self, now: float) -> None:
        self.since, self.calls, self.failures = now, 0, 0


class Replicas:
    """
    The replicas 0 to count - 1 of one dependency, and what is known of each.

    rng    where the round begins, so that processes that start together do not march in step
    is_up  whether a replica can be called at all: connected, and serving by its own word. One that drains says so
           before it turns anybody away, and is left alone from then on. None: nobody knows
    """

    __slots__ = ("_is_alone", "_next", "_policy", "_replicas", "_sweep_at", "is_up")

    def __init__(
        self,
        count: int,
        policy: ReplicaPolicy,
        rng: random.Random,
        is_up: Callable[[int], bool] | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"{count} replicas; a dependency has at least one address")
        self._policy = policy
        self.is_up = is_up
        self._replicas = [_Replica() for _ in range(count)]
        # Nobody to be compared with, so never judged; nobody to choose from.
        self._is_alone = count == 1 and policy.min_replicas > 1
        self._next = rng.randrange(count)
        self._sweep_at: float | None = None

    def pick(self, now: float, besides: int | None = None) -> int | None:
        """
        The replica to ask.

        Args:
            besides: never this one: it has been asked already.

        Returns:
            None only when *besides* is given and nobody else is up and in service. A first attempt always gets a
            replica: if none is up and in service, one that is ejected before one that is down (panic routing). The
            one has failed before, the other will fail.
        """
        if self._is_alone:
            return None if besides == 0 else 0
        self._sweep_if_due(now)
        count, is_up = len(self._replicas), self.is_up
        ejected = down = None
        for step in range(count):
            replica = (self._next + step) % count
            if replica == besides:
                continue
            if is_up is not None and not is_up(replica):
                down = replica if down is None else down
            elif self._replicas[replica].ejected_at is not None:
                ejected = replica if ejected is None else ejected
            else:
                self._next = (replica + 1) % count
                return replica
        if besides is not None:
            return None
        spare = ejected if ejected is not None else down
        replica = self._next if spare is None else spare
        self._next = (replica + 1) % count
        return replica

    def record(self, now: float, replica: int, ok: bool) -> None:
        """
        A call to *replica* has ended; results that say nothing about it are not recorded.

        A failure of one that is down says nothing either: `is_up` keeps it out for as long as that lasts, an ejection
        would for seconds after it came back. So in A50, where only calls that reached a connection count.
        """
        if self._is_alone:
            return
        self._sweep_if_due(now)
        if not ok and self.is_up is not None and not self.is_up(replica):
            return
        known = self._replicas[replica]
        if not known.calls:
            known.since = now
        known.calls += 1
        known.failures += not ok

    def are_down(self) -> bool:
        """Whether none of them can be called at all; False where nobody knows."""
        is_up = self.is_up
        return is_up is not None and not any(is_up(replica) for replica in range(len(self._replicas)))

    def ejected(self, now: float) -> frozenset[int]:
        """Replicas that are not asked now."""
        self._sweep_if_due(now)
        return frozenset(i for i, known in enumerate(self._replicas) if known.ejected_at is not None)

    def _sweep_if_due(self, now: float) -> None:
        if self._sweep_at is None:
            self._sweep_at = now + self._policy.interval_s
        elif now >= self._sweep_at:
            self._sweep(now)
            self._sweep_at = now + self._policy.interval_s

    def _sweep(self, now: float) -> None:
        in_service = [known for known in self._replicas if known.ejected_at is None]
        outliers = [known for known in in_service if self._is_outlier(known, now)]
        # All of them fail alike, so being out protects nobody and may keep out the one that has healed. A50 has no
        # such rule: there the healed one waits for the end of its ejection, up to 30 s.
        if outliers and len(outliers) == len(in_service) < len(self._replicas):
            self._void_the_oldest_ejection(now)
        for known in sorted(outliers, key=lambda known: known.failures / known.calls, reverse=True):
            if self._has_room():
                known.ejected_at = now
                known.multiplier += 1
        for known in in_service:
            if known.ejected_at is None:
                self._settle(known, now)
        for known in self._replicas:
            if known.ejected_at is not None and now > known.ejected_at + self._ejection_s(known):
                known.ejected_at = None
                # What ended meanwhile was under way when it was ejected.
                known.count_anew(now)

    def _is_outlier(self, known: _Replica, now: float) -> bool:
        policy = self._policy
        return (
            len(self._replicas) >= policy.min_replicas
            and known.calls >= policy.min_calls
            # A sweep waits for a call: after a silence these are results of another time.
            and now - known.since <= policy.keep_s
            and known.failures > policy.threshold * known.calls
        )

    def _has_room(self) -> bool:
        n_ejected = sum(known.ejected_at is not None for known in self._replicas)
        return n_ejected + 1 <= self._policy.max_share * len(self._replicas)

    def _void_the_oldest_ejection(self, now: float) -> None:
        oldest = min(
            (known for known in self._replicas if known.ejected_at is not None),
            key=lambda known: known.ejected_at or 0.0,
        )
        oldest.ejected_at = None
        oldest.multiplier -= 1
        oldest.count_anew(now)

    def _settle(self, known: _Replica, now: float) -> None:
        """
        Judged and still in service: its multiplier decays and its results are done with.

        A50 forgets all results at each sweep; a replica with fewer than min_calls / interval_s = 20 results a second
        would never be ejected, or always for the base time only. Here they are kept until there are enough.
        """
        policy = self._policy
        age_s = now - known.since
        if known.calls >= policy.min_calls or age_s >= policy.keep_s:
            known.multiplier = max(0, known.multiplier - max(1, int(age_s / policy.keep_s)))
            known.count_anew(now)

    def _ejection_s(self, known: _Replica) -> float:
        return min(self._policy.base_s * known.multiplier, max(self._policy.base_s, self._policy.max_s))

    def __repr__(self) -> str:
        out = [i for i, known in enumerate(self._replicas) if known.ejected_at is not None]
        return f"<Replicas {len(self._replicas)}, ejected {out}>"
