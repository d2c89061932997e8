"""
The offline verbs of `tutti`: data, train, evaluate. Found through the entry-point group `tutti.commands`.

Heavy libraries are imported by the verb that needs them: `tutti --help` imports this file. Exit codes: 0 done, 1 failed
with one clear sentence, 2 wrong usage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

data = typer.Typer(
    help="Make or bring data. Example: tutti data synth --out .tutti/shop", no_args_is_help=True, name="data"
)

_out = Console()
_err = Console(stderr=True)


class Split(StrEnum):
    """Windows of the protocol; see services/training/split.py."""

    validation = "validation"
    test = "test"


def _default_data() -> Path:
    return Path(os.environ.get("TUTTI_HOME") or ".tutti") / "shop"


DataDirectory = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Data directory; default $TUTTI_HOME/shop.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Same data and same seed give the same artefacts.")]
Force = Annotated[bool, typer.Option("--force", help="Train even if nothing has changed since the last time.")]


@data.command()
def synth(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to; made if missing.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed and sizes, same bytes.")] = 7,
    shoppers: Annotated[int, typer.Option("--shoppers", min=10, help="People.")] = 2000,
    items: Annotated[int, typer.Option("--items", min=20, help="Things to buy.")] = 1500,
    days: Annotated[int, typer.Option("--days", min=14, help="Length of the history.")] = 270,
    events: Annotated[int | None, typer.Option("--events", min=1, help="About how many events.")] = None,
) -> None:
    """
    Make a shop: catalogue, shoppers and their history, with the truth behind it.

    Example: tutti data synth --out .tutti/shop --seed 7
    """
    from rich.progress import Progress as Bar

    from services.training import synthetic

    with _explained(), Bar(console=_err) as bar:
        task = bar.add_task("making a shop", total=1.0)
        info = synthetic.build(
            out,
            seed=seed,
            shoppers=shoppers,
            items=items,
            days=days,
            events=events,
            progress=lambda share, what: bar.update(task, completed=share, description=what),
        )
        bar.update(task, completed=1.0)
    _out.print(f"{out}: {info['events']:,} events, {info['items']:,} items, {info['users']:,} shoppers")


def train(data: DataDirectory = None, seed: Seed = 7, force: Force = False) -> None:  # type: ignore[assignment]  # typer
    """
    Train every source of the settings, the re-ranker and the popular list, and promote them.

    Does nothing when the same data was trained with the same sources and seed before.

    Example: tutti train --data .tutti/shop
    """
    place = data or _default_data()
    with _explained(), _steps() as step:
        from services.training import pipeline, sources

        done = pipeline.train(place, sources.configured(), seed, force, progress=step)
    if not done.was_needed:
        _out.print(f"{place}: nothing has changed since the last training; --force trains anyway")
        return
    table = Table("model", "version", "figures", title=f"{place}: trained in {done.report['seconds']['total']:.0f} s")
    for name, version in done.versions.items():
        figures = ", ".join(f"{k} {v:.4g}" for k, v in done.report["metrics"][name].items())
        table.add_row(name, version, figures)
    _out.print(table)


def evaluate(
    data: DataDirectory = None,  # type: ignore[assignment]  # typer
    split: Annotated[Split, typer.Option("--split", help="Tune on validation; look at test once.")] = Split.validation,
    seed: Seed = 7,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="7,8,9", help="One training each; figures are their means.")
    ] = None,
    diversity: Annotated[
        str | None,
        typer.Option("--diversity", metavar="low,high", help="Levels whose slates are judged too: their price."),
    ] = None,
    shoppers: Annotated[int, typer.Option("--shoppers", min=10, help="Most judged a task, drawn by seed.")] = 5_000,
    force: Force = False,
) -> None:
    """
    Train on the past of a window and judge what the serving pipeline would have shown in it, against simple methods.

    Example: tutti evaluate --data .tutti/shop --split test --seeds 7,8,9
    """
    place = data or _default_data()
    with _explained(), _steps() as step:
        from services.training import sources
        from services.training.evaluation import run, tables

        plan = run.Plan(split.value, _numbers(seeds) or (seed,), _words(diversity), shoppers, force=force)
        result = run.evaluate(place, sources.configured(), plan, progress=step)
    if _out.is_terminal:
        for one in tables.main_tables(result.report):
            table = Table(*one.columns, title=one.title)
            for row in one.rows:
                table.add_row(*row)
            _out.print(table)
        for line in tables.left_out(result.report):
            _out.print(f"left out: {line}", highlight=False, soft_wrap=True)
    else:
        # In a file or a pipe: Markdown, whole, as the documents hold it.
        _out.print(tables.report_markdown(result.report), highlight=False, markup=False, soft_wrap=True)
    _out.print(f"written to {result.path}, and as a page beside it", highlight=False, soft_wrap=True)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def _numbers(text: str | None) -> tuple[int, ...]:
    if not all(word.isdecimal() for word in _words(text)):
        raise ValueError(f"--seeds {text!r}: expected numbers with commas between them, as in 7,8,9")
    return tuple(int(word) for word in _words(text))


@contextmanager
def _explained() -> Iterator[None]:
    """Expected failures become one sentence and exit code 1; anything else is a bug and keeps its trace."""
    try:
        yield
    except Exception as error:
        # By name, because the classes live beside libraries that `tutti --help` must not import.
        if type(error).__name__ not in _EXPECTED and not isinstance(error, OSError | ValueError):
            raise
        _err.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


_EXPECTED = frozenset(
    {"DatasetUnusable", "SettingsUnusable", "FeatureError", "EvaluationFailed", "ArtefactMissing", "ArtefactBroken"}
)


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, with the time it takes; in a log, a plain line when it begins."""
    if not _err.is_terminal:
        yield lambda what: _err.print(what, highlight=False)
        return
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    with Bar(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=_err) as bar:
        running: list[TaskID] = []

        def begin(what: str) -> None:
            if running:
                bar.update(running[-1], total=1, completed=1)
            running.append(bar.add_task(what, total=None))

        yield begin


def _mount_import() -> None:
    from services.training.importers import command

    help_text = getattr(command, "HELP", None)
    data.command("import", help=help_text)(command.import_)


_mount_import()
