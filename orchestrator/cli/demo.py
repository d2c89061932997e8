"""
`tutti demo`: from nothing to a shelf of recommendations. Makes the embedded shop, trains, runs everything.

What is already there and still valid is not made again: the shop is kept, and `tutti train` itself skips models
whose data, parameters and code have not changed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import settings as tree
from orchestrator.cli.up import default_data, run, with_edge
from orchestrator.supervisor.errors import SupervisorError
from orchestrator.supervisor.plan import reachable
from orchestrator.supervisor.ports import check_free

TUTTI = (sys.executable, "-m", "orchestrator.cli")
"""Ourselves as a command: the offline verbs run in processes of their own, so their memory is gone afterwards."""


def demo(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the edge. Default: 8000.")] = None,
    host: Annotated[str | None, typer.Option(help="Address the edge listens on. Default: 127.0.0.1.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where the shop lives. Default: $TUTTI_HOME/shop.")] = None,
) -> None:
    """
    Make the embedded shop, train its models, run everything, and say where to look.

    Example: tutti demo --port 8123
    """
    data = data or default_data()
    try:
        settings = _settings(data, host, port)
        check_free(settings.edge.host, settings.edge.port)
    except (tree.SettingsError, SupervisorError) as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error
    if not (data / "dataset.json").is_file():
        _step("making the embedded shop", "data", "synth", "--out", str(data))
    _step("training, unless what was trained is still valid", "train", "--data", str(data))
    try:
        settings = _settings(data, host, port)
    except tree.SettingsError as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"starting; recommendations will be at http://{reachable(settings.edge)}/ (Ctrl-C stops everything)")
    raise typer.Exit(run(settings, data, quiet=True))


def _settings(data: Path, host: str | None, port: int | None) -> tree.Settings:
    """
    The embedded shop ends on a fixed day; whenever it is shown, it is shown as on that day.

    Read again after training: what was trained may have been tuned.
    """
    settings = with_edge(tree.load(data=data), host, port)
    return settings.model_copy(update={"data": settings.data.model_copy(update={"clock": "data"})})


def _step(what: str, *arguments: str) -> None:
    typer.echo(what)
    try:
        code = subprocess.run([*TUTTI, *arguments], check=False).returncode
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if code != 0:
        typer.secho(f"`tutti {' '.join(arguments)}` failed with exit code {code}; see above", fg="red", err=True)
        raise typer.Exit(1)
