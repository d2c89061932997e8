"""
What every test gets: the loop it asks for, one reproducible profile of hypothesis, a Redis when it wants one, and
the rule that no loss goes without a name.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import structlog
from hypothesis import settings

from orchestrator.core.model import Loss
from orchestrator.guard import Guard
from tests.support import redis_server, virtual_clock
from tests.support.system import tutti

# Derandomised: a red build is red again on the next machine. deadline: this is no place to measure time.
settings.register_profile("tutti", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("tutti")


def _quiet(logger, method: str, event: dict) -> dict:
    """Drop summary lines, which cost more than the requests of a test; warnings stay for whoever reads a failure."""
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


# A processor and not a level: structlog.testing.capture_logs replaces processors, so tests of log lines see them all.
structlog.configure(processors=[_quiet, *structlog.get_config()["processors"]])
_CONFIGURED = structlog.get_config()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """
    Undo what a test of a service did to structlog: its loggers would be cached as they are then, and no later test
    could capture a line.
    """
    yield
    structlog.configure(**_CONFIGURED)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rerecord", action="store_true", help="write the transcripts in tests/scenarios anew")
    parser.addoption("--seeds", type=int, default=2000, help="how many seeds tests/simulation explores")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual_time: runs on a loop whose clock jumps to the next timer")
    config.addinivalue_line("markers", "expects_unclassified: the test produces an UNCLASSIFIED loss on purpose")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item):
    if item.get_closest_marker("virtual_time"):
        return {"virtual": virtual_clock.new_loop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _no_loss_without_a_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test whose guard met something it had no name for, unless it asked for that."""
    nameless: list[str] = []
    # Every loss of every pipeline, whoever built it, goes through this one method; there is no other place to listen.
    lost = Guard._lost

    def listening(self: Guard, dependency: str, loss: Loss, started: float):
        if loss is Loss.UNCLASSIFIED:
            nameless.append(dependency)
        return lost(self, dependency, loss, started)

    monkeypatch.setattr(Guard, "_lost", listening)
    yield
    wanted = request.node.get_closest_marker("expects_unclassified") is not None
    assert wanted or not nameless, (
        f"UNCLASSIFIED losses of {nameless}: name them, or mark the test expects_unclassified"
    )
    assert nameless or not wanted, "the test is marked expects_unclassified and met none"


@pytest.fixture(scope="session")
def redis_of_this_run() -> Iterator[str]:
    """URL of a real server that lives as long as the run; use `redis_url`, which empties it."""
    with redis_server.running() as url:
        yield url


@pytest.fixture
def redis_url(redis_of_this_run: str) -> str:
    """URL of a real, empty Redis."""
    with redis.Redis.from_url(redis_of_this_run) as client:
        client.flushall()
    return redis_of_this_run


@pytest.fixture(scope="session")
def small_shop_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canonical data of a shop just big enough to train on, not trained yet; copy it before changing it."""
    out = tmp_path_factory.mktemp("small") / "shop"
    tutti("data", "synth", "--out", str(out), "--shoppers", "300", "--items", "250", "--days", "120")
    return out
