"""
How the offline verbs speak: one clear sentence for what was to be expected, a line for each step, codes that mean
something. Imported by every `tutti` command, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console

from services.training import headway

stdout = Console()
stderr = Console(stderr=True)

EVERY_S = 15.0
"""Between lines in a log. Judged: often enough to see that it lives, seldom enough to be read."""

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
def steps(stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[str], None]]:
    """
    What is being done, how much of it is done, and how long it will take: one line that rewrites itself on a terminal.

    In a log a line with the bare name when a step begins, and every EVERY_S seconds one with name, share and time left.
    Yields what is to be called with a step's name when it begins; shares come from `headway.told`.
    """
    console = stderr if stream is None else Console(file=stream)
    said = _Line(console, clock) if console.is_terminal else _Lines(console, clock)
    with headway.heard_by(said.hears):
        try:
            yield said.begins
        finally:
            said.ends()


class _Lines:
    """For a log."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console, self._clock = console, clock
        self._what, self._began, self._said = "", clock(), clock()

    def begins(self, what: str) -> None:
        """A step begins, and the one before it has ended."""
        self._what, self._began = what, self._clock()
        self._said = self._began
        self._console.print(what, highlight=False, markup=False, soft_wrap=True)

    def hears(self, share: float) -> None:
        """So much of the step is done."""
        now = self._clock()
        if self._what and now - self._said >= EVERY_S and share < 1:
            self._said = now
            stands = headway.Headway(self._what, share, now - self._began)
            self._console.print(f"  {stands}", highlight=False, markup=False, soft_wrap=True)

    def ends(self) -> None:
        """No step is in hand any more."""
        self._what = ""


class _Line:
    """For a terminal."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        from rich.progress import Progress as Bar
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        self._clock, self._began, self._number = clock, clock(), 0
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._bar = Bar(*columns, console=console, transient=True)
        self._what, self._task = "", self._bar.add_task("", total=None, start=True)
        self._bar.start()

    def begins(self, what: str) -> None:
        """A step begins, and the one before it has ended."""
        self._what, self._began, self._number = what, self._clock(), self._number + 1
        self._bar.reset(self._task, description=f"{self._number}. {what}", total=None)

    def hears(self, share: float) -> None:
        """So much of the step is done."""
        stands = headway.Headway(self._what, share, self._clock() - self._began)
        self._bar.update(self._task, description=f"{self._number}. {stands}")

    def ends(self) -> None:
        """No step is in hand any more."""
        self._bar.stop()
