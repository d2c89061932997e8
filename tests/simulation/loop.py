"""
An event loop for fuzzing schedules: virtual time, a seeded order within each turn, stalls, and a wall clock that jumps.

asyncio runs what is ready in the order in which it became ready. Nothing that is right depends on that order: which of
two answers of one turn was read first is the network's choice.
"""

import asyncio
import itertools
import random
from asyncio.base_events import MAXIMUM_SELECT_TIMEOUT
from collections import deque
from collections.abc import Sequence

import async_solipsism
from async_solipsism import selector

from tests.support.virtual_clock import EPOCH_S


class _Turns(deque):
    """The ready queue. The first one taken in a turn shuffles those that wait for it; what they add has to wait."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self.is_new_turn = False

    def popleft(self):
        if self.is_new_turn:
            self.is_new_turn = False
            if len(self) > 1:
                self._rng.shuffle(self)
        return super().popleft()


class _Numbered(asyncio.Task):
    """A task whose place in a set does not depend on its address, as in the sets that asyncio and the guard walk."""

    def __init__(self, *about, number: int, **more) -> None:
        # Before the task exists: its first act is to enter a set.
        self._number = number
        super().__init__(*about, **more)

    def __hash__(self) -> int:
        return self._number


class _Passing(selector.Selector):
    """Lets time pass. There are no sockets here, so that nothing needs to be looked for in each turn."""

    def select(self, timeout=None):
        if timeout is None or timeout >= MAXIMUM_SELECT_TIMEOUT:
            raise async_solipsism.SleepForeverError("everybody waits, and for nothing that will happen")
        if timeout > 0:
            self.clock.advance(max(timeout, self.clock.resolution))
        return []


class ShuffledLoop(async_solipsism.EventLoop):
    """
    At virtual second 0; *rng* decides who is first in each turn.

    jumps: (moment, seconds by which somebody sets the machine's clock then), earliest first. Not timers: a timer would
        be a turn more, and the schedule another one.
    """

    def __init__(self, rng: random.Random, jumps: Sequence[tuple[float, float]] = ()) -> None:
        super().__init__()
        self._selector = _Passing(self._selector.clock)
        self._ready = _Turns(rng)
        self._jumps = jumps
        numbers = itertools.count()
        self.set_task_factory(
            lambda loop, coroutine, **about: _Numbered(coroutine, loop=loop, number=next(numbers), **about)
        )

    def _run_once(self) -> None:
        self._ready.is_new_turn = True
        super()._run_once()

    def wall(self) -> float:
        """Seconds since the epoch, as the machine's clock has them."""
        now = self.time()
        return EPOCH_S + now + sum(by_s for at, by_s in self._jumps if at <= now)

    def stall(self, seconds: float) -> None:
        """The callback that calls this does not return for *seconds*: time passes, and nothing else happens."""
        self._selector.clock.advance(seconds)
