"""
The last timer of a request: `asyncio.timeout` for what never takes that long.

It never fires unless something is broken, and every request sets it: so it is a timer and a flag and no more, for a
third of what asyncio's own costs. The rule: it means what that means, also when somebody else cancels at that moment.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Backstop:
    """
    Ends the block it is around *delay_s* from now, with TimeoutError. For a task, once.

    Source of the order of things: asyncio.timeouts.Timeout of Python 3.11.
    """

    __slots__ = ("_cancelling", "_delay_s", "_has_fired", "_task", "_timer")

    _task: asyncio.Task[object]
    _timer: asyncio.TimerHandle
    _cancelling: int

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._has_fired = False

    def __enter__(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:
            raise RuntimeError("a backstop ends a task, and none is running")
        self._task, self._cancelling = task, task.cancelling()
        self._timer = loop.call_later(self._delay_s, self._fire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Who was cancelled by somebody else, too, is cancelled.
        if (
            self._has_fired
            and self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def _fire(self) -> None:
        self._has_fired = True
        self._task.cancel()
