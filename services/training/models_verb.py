"""
`tutti models`: what is published, what serves, and going forward or back. Found through the entry-point group
`tutti.commands`.

The rule: these verbs move names and nothing else; a version that was published never changes.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from services.training.speaking import DataDirectory, default_data, explained, stderr, stdout

models = typer.Typer(
    help="What is published and what serves. Example: tutti models list", no_args_is_help=True, name="models"
)


@models.command("list")
def list_models(data: DataDirectory = None) -> None:  # type: ignore[assignment]  # typer
    """
    List every version of every model, and which of them serves.

    Example: tutti models list --data .tutti/shop
    """
    from protos import artefacts
    from services.training import registry

    folder = (data or default_data()) / registry.MODELS
    table = Table("model", "version", "trained at", "events", "alias")
    with explained():
        for name in registry.names(folder):
            aliases = artefacts.read_aliases(folder, name)
            for manifest in registry.versions(folder, name):
                known = ", ".join(alias for alias, version in aliases.items() if version == manifest.version)
                table.add_row(name, manifest.version, manifest.created_at, f"{manifest.data.get('events', 0):,}", known)
    if not table.row_count:
        stderr.print(f"[red]error:[/red] no model under {folder}; `tutti train` makes them", highlight=False)
        raise typer.Exit(1)
    stdout.print(table)


@models.command()
def promote(
    name: Annotated[str | None, typer.Argument(help="A model; without one, the whole refused run.")] = None,
    version: Annotated[str | None, typer.Argument(help="Its version, as in `tutti models list`.")] = None,
    data: DataDirectory = None,  # type: ignore[assignment]  # typer
) -> None:
    """
    Let a version serve from the next start on: one model's, or all of the run that the gate refused last.

    Example: tutti models promote --data .tutti/shop
    """
    if (name is None) != (version is None):
        raise typer.BadParameter("give a model and its version, or neither")
    with explained():
        from services.training import admission, registry

        place = data or default_data()
        if name is not None and version is not None:
            registry.promote(place / registry.MODELS, name, version)
            changed = {name: version}
        else:
            changed = admission.promote_candidate(place)
    _said(changed)


@models.command()
def rollback(data: DataDirectory = None) -> None:  # type: ignore[assignment]  # typer
    """
    Let the champions before the last promotion serve again, from the next start on; a second time undoes it.

    The next training promotes again, if the gate admits it: mend or stop it first.

    Example: tutti models rollback --data .tutti/shop
    """
    with explained():
        from services.training import admission

        changed = admission.rollback(data or default_data())
    _said(changed)


def _said(changed: dict[str, str]) -> None:
    for name, version in changed.items():
        stdout.print(f"{name}: {version} is champion", highlight=False)
    stdout.print("running services keep what they loaded; restart them to serve it", highlight=False)
