"""The watchdog on a real loop that is held up on purpose."""

import asyncio
import threading
import time

import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.event_loop import LoopWatch
from orchestrator.telemetry import new_metrics

pytestmark = pytest.mark.integration


def the_culprit(seconds):
    time.sleep(seconds)


@pytest.fixture
async def watch():
    watch = LoopWatch(new_metrics())
    watch.start()
    yield watch
    watch.stop()
    assert "loop-watchdog" not in [thread.name for thread in threading.enumerate()]


async def test_who_holds_up_the_loop_is_named(watch):
    await asyncio.sleep(0.03)
    with capture_logs() as logged:
        the_culprit(0.150)
        # The overdue beat comes first of all.
        await asyncio.sleep(0.02)

    (line,) = [line for line in logged if "the_culprit" in line["culprit"]]
    assert line["event"] == "loop_stalled"
    assert 0.130 <= line["lasted_s"] < 5.0
    assert any("test_who_holds_up_the_loop_is_named" in frame for frame in line["frames"])
    assert watch.lag.worst_s >= 0.130


async def test_a_loop_that_waits_is_not_held_up(watch):
    with capture_logs() as logged:
        await asyncio.sleep(0.2)

    assert [line for line in logged if "the_culprit" in line["culprit"]] == []
