"""
`tutti restart`: restart processes of a running system one by one, so that others serve meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.up import default_data
from orchestrator.supervisor import control
from orchestrator.supervisor.state import holder


def restart(
    names: Annotated[
        list[str] | None, typer.Argument(help="A process as `tutti status` names it, or one replica: NAME:1.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Data directory. Default: $TUTTI_HOME/shop.")] = None,
) -> None:
    """
    Restart processes one by one: each is asked to end, and the next waits until it is ready again.

    Without names: model services, ingestion and orchestrators. With two replicas and two workers no request is lost.

    Examples: tutti restart --data .tutti/shop

    tutti restart orchestrator content_based:1
    """
    data = data or default_data()
    if holder(data / "run") is None:
        typer.secho(f"nothing runs in {data}; start it with: tutti up --data {data}", fg="red", err=True)
        raise typer.Exit(1)
    try:
        for message in control.ask(data / "run", names or []):
            if "say" in message:
                typer.echo(message["say"])
            if "error" in message:
                typer.secho(message["error"], fg="red", err=True)
                raise typer.Exit(1)
            if "done" in message:
                return
    except OSError as error:
        typer.secho(f"the supervisor of {data} cannot be asked: {error.strerror}; is it starting?", fg="red", err=True)
        raise typer.Exit(1) from error
    typer.secho("the supervisor stopped before it was done", fg="red", err=True)
    raise typer.Exit(1)
