"""
How far a long command is, and how long it will take: a bar on a terminal, a line now and then in a log.

The rule: what is printed to a log is a whole sentence a line, on standard error, and the last one says that it is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY_S = 15.0
"""Between lines in a log. Judged: often enough to see that it lives, seldom enough to be read."""


@contextmanager
def shown(
    what: str, total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Yields what is to be called with the number of things that are done since the last call."""
    stream = stream or sys.stderr
    if not stream.isatty():
        with _lines(what, total, stream, clock) as advance:
            yield advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    began, done = clock(), 0
    with Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance_bar(n: int) -> None:
            nonlocal done
            done += n
            bar.update(task, advance=n, rate=f"{done / max(clock() - began, 1e-9):,.0f}/s")

        yield advance_bar


@contextmanager
def _lines(what: str, total: int, stream: TextIO, clock: Callable[[], float]) -> Iterator[Callable[[int], None]]:
    began = last = clock()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = clock()
        if now - last < EVERY_S or done >= total:
            return
        last = now
        rate = done / (now - began)
        stream.write(f"{what}: {done:,} of {total:,}, {rate:,.0f}/s, {spoken(max(total - done, 0) / rate)} left\n")
        stream.flush()

    yield advance
    took = clock() - began
    stream.write(f"{what}: {done:,} in {spoken(took)}, {done / max(took, 1e-9):,.0f}/s\n")
    stream.flush()


def spoken(seconds: float) -> str:
    """A length of time as people say it: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
