"""
Time that passes only when everybody waits: a loop whose clock jumps to the next timer.

A test marked `virtual_time` runs on it (tests/conftest.py chooses the loop); 10 000 seconds of hung dependencies
cost microseconds, and a deadlock fails at once instead of hanging. In-memory twins only: gRPC and Redis wake a
loop from outside, which this one forbids.
"""

import asyncio

import async_solipsism

EPOCH_S = 1_700_000_000.0
"""Wall-clock moment at which every virtual loop starts; any will do, as long as it is always the same."""


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop at virtual second 0."""
    return async_solipsism.EventLoop()


def monotonic() -> float:
    """Seconds since the running loop started."""
    return asyncio.get_running_loop().time()


def wall() -> float:
    """The wall clock that goes with `monotonic`, seconds since the epoch."""
    return EPOCH_S + monotonic()


async def advance(seconds: float) -> None:
    """Let *seconds* pass, an hour at a time: async-solipsism takes one long sleep for a deadlock."""
    hours, rest_s = divmod(seconds, 3600)
    for _ in range(int(hours)):
        await asyncio.sleep(3600)
    await asyncio.sleep(rest_s)


def run(coroutine):
    """Run *coroutine* on a loop of its own from virtual second 0: for property tests, which run many."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(coroutine)
