"""
Many answers in the making, handed on in the order of the questions.

The rule: never more than a window of them exists, made or in the making, so that memory does not grow with the number
of questions; and a slow one at the head holds back its followers' turn, not their making.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


async def in_order(
    questions: Iterable[Q], answer: Callable[[Q], Awaitable[A]], at_once: int, window: int
) -> AsyncGenerator[tuple[Q, A], None]:
    """
    Each question with its answer, in the order given; to be closed (`aclosing`) by who stops before the end.

    Args:
        at_once: answers in the making; the next begins when any of them ends, not when all of a batch have.
        window: questions taken and not yet handed on, at least *at_once*.

    Raises:
        whatever *answer* raises, at the turn of that question; what is still in the making is cancelled.
    """
    turns = asyncio.Semaphore(at_once)

    async def taken(question: Q) -> A:
        async with turns:
            return await answer(question)

    waiting: deque[tuple[Q, asyncio.Task[A]]] = deque()
    try:
        for question in questions:
            waiting.append((question, asyncio.create_task(taken(question))))
            if len(waiting) >= window:
                yield waiting[0][0], await waiting[0][1]
                waiting.popleft()
        while waiting:
            yield waiting[0][0], await waiting[0][1]
            waiting.popleft()
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)
