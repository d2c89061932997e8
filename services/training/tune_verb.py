"""
`tutti tune`: parameters for this shop. Found through the entry-point group `tutti.commands`.

Exit codes: 0 done, 1 failed with one clear sentence, 2 wrong usage, 130 stopped by Ctrl-C; what was decided until then
is kept, and going on repeats nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from services.training.speaking import DataDirectory, default_data, explained, stderr, stdout

if TYPE_CHECKING:
    from services.training.evaluation.tables import Table as Cells
    from services.training.tuning.run import Listener, Progress

INTERRUPTED = 130
"""As a shell says of a command that Ctrl-C ended."""

EVERYTHING = "end"


def tune(
    data: DataDirectory = None,  # type: ignore[assignment]  # typer
    trials: Annotated[
        int, typer.Option("--trials", min=2, help="Finished trials a stage, earlier runs' included.")
    ] = 40,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.01, help="About how long all of it may take; a trial that runs is finished."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="DATE|end",
            help="Look at nothing from this day on. Default: where the first window of `tutti evaluate` begins; end: "
            "look at everything, and leave evaluation nothing it may judge with what is found.",
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="STAGE,…", help="These stages; what is tuned of others stays.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same data, same seed, same trials.")] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what may be moved and how far, and end.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Go back to the defaults, and end.")] = False,
) -> None:
    """
    Find parameters for this shop: of each generator, of fusion, of the re-ranker.

    Trials are ranked on one window of the past; the best meets the defaults once, on a later one, and replaces them
    only where it is better beyond noise. `tutti train` uses what was found without further flags. Ctrl-C at any time:
    what is decided stays, and the same command goes on.

    Examples: tutti tune --data .tutti/shop --minutes 20

    tutti tune --data .tutti/shop --forget
    """
    place = data or default_data()
    with explained():
        if forget:
            _forget(place)
            return
        from services.training import sources
        from services.training.tuning import run, tables

        stages = tuple(dict.fromkeys(word.strip() for word in (only or "").split(",") if word.strip()))
        configured = sources.configured()
        if dry_run:
            _print(tables.of_space(run.spaces(configured, stages)))
            return
        plan = run.Plan(trials, minutes, seed, _moment(until), stages)
        try:
            with _listener() as listener:
                done = run.tune(place, configured, plan, listener)
        except KeyboardInterrupt:
            stderr.print(
                f"stopped; what was decided is in {place}, and the same command goes on where it was", soft_wrap=True
            )
            raise typer.Exit(INTERRUPTED) from None
    for one in (tables.of_stages(done.report), tables.of_tasks(done.report)):
        _print(one)
    for line in tables.reasons(done.report):
        stdout.print(line, highlight=False, markup=False, soft_wrap=True)
    then = "`tutti train` uses it" if done.tuned.digest else "the defaults stay"
    stdout.print(f"written to {done.path}; {then}", highlight=False, soft_wrap=True)


def _forget(place: Path) -> None:
    from services.training import tuned

    said = "forgotten; the next `tutti train` uses the defaults" if tuned.forget(place) else "nothing was tuned"
    stdout.print(f"{place}: {said}", highlight=False, soft_wrap=True)


def _moment(until: str | None) -> int | None:
    """
    Raises:
        ValueError: it is neither a date nor `end`.
    """
    from services.training.dataset import to_us

    if until is None:
        return None
    if until == EVERYTHING:
        return to_us(datetime.max.replace(tzinfo=UTC))
    try:
        return to_us(datetime.fromisoformat(until))
    except ValueError:
        raise ValueError(f"--until {until!r}: expected a date as in 2026-09-05, or {EVERYTHING}") from None


def _print(cells: Cells) -> None:
    """On a terminal as it fits; in a file or a pipe as Markdown, whole."""
    from services.training.evaluation.tables import markdown

    if not cells.rows:
        return
    if not stdout.is_terminal:
        stdout.print(markdown(cells), highlight=False, markup=False, soft_wrap=True)
        return
    table = Table(*cells.columns, title=cells.title)
    for row in cells.rows:
        table.add_row(*row)
    stdout.print(table)


class _Lines:
    """In a log: a line a step, and a line a trial."""

    def step(self, what: str) -> None:
        stderr.print(what, highlight=False, soft_wrap=True)

    def trial(self, progress: Progress) -> None:
        stderr.print(said(progress), highlight=False, soft_wrap=True)


@contextmanager
def _listener() -> Iterator[Listener]:
    """On a terminal one bar a stage, that says where it is; in a log plain lines."""
    if not stderr.is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    class Bars:
        def __init__(self, bar: Bar) -> None:
            self._bar, self._running = bar, list[TaskID]()

        def step(self, what: str) -> None:
            if self._running:
                self._bar.update(self._running[-1], total=1, completed=1)
            self._running.append(self._bar.add_task(what, total=None))

        def trial(self, progress: Progress) -> None:
            self._bar.update(self._running[-1], description=said(progress), total=progress.of, completed=progress.done)

    with Bar(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=stderr) as bar:
        yield Bars(bar)


def said(progress: Progress) -> str:
    """Where a stage is, in a line."""
    line = f"{progress.stage}: trial {progress.done} of {progress.of}, best {progress.best:.4f}"
    if progress.default:
        line += f" ({progress.best / progress.default - 1:+.1%} on the defaults)"
    return line if progress.left_s is None else f"{line}, about {_clock(progress.left_s)} left"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
