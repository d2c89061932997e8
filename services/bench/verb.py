"""
`tutti bench`: what a request costs, beside the arithmetic in it. Found through the entry-point group `tutti.commands`.

Heavy libraries are imported by what needs them: `tutti --help` imports this file. Exit codes: 0 measured, 1 not, with
one clear sentence, 2 wrong usage.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from services.bench.options import CONCURRENCY, KINDS, BenchUnusable, Options, concurrency_of, kinds_of

_BEGAN = time.monotonic()


def bench(
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Data directory, trained. Default: one of 50,000 items, made once."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.2, help="Each cell of the table is measured for this long.")] = 5.0,
    concurrency: Annotated[str, typer.Option(help="Requests in flight, each a row.")] = ",".join(map(str, CONCURRENCY)),
    kinds: Annotated[str, typer.Option(help="What is asked.")] = ",".join(KINDS),
    coalescing_comparison: Annotated[
        bool, typer.Option("--coalescing-comparison/--no-coalescing-comparison", help="On and off, in turns.")
    ] = True,
    knee: Annotated[bool, typer.Option("--knee/--no-knee", help="Find the rate at which it breaks.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Same shoppers, same order, same arrivals.")] = 7,
    growth: Annotated[
        bool, typer.Option("--growth", help="Cost curves of larger shops instead; --out is then a folder.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write every figure there.")] = None,
) -> None:
    """
    Measure a request: how many a second, how late, and CPU by process beside the bare arithmetic of the same request.

    Starts a system of its own on free ports, on a copy of the data directory, and ends it. What the figures mean and
    how to read them: docs/performance.md. Measure on a quiet machine; ratios within one run are what holds elsewhere.

    Examples: tutti bench --data .tutti/shop --out bench.json

    tutti bench --kinds uncached --concurrency 1,64 --seconds 10 --no-knee

    tutti bench --growth --seconds 1 --out results/
    """
    # Like Ctrl-C: everything that was started is ended in order.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        options = Options(
            data, seconds, concurrency_of(concurrency), kinds_of(kinds), coalescing_comparison, knee, seed
        )
        report, document = _grown(options, out) if growth else _measured(options)
    except KeyboardInterrupt:
        _say("stopped; nothing of it is left")
        raise typer.Exit(130) from None
    except (BenchUnusable, RuntimeError, OSError) as error:
        typer.secho(f"bench: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    typer.echo(report)
    if out is not None:
        file = out / "growth.json" if growth else out
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        _say(f"every figure: {file}")


def _measured(options: Options) -> tuple[str, dict[str, object]]:
    from services.bench import run, table

    results = run.measure(_shop(options), options, _say)
    return table.text(results), results.to_json(options)


def _grown(options: Options, out: Path | None) -> tuple[str, dict[str, object]]:
    from services.bench.growth import report, run

    found = run.measure(_shop(options), options.seconds, _say, seed=options.seed)
    for path in report.draw(found, out) if out is not None else ():
        _say(f"drawn: {path}")
    return report.text(found), found.to_json()


def _shop(options: Options) -> Path:
    from services.bench import shop

    return shop.checked(options.data if options.data is not None else shop.made(shop.default_shop(), _say))


def _say(what: str) -> None:
    print(f"{time.monotonic() - _BEGAN:5.0f} s  {what}", file=sys.stderr, flush=True)  # noqa: T201  # progress, beside the report


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
