"""Ending a task that did not hear the first wish."""

import asyncio

from orchestrator.adapters.ending import ended


async def test_a_task_that_lost_its_cancellation_is_ended():
    heard = 0

    async def deaf_once():
        nonlocal heard
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1
                if heard > 1:
                    raise

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    await ended(task)

    assert task.cancelled()
    assert heard == 2


async def test_a_task_that_failed_or_is_done_is_left_as_it_is():
    async def fails():
        raise OSError("gone")

    failed = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await ended(failed)
    done = asyncio.create_task(asyncio.sleep(0, "answer"))
    await done
    await ended(done)

    assert isinstance(failed.exception(), OSError)
    assert done.result() == "answer"
