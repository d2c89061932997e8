"""
Single flight: what several ask for at the same time is made once, and nobody can spoil it for the others.

The flight owns its task, not the caller who started it: a caller who leaves, however it leaves, ends nothing, and
the work runs within a budget and a context of its own (a task made in a request inherits its context variables,
deadline included). Nothing is remembered here: whoever comes after the end starts anew. cashews and aiocache fail
the first rule: one cancelled waiter cancels all (resilience specification, fact 2).

    TimeoutError   the waiter's own time is over, or the flight's budget is
    Grounded       the flight's task was cancelled from outside
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context
from enum import Enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Late(Enum):
    """The answer of a flight whose budget was over; a value, since asyncio reports exceptions that nobody sees."""

    LATE = "late"


class Grounded(Exception):
    """A flight was cancelled from outside, as the loop does when it shuts down; whoever waits was not."""


class Flight(Generic[T]):
    """One shared piece of work on its way."""

    def __init__(self, task: asyncio.Task[T | _Late]) -> None:
        self._task = task

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def wait(self, timeout_s: float) -> T:
        """
        What the work gives, if it does within *timeout_s*; a waiter that leaves or is cancelled leaves it flying.

        Raises:
            TimeoutError, Grounded: see the module. Whatever else the work raised, to every waiter alike.
        """
        # Not `timeout` around `shield`: when the loop was late, timer and answer come in one turn, and that would
        # throw the answer away (resilience specification, fact 6). `wait` cancels nothing either.
        done, _ = await asyncio.wait({self._task}, timeout=timeout_s)
        if not done:
            raise TimeoutError
        if self._task.cancelled():
            raise Grounded("the shared work was cancelled")
        answer = self._task.result()
        if isinstance(answer, _Late):
            raise TimeoutError("the shared work's own time is over")
        return answer


class SingleFlight(Generic[T]):
    """
    Flights by key, *max_flights* at most, each within *budget_s*; for one event loop.

    A flight that fails with nobody left to see it is reported by asyncio ("exception was never retrieved"); one whose
    budget is over is not: whoever waited had less time, or the same, and has left.
    """

    def __init__(self, max_flights: int, budget_s: float) -> None:
        self._max_flights = max_flights
        self._budget_s = budget_s
        self._flights: dict[Hashable, Flight[T]] = {}
        self._tasks: set[asyncio.Task[T | _Late]] = set()

    def of(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> tuple[Flight[T], bool] | None:
        """
        The flight of *key* and whether *work* started it; None when too many are up: then do it yourself.

        *work* is not called when another's is on its way.
        """
        flight = self._flights.get(key)
        if flight is not None and not flight.is_over:
            return flight, False
        if len(self._tasks) >= self._max_flights:
            return None
        task = asyncio.create_task(self._within_budget(work), context=Context())
        flight = self._flights[key] = Flight(task)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._landed(key, flight, task))
        return flight, True

    async def drain(self) -> None:
        """Wait until every flight that is up now has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _within_budget(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | _Late:
        try:
            async with asyncio.timeout(self._budget_s):
                return await work()
        except TimeoutError:
            return _Late.LATE

    def _landed(self, key: Hashable, flight: Flight[T], task: asyncio.Task[T | _Late]) -> None:
        self._tasks.discard(task)
        # Callbacks run a turn after the end; by then the key may be another flight's.
        if self._flights.get(key) is flight:
            del self._flights[key]

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<SingleFlight {len(self._tasks)} of {self._max_flights} flights, {self._budget_s:g} s each>"
