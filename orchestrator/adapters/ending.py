"""
Ends a background task for good.

The rule: one `cancel()` is a wish. Before Python 3.12 `asyncio.wait_for` drops a cancellation that arrives in the turn
in which what it waits for is done (python/cpython#86296), and redis-py sends every command through it where a socket
timeout is set: a task that follows a stream is then never told, and whoever awaits it waits for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.05
"""Between two attempts. Judged: a task that was told ends within a turn of the loop, so the second is needed only where
the first was lost; short beside any drain."""


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel *task* until it is done. What it failed with is taken, so that asyncio does not report it as unheard."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_S)
    if not task.cancelled():
        task.exception()
