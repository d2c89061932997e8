"""
How the offline verbs speak: one clear sentence for what was to be expected, a line for each step, codes that mean
something. Imported by every `tutti` command, so it imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

stdout = Console()
stderr = Console(stderr=True)

REFUSED = 3
"""Exit code: judged, and not good enough to serve."""

DataDirectory = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Data directory; default $TUTTI_HOME/shop.", show_default=False)
]


def default_data() -> Path:
    """The data directory of who names none."""
    return Path(os.environ.get("TUTTI_HOME") or ".tutti") / "shop"


@contextmanager
def explained() -> Iterator[None]:
    """Expected failures become one sentence and exit code 1; anything else is a bug and keeps its trace."""
    try:
        yield
    except Exception as error:
        # By name, because the classes live beside libraries that `tutti --help` must not import.
        if type(error).__name__ not in _EXPECTED and not isinstance(error, OSError | ValueError):
            raise
        stderr.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


_EXPECTED = frozenset(
    {"DatasetUnusable", "SettingsUnusable", "FeatureError", "EvaluationFailed", "ArtefactMissing", "ArtefactBroken"}
)


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, with the time it takes; in a log, a plain line when it begins."""
    if not stderr.is_terminal:
        yield lambda what: stderr.print(what, highlight=False)
        return
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    with Bar(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=stderr) as bar:
        running: list[TaskID] = []

        def begin(what: str) -> None:
            if running:
                bar.update(running[-1], total=1, completed=1)
            running.append(bar.add_task(what, total=None))

        yield begin
