"""
`tutti down`: stop what `tutti up` started.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.up import default_data
from orchestrator.supervisor.state import holder

PATIENCE_S = 15.0
"""Derived: the supervisor's own graces add up to less than 10 s (supervisor.py)."""


def down(
    data: Annotated[Path | None, typer.Option(help="Data directory. Default: $TUTTI_HOME/shop.")] = None,
) -> None:
    """
    Stop the system that runs in a data directory, and wait until it has stopped.

    Example: tutti down --data .tutti/shop
    """
    data = data or default_data()
    pid = holder(data / "run")
    if pid is None:
        typer.echo(f"nothing runs in {data}")
        return
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # ended between the two lines above
    except PermissionError as error:
        typer.secho(f"process {pid} runs {data} and belongs to somebody else; ask its owner", fg="red", err=True)
        raise typer.Exit(1) from error
    give_up_at = time.monotonic() + PATIENCE_S
    while holder(data / "run") == pid:
        if time.monotonic() > give_up_at:
            typer.secho(f"process {pid} has not stopped after {PATIENCE_S:g} s; try: kill -9 {pid}", fg="red", err=True)
            raise typer.Exit(1)
        time.sleep(0.1)
    typer.echo(f"stopped {data}")
