"""
Joins the calls that concurrent requests make to one method of one replica into one call.

When a batch leaves and how many it carries is decided in `core.coalescing`; here it is awaited. The rules: a batch is
sent with the latest deadline in it, and each waiter leaves at its own; what one query is to blame for, the others of
its batch do not suffer; nobody's leaving ends the call that others wait for.

    DependencyError   what the call, or this one query's part of it, was lost to
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from orchestrator.core.coalescing import Lane
from orchestrator.core.model import Loss
from orchestrator.ports import DependencyError

Q = TypeVar("Q")
A = TypeVar("A")
Q_contra = TypeVar("Q_contra", contravariant=True)
A_co = TypeVar("A_co", covariant=True)

OF_ONE = frozenset({Loss.REFUSED, Loss.ERROR, Loss.INVALID_REPLY})
"""
Losses that one query of a batch may be to blame for: each is then asked alone. The others (nobody there, late, busy,
another feature service) say the same of all. A service that answers nothing but errors is so asked once more than it
would be without batches, until its breaker opens.
"""

LATE_TURNS = 3
"""Turns of the loop an answer is given that lies there when the timer fires. Derived: as in guard.py."""


class Method(Protocol[Q_contra, A_co]):
    """One remote method that takes several queries at once."""

    def encode(self, queries: Sequence[Q_contra]) -> Any:
        """The request for all of them."""

    async def call(self, request: Any, timeout_s: float) -> Any:
        """Its reply; raises DependencyError."""

    def decode(self, queries: Sequence[Q_contra], reply: Any) -> Sequence[A_co | DependencyError]:
        """Each query's answer, or what is wrong with it, in their order; raises DependencyError if all is wrong."""


class Asks(Protocol[Q_contra, A_co]):
    """Who is handed one query and gives its answer, whatever happens on the way."""

    async def ask(self, query: Q_contra, timeout_s: float) -> A_co:
        """The answer within *timeout_s*; raises DependencyError."""


Joining = Callable[[Method[Q, A]], Asks[Q, A]]
"""Makes of a method of one replica who is asked: every query alone, or joined with what others ask."""


class Alone(Generic[Q, A]):
    """Every query a call of its own: `coalesce = false`."""

    def __init__(self, method: Method[Q, A]) -> None:
        self._method = method

    async def ask(self, query: Q, timeout_s: float) -> A:
        """See `Asks`."""
        return await _asked_alone(self._method, query, timeout_s)


def alone(method: Method[Q, A]) -> Asks[Q, A]:
    """A `Joining` that joins nothing."""
    return Alone(method)


class _Waiter(Generic[Q, A]):
    """One query, until when its answer is of use, and where it goes."""

    __slots__ = ("answer", "deadline_at", "query", "timer")

    def __init__(self, query: Q, now: float, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.query = query
        self.deadline_at = now + timeout_s
        self.answer: asyncio.Future[A] = loop.create_future()
        self.timer = loop.call_later(timeout_s, self._expire, LATE_TURNS)

    def take(self, answer: A | BaseException) -> None:
        if self.answer.done():
            return
        if isinstance(answer, BaseException):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)

    def _expire(self, turns: int) -> None:
        if self.answer.done():
            return
        if turns:
            # The loop was late: an answer that has come meanwhile is read in one of the next turns.
            asyncio.get_running_loop().call_soon(self._expire, turns - 1)
            return
        self.answer.set_exception(DependencyError(Loss.DEADLINE, "no answer within its own time"))


class Coalescer(Generic[Q, A]):
    """
    Batches to one method of one replica; for one event loop.

    on_leave: told how many queries each batch carries.
    now: the monotonic clock, seconds; not the loop's, which stands still within one turn of uvloop.
    """

    def __init__(
        self,
        method: Method[Q, A],
        lane: Lane,
        on_leave: Callable[[int], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._method = method
        self._now = now
        self._lane = lane
        self._on_leave = on_leave
        self._waiting: deque[_Waiter[Q, A]] = deque()
        self._carrying: set[asyncio.Task[None]] = set()
        self._is_boarding = False
        self._look_again: asyncio.TimerHandle | None = None

    async def ask(self, query: Q, timeout_s: float) -> A:
        """See `Asks`."""
        if timeout_s <= 0:
            raise DependencyError(Loss.NO_BUDGET, f"{timeout_s:g} s is no time for a call")
        now = self._now()
        waiter: _Waiter[Q, A] = _Waiter(query, now, timeout_s)
        self._waiting.append(waiter)
        self._board(now)
        try:
            return await waiter.answer
        finally:
            waiter.timer.cancel()

    def _board(self, now: float) -> None:
        """
        Let a batch leave when this turn of the loop is over, if one may.

        Not at once: who asks in the same turn, as the shelves of a page do, is to be on it. It costs nobody a turn, for
        the task that carries a batch has its first one only then.
        """
        if self._is_boarding or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if self._lane.may_carry(now):
            self._is_boarding = True
            # The batch owns its task: whoever asked may leave.
            task = loop.create_task(self._depart())
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)
        elif self._look_again is None:
            self._look_again = loop.call_later(max(0.0, self._lane.late_at - now), self._is_late)

    def _is_late(self) -> None:
        self._look_again = None
        self._board(self._now())

    async def _depart(self) -> None:
        self._is_boarding = False
        now = self._now()
        batch = self._boarded(self._lane.may_carry(now))
        if not batch:
            self._board(now)
            return
        ticket = self._lane.leave(now, len(batch))
        self._on_leave(len(batch))
        # Who found no room waits for this one to arrive, or to be late.
        self._board(now)
        await self._carry(batch, ticket)

    def _boarded(self, most: int) -> list[_Waiter[Q, A]]:
        """The first *most* who still wait for their answer; who has left is not carried."""
        batch: list[_Waiter[Q, A]] = []
        while self._waiting and len(batch) < most:
            waiter = self._waiting.popleft()
            if not waiter.answer.done():
                batch.append(waiter)
        return batch

    async def _carry(self, batch: Sequence[_Waiter[Q, A]], ticket: int) -> None:
        queries = [waiter.query for waiter in batch]
        failed: BaseException | None = None
        reply = None
        try:
            request = self._method.encode(queries)
            timeout_s = max(waiter.deadline_at for waiter in batch) - self._now()
            reply = await self._method.call(request, timeout_s)
        except (Exception, asyncio.CancelledError) as error:
            failed = error
        # Before anything is read: the service works on the next batch while we look at this one.
        now = self._now()
        self._lane.arrived(now, ticket, answered=failed is None)
        self._board(now)
        try:
            if failed is None:
                for waiter, answer in zip(batch, self._method.decode(queries, reply), strict=True):
                    waiter.take(answer)
                return
        except Exception as error:
            failed = error
        if len(batch) > 1 and isinstance(failed, DependencyError) and failed.loss in OF_ONE:
            await asyncio.gather(*(self._again(waiter) for waiter in batch))
            return
        for waiter in batch:
            waiter.take(_same(failed))

    async def _again(self, waiter: _Waiter[Q, A]) -> None:
        if waiter.answer.done():
            return
        try:
            waiter.take(await _asked_alone(self._method, waiter.query, waiter.deadline_at - self._now()))
        except Exception as error:
            waiter.take(error)

    def __repr__(self) -> str:
        return f"<Coalescer {len(self._waiting)} waiting, {self._lane!r}>"


async def _asked_alone(method: Method[Q, A], query: Q, timeout_s: float) -> A:
    answer = method.decode([query], await method.call(method.encode([query]), timeout_s))[0]
    if isinstance(answer, DependencyError):
        raise answer
    return answer


def _same(failed: BaseException) -> BaseException:
    """*failed* for one more waiter: an exception that is raised twice carries both traces."""
    if isinstance(failed, DependencyError):
        return DependencyError(failed.loss, str(failed))
    if isinstance(failed, asyncio.CancelledError):
        return DependencyError(Loss.ERROR, "the joined call was cancelled")
    return failed
