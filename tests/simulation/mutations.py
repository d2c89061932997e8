"""
Bugs put in on purpose. A simulation that finds none of them would find none of ours.

Each is one of those the specification tells of: a leak, an unpaid retry, a forgotten reserve, a loss nobody mentions.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

from orchestrator.adapters.memory import MemorySlates
from orchestrator.arrangement import Arrangement
from orchestrator.core import dependency
from orchestrator.core.breaker import Breaker, Permit, State
from orchestrator.core.deadline import Deadline
from orchestrator.core.dependency import Dependency
from orchestrator.core.hedge import HedgeBudget
from orchestrator.core.limiter import Slot
from orchestrator.core.model import Loss, UserContext
from orchestrator.core.report import Report
from orchestrator.core.retry import RetryBudget
from orchestrator.core.slate_cache import Found
from tests.simulation.watched import WatchedGuard
from tests.support.virtual_clock import EPOCH_S


@dataclass(frozen=True, slots=True)
class Mutation:
    """
    *attribute* of *owner* becomes what *of* makes of the honest one.

    breaks  the invariants of which one must catch it
    near    a seed from which on it is soon found; only saves time
    """

    owner: object
    attribute: str
    of: Callable
    breaks: tuple[str, ...]
    near: int = 1

    def applied(self):
        """A context manager: within it the bug is in."""
        return patch.object(self.owner, self.attribute, self.of(getattr(self.owner, self.attribute)))


def _returns(value):
    return lambda honest: lambda *about, **more: value


def _twice(honest):
    def sample(self, now, rtt_s):
        honest(self, now, rtt_s)
        self._is_held = True
        honest(self, now, rtt_s)

    return sample


def _reserve_ignored(honest):
    def timeout(self, now, cap_s, reserve_after_s, grace_s=0.0):
        return honest(self, now, cap_s, 0.0, grace_s)

    return timeout


def _everybody_probes(honest):
    def try_acquire(self, now, lease_s):
        permit = honest(self, now, lease_s)
        if permit is None and self._state is State.HALF_OPEN:
            return Permit(self, self.generation, now + 1.0, True)
        return permit

    return try_acquire


def _wall_clock(honest):
    def try_acquire(self, now, lease_s):
        wall = asyncio.get_running_loop().wall() - EPOCH_S
        return honest(self, wall if self._state is State.OPEN else now, lease_s)

    return try_acquire


def _forgets_user(honest):
    def lost(self, name, loss):
        if name != "user":
            honest(self, name, loss)

    return lost


def _ignores_watermark(honest):
    async def get(self, subject, field, timeout_s):
        self._call()
        return Found(self.store.slates.get(subject, {}).get(field), self.store.watermarks.get(subject, 0))

    return get


def _renames_losses(honest):
    def lost(self, name, loss, started):
        return honest(self, name, Loss.DEADLINE if loss is Loss.ERROR else loss, started)

    return lost


def _fills_with_anything(honest):
    def filled(self, query, user, items, count, visible, *besides):
        return honest(self, query, UserContext.cold(0, 0), items, count, None)

    return filled


def _asks_the_same(honest):
    def begin(self, now, timeout_s, kind=dependency.Kind.FIRST, besides=None):
        return honest(self, now, timeout_s, kind, None)

    return begin


MUTATIONS = {
    "a slot is not given back when nobody waits any more": Mutation(Slot, "release", _returns(None), ("I2", "I3")),
    "a slot is given back twice": Mutation(Slot, "sample", _twice, ("I2",)),
    "a probe nobody waits for keeps its place": Mutation(Breaker, "_ignored", _returns(None), ("I2", "I3"), near=95),
    "half open lets everybody in": Mutation(Breaker, "try_acquire", _everybody_probes, ("I6", "I2"), near=20),
    "the breaker cools on the wall clock": Mutation(Breaker, "try_acquire", _wall_clock, ("I10",)),
    "retries cost nothing": Mutation(RetryBudget, "try_withdraw", _returns(True), ("I5",), near=20),
    "hedges cost nothing": Mutation(HedgeBudget, "try_withdraw", _returns(True), ("I5",), near=35),
    "the extra attempt goes to the same replica": Mutation(Dependency, "begin", _asks_the_same, ("I5",)),
    "a stage takes what later ones need": Mutation(Deadline, "timeout", _reserve_ignored, ("I9",)),
    "the lost shopper is not mentioned": Mutation(Report, "lost", _forgets_user, ("I8",)),
    "one loss is told as another": Mutation(WatchedGuard, "_lost", _renames_losses, ("I8",)),
    "remembered slates outlive the shopper's events": Mutation(
        MemorySlates, "get", _ignores_watermark, ("W",), near=20
    ),
    "gaps are filled with anything": Mutation(Arrangement, "_filled", _fills_with_anything, ("I7",)),
}
