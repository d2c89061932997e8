"""
Model services and online store for work without an edge, such as a batch: started for it, or borrowed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator import settings as tree
from orchestrator.supervisor.console import Console
from orchestrator.supervisor.plan import settings_file
from orchestrator.supervisor.state import holder
from orchestrator.supervisor.supervisor import Supervisor


@asynccontextmanager
async def start_backends(
    data: Path, settings: tree.Settings | None = None, console: Console | None = None
) -> AsyncIterator[Path]:
    """
    Redis, seed and every model service of *data*; yields the settings file that reaches them.

    A system that already runs there is used as it is and left running; otherwise everything started here is
    stopped at the end.

    Args:
        settings: which sources and re-ranker; None reads them as the orchestrator would (TUTTI_CONFIG).
        console: where the supervisor's own lines go; standard error when None.

    Raises:
        SupervisorError: nothing runs any more.
        SettingsError: *settings* is None and the settings cannot be used.
    """
    data = Path(os.path.abspath(data))  # noqa: PTH100, ASYNC240 – no file is touched
    if holder(data / "run") is not None:
        yield settings_file(data)
        return
    settings = settings or tree.load(data=data)
    console, borrowed = console or Console(sys.stderr, show_children=False), console is not None
    try:
        async with Supervisor(settings, data, given_redis(os.environ), console).backends():
            yield settings_file(data)
    finally:
        if not borrowed:
            console.close()


def given_redis(environment: Mapping[str, str]) -> str | None:
    """URL of a Redis that somebody else runs; None when the supervisor is to start one."""
    return environment.get("REDIS_URL") or environment.get("TUTTI_REDIS__URL") or None
