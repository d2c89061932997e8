import asyncio
import threading

import pytest

from services.chassis.telemetry import ServiceMetrics
from services.chassis.worker import DeadlinePassed, ModelWorker


@pytest.fixture
def worker():
    worker = ModelWorker(ServiceMetrics("toy", "v1"))
    yield worker
    worker.close()


async def test_work_runs_outside_the_event_loops_thread(worker):
    assert await worker.run(threading.get_ident, None) != threading.get_ident()


async def test_an_expired_call_never_reaches_the_model(worker):
    touched = []

    with pytest.raises(DeadlinePassed):
        await worker.run(lambda: touched.append(1), 0.0)

    assert touched == []


async def test_a_call_that_expires_while_it_waits_its_turn_is_refused(worker):
    release, touched = threading.Event(), []
    first = asyncio.create_task(worker.run(release.wait, None))
    # Over before any thread could take it up, and not over yet when it arrives.
    second = asyncio.create_task(worker.run(lambda: touched.append(1), 1e-6))
    await asyncio.sleep(0)

    release.set()

    with pytest.raises(DeadlinePassed):
        await second
    await first
    assert touched == []


async def test_the_work_of_a_cancelled_caller_is_dropped_if_it_has_not_begun(worker):
    release, touched = threading.Event(), []
    first = asyncio.create_task(worker.run(release.wait, None))
    second = asyncio.create_task(worker.run(lambda: touched.append(1), None))
    await asyncio.sleep(0)

    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    release.set()

    await first
    assert await worker.run(lambda: "next", None) == "next"
    assert touched == []
