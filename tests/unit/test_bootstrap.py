"""A whole orchestrator on twins: what is started is stopped."""

import asyncio
import threading

from structlog.testing import capture_logs

from orchestrator import settings as tree
from orchestrator.adapters.memory import (
    MemoryEvents,
    MemoryReranker,
    MemorySlates,
    MemorySource,
    MemoryStore,
    MemoryUserReader,
)
from orchestrator.bootstrap import Overrides, run
from orchestrator.degradation import Degradation
from orchestrator.telemetry import new_metrics
from tests.support.worlds import a_catalogue


def watchdogs():
    return [thread for thread in threading.enumerate() if thread.name == "loop-watchdog"]


def a_shop(tmp_path, **environment):
    """Settings and twins of everything outside."""
    settings = tree.load(None, {"TUTTI_DATA__PATH": str(tmp_path), "TUTTI_DATA__CLOCK": "wall", **environment})
    store = MemoryStore()
    return settings, Overrides(
        sources=tuple(MemorySource(name=source.name, keys=range(20)) for source in settings.sources),
        reranker=MemoryReranker(),
        features=MemoryUserReader(store=store, n_numeric=0, n_categorical=0),
        slates=MemorySlates(store=store),
        events=MemoryEvents(store=store),
        catalogue=a_catalogue(set()),
        metrics=new_metrics(),
    )


def controllers():
    return [task for task in asyncio.all_tasks() if task.get_name() == "degradation"]


async def test_the_loop_is_watched_while_it_runs_and_not_before_or_after(tmp_path):
    settings, overrides = a_shop(tmp_path)

    async with run(settings, overrides) as running:
        assert running.is_ready
        assert not running.is_draining
        assert repr(running.loop).endswith("on>")
        assert len(watchdogs()) == 1

    assert repr(running.loop).endswith("off>")
    assert watchdogs() == []
    assert not running.is_ready


async def test_the_ladder_has_its_controller_while_it_runs(tmp_path):
    async with run(*a_shop(tmp_path)):
        assert len(controllers()) == 1

    await asyncio.sleep(0)
    assert controllers() == []


# Once: after a second the controller let a batch retry, which its settings forbid, and might have narrowed it.
async def test_a_batch_without_guard_has_no_controller(tmp_path):
    async with run(*a_shop(tmp_path, TUTTI_GUARD__ENABLED="false")) as running:
        assert controllers() == []
        assert running.pipeline._parts.guard.is_lean


async def test_a_controller_that_fails_is_told_of(tmp_path, monkeypatch):
    async def fails(self):
        raise ZeroDivisionError

    monkeypatch.setattr(Degradation, "keep_observing", fails)
    with capture_logs() as lines:
        async with run(*a_shop(tmp_path)):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    assert "ladder_stands_still" in [line["event"] for line in lines]
