"""`tutti config check`: read the settings as the orchestrator would, and say what they came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from orchestrator import settings as tree

app = typer.Typer(help="Look at the settings.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `check` a verb of its own, since more will join it."""


@app.command()
def check(
    config: Annotated[Path | None, typer.Option(help="File laid over the defaults; TUTTI_CONFIG when absent.")] = None,
) -> None:
    """
    Check defaults, file and environment as a whole and print the effective tree.

    Example: tutti config check --config deploy/compose.toml
    """
    try:
        settings = tree.load(config)
    except tree.SettingsError as error:
        typer.secho(f"settings: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    typer.echo(orjson.dumps(settings.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode())
