"""
`tutti data import`: run an importer with a progress bar, print its account.

Exit codes: 0 imported, 1 refused or failed (one sentence on stderr, the output folder untouched), 2 wrong usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from services.training.importers import SOURCES, DatasetError, Options, import_dataset
from services.training.importers.base import POSITIVE_RATING

_HELP = """
Import a public data set, or your own data, into the canonical files.

Writes events.parquet, items.parquet and dataset.json into DIR, all three or
none, and prints how many rows were read, kept and dropped, by reason.
A wrong file is refused with its name, line and column.

\b
Sources:
{sources}

\b
Examples:
  tutti data import online-retail ./online-retail --out .tutti/shop
  tutti data import movielens ./ml-1m --out ./ml --min-rating 3.5
"""
HELP = _HELP.format(sources="\n".join(f"  {name:<14}  {importer.about}" for name, importer in SOURCES.items()))


class Bar:
    """Import progress as rich shows it: one line a stage."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Finish the stage before, begin the next."""
        self.finish()
        self._task = self._shown.add_task(stage, total=total)

    def advance(self, amount: int) -> None:
        """Move the bar of the current stage."""
        if self._task is not None:
            self._shown.advance(self._task, amount)

    def finish(self) -> None:
        """The current stage is over."""
        if self._task is not None:
            task = self._shown.tasks[self._shown.task_ids.index(self._task)]
            total = task.total or max(task.completed, 1)
            self._shown.update(self._task, total=total, completed=total)


def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="One of the sources above.", show_default=False)],
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="The data set's file, or the folder of its files.", exists=True, show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write to; made if missing.", show_default=False)
    ],
    min_rating: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=5.0,
            metavar="STARS",
            help=f"Lowest rating that counts as a purchase; {POSITIVE_RATING:g} if not given.",
        ),
    ] = None,
) -> None:
    """Import a data set; the help text is `HELP`, because it lists the sources."""
    name = source.lower().replace("_", "-")
    if name not in SOURCES:
        raise typer.BadParameter(f"no source {source!r}; sources are {', '.join(SOURCES)}", param_hint="SOURCE")
    if min_rating is not None and not SOURCES[name].has_ratings:
        rated = ", ".join(key for key, importer in SOURCES.items() if importer.has_ratings)
        raise typer.BadParameter(f"{name} has no ratings; sources with ratings: {rated}", param_hint="--min-rating")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console) as shown:
            options = Options() if min_rating is None else Options(min_rating)
            bar = Bar(shown)
            report = import_dataset(name, path, out, bar, options)
            bar.finish()
    except (DatasetError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo("\n".join(report.lines()))
    typer.echo(f"written to    {out}")
