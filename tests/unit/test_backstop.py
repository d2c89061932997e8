"""The last timer of a request means what asyncio's own does."""

import asyncio

import pytest

from orchestrator.backstop import Backstop

pytestmark = pytest.mark.virtual_time


async def hang():
    await asyncio.Event().wait()


async def test_what_ends_in_time_is_not_touched():
    with Backstop(0.01):
        await asyncio.sleep(0.009)

    await asyncio.sleep(0.01)


async def test_what_does_not_is_ended_and_may_go_on_afterwards():
    loop = asyncio.get_running_loop()
    began = loop.time()

    with pytest.raises(TimeoutError), Backstop(0.01):
        await hang()

    assert loop.time() - began == pytest.approx(0.01)
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


async def test_who_is_cancelled_by_somebody_else_is_cancelled():
    async def guarded():
        with Backstop(10.0):
            await hang()

    task = asyncio.create_task(guarded())
    await asyncio.sleep(0.01)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_in_the_moment_it_fires_is_cancelled():
    async def guarded():
        with Backstop(0.01):
            await hang()

    task = asyncio.create_task(guarded())
    asyncio.get_running_loop().call_later(0.01, task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_another_error_of_the_block_is_its_own():
    with pytest.raises(LookupError), Backstop(0.01):
        raise LookupError


def test_without_a_task_there_is_nothing_to_end():
    with pytest.raises(RuntimeError), Backstop(0.01):
        pass
