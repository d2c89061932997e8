"""A whole orchestrator on twins: what is started is stopped."""

import asyncio
import threading

import pytest
from structlog.testing import capture_logs

from orchestrator import settings as tree
from orchestrator.adapters.memory import (
    MemoryEvents,
    MemoryPeople,
    MemoryReranker,
    MemorySlates,
    MemorySource,
    MemoryStore,
    MemoryUserReader,
)
from orchestrator.bootstrap import NotReady, Overrides, run
from orchestrator.core.model import Loss, Placement, Query
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
        people=MemoryPeople(store=store),
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


HIDE = '[[rules]]\nname = "gone"\naction = "hide"\nitems = { ids = ["i39", "never listed"] }\n'


async def test_the_rules_of_the_file_hold_from_the_first_slate_and_unknown_items_are_told(tmp_path):
    (tmp_path / "rules.toml").write_text(HIDE)
    settings, overrides = a_shop(tmp_path, TUTTI_RULES__PATH=str(tmp_path / "rules.toml"))

    with capture_logs() as lines:
        async with run(settings, overrides) as running:
            slate = await running.pipeline.recommend(Query("r", Placement.HOME, 3))

    assert [item.key for item in slate.items] == [38, 37, 36]
    assert [line["ids"] for line in lines if line["event"] == "rule_of_unknown_items"] == [("never listed",)]


async def test_a_changed_file_is_looked_for_while_it_runs_and_not_after(tmp_path):
    (tmp_path / "rules.toml").write_text(HIDE)
    settings, overrides = a_shop(tmp_path, TUTTI_RULES__PATH=str(tmp_path / "rules.toml"))

    async with run(settings, overrides):
        assert [task.get_name() for task in asyncio.all_tasks()].count("rules") == 1
    await asyncio.sleep(0)

    assert "rules" not in [task.get_name() for task in asyncio.all_tasks()]


async def test_nobody_looks_for_changes_when_told_not_to_or_when_there_are_no_rules(tmp_path):
    (tmp_path / "rules.toml").write_text(HIDE)

    for about in ({"TUTTI_RULES__PATH": str(tmp_path / "rules.toml"), "TUTTI_RULES__RELOAD_S": "0"}, {}):
        async with run(*a_shop(tmp_path, **about)):
            assert "rules" not in [task.get_name() for task in asyncio.all_tasks()]


async def test_a_wrong_rule_refuses_to_start_and_is_named_with_its_key(tmp_path):
    (tmp_path / "rules.toml").write_text(HIDE + "factor = 2\n")
    settings, overrides = a_shop(tmp_path, TUTTI_RULES__PATH=str(tmp_path / "rules.toml"))

    with pytest.raises(NotReady, match=r"rules\.toml: rule 'gone': factor and places go with boost and bury"):
        async with run(settings, overrides):
            pass


async def test_events_that_would_not_survive_are_said_loudly_at_the_start(tmp_path, monkeypatch):
    settings, overrides = a_shop(tmp_path)

    async def durability(self):
        return "no append-only file"

    monkeypatch.setattr(MemoryEvents, "durability", durability)
    with capture_logs() as lines:
        async with run(settings, overrides) as running:
            checks = await running.checks()

    assert checks["events"] == "no append-only file"
    told = [line for line in lines if line["event"] == "events_not_durable"]
    assert [(line["reason"], line["log_level"]) for line in told] == [("no append-only file", "warning")]


async def test_a_store_that_is_away_at_the_start_is_no_reason_to_wait(tmp_path):
    settings, overrides = a_shop(tmp_path)
    overrides.events.fail_with = Loss.UNAVAILABLE

    async with run(settings, overrides) as running:
        assert running.is_ready
        assert (await running.checks())["redis"] == "unavailable"
