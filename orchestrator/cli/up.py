"""
`tutti up`: run every process of tutti on this machine until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import settings as tree
from orchestrator.supervisor.backends import given_redis
from orchestrator.supervisor.console import Console
from orchestrator.supervisor.errors import SupervisorError
from orchestrator.supervisor.plan import INGESTION, ORCHESTRATOR, SINGLE, Shape, model_names
from orchestrator.supervisor.supervisor import Supervisor


def up(
    data: Annotated[Path | None, typer.Option(help="Data directory, trained. Default: $TUTTI_HOME/shop.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the edge. Default: 8000.")] = None,
    host: Annotated[str | None, typer.Option(help="Address the edge listens on. Default: 127.0.0.1.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings laid over the defaults; else TUTTI_CONFIG.")] = None,
    replicas: Annotated[int, typer.Option(min=1, max=16, help="Processes of each model service.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Orchestrator processes behind the edge's port.")] = 1,
    faults: Annotated[
        bool, typer.Option("--faults", help="Make faults injectable; for tests, never in service.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Keep the processes' lines in their logs.")] = False,
) -> None:
    """
    Run every process of tutti on this machine until Ctrl-C.

    Redis, the model services, ingestion and the orchestrator are started in order and restarted when they die.
    Every port but the edge's is found free by itself. REDIS_URL names a Redis to use instead of starting one.

    With --faults a proxy stands before every model replica and before Redis as the orchestrator sees it, and the
    model services read run/faults.json; `tutti status --json` says where each proxy is controlled.

    Examples: tutti up --data .tutti/shop --port 8123

    tutti up --data .tutti/shop --replicas 2 --workers 2

    tutti up --data .tutti/shop --replicas 2 --faults
    """
    try:
        settings = with_edge(tree.load(config, data=data or default_data()), host, port)
        raise typer.Exit(run(settings, data or default_data(), Shape(replicas, workers, faults), quiet=quiet))
    except tree.SettingsError as error:
        typer.secho(f"settings: {error}", fg="red", err=True)
        raise typer.Exit(1) from error


def run(settings: tree.Settings, data: Path, shape: Shape = SINGLE, *, quiet: bool) -> int:
    """Supervise until a signal; 0 after a clean stop, 1 with one sentence on standard error when it did not come up."""
    if not data.is_dir():
        typer.secho(f"no data directory {data}; make one with `tutti demo`, or `tutti data import`", fg="red", err=True)
        return 1
    names = (*model_names(settings), INGESTION, ORCHESTRATOR)
    console = Console(width=max(map(len, names)), show_children=not quiet)
    try:
        asyncio.run(Supervisor(settings, data, given_redis(os.environ), console, shape).run())
    except SupervisorError as error:
        console.close()
        for line in error.lines:
            print(f"    {line}", file=sys.stderr)
        typer.secho(str(error), fg="red", err=True)
        return 1
    console.close()
    return 0


def with_edge(settings: tree.Settings, host: str | None, port: int | None) -> tree.Settings:
    """*settings* with the edge where the command line says, if it says so."""
    edge = settings.edge.model_copy(
        update={key: value for key, value in (("host", host), ("port", port)) if value is not None}
    )
    return settings.model_copy(update={"edge": edge})


def default_data() -> Path:
    """`$TUTTI_HOME/shop`; TUTTI_HOME is `.tutti` in the working directory by default."""
    return Path(os.environ.get("TUTTI_HOME") or ".tutti") / "shop"
