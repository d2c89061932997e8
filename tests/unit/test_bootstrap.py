"""A whole orchestrator on twins: what is started is stopped."""

import threading

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
from orchestrator.telemetry import new_metrics
from tests.support.worlds import a_catalogue


def watchdogs():
    return [thread for thread in threading.enumerate() if thread.name == "loop-watchdog"]


async def test_the_loop_is_watched_while_it_runs_and_not_before_or_after(tmp_path):
    settings = tree.load(None, {"TUTTI_DATA__PATH": str(tmp_path), "TUTTI_DATA__CLOCK": "wall"})
    store = MemoryStore()
    overrides = Overrides(
        sources=tuple(MemorySource(name=source.name, keys=range(20)) for source in settings.sources),
        reranker=MemoryReranker(),
        features=MemoryUserReader(store=store, n_numeric=0, n_categorical=0),
        slates=MemorySlates(store=store),
        events=MemoryEvents(store=store),
        catalogue=a_catalogue(set()),
        metrics=new_metrics(),
    )

    async with run(settings, overrides) as running:
        assert running.is_ready
        assert not running.is_draining
        assert repr(running.loop).endswith("on>")
        assert len(watchdogs()) == 1

    assert repr(running.loop).endswith("off>")
    assert watchdogs() == []
    assert not running.is_ready
