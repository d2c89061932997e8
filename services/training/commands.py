"""
The offline verbs of `tutti`: data, train, evaluate. Found through the entry-point group `tutti.commands`.

Heavy libraries are imported by the verb that needs them: `tutti --help` imports this file. Exit codes: 0 done, 1 failed
with one clear sentence, 2 wrong usage, 3 trained and published, but refused by the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from services.training.speaking import REFUSED, DataDirectory, default_data, explained, stderr, stdout, steps

data = typer.Typer(
    help="Make or bring data. Example: tutti data synth --out .tutti/shop", no_args_is_help=True, name="data"
)


class Split(StrEnum):
    """Windows of the protocol; see services/training/split.py."""

    validation = "validation"
    test = "test"


class Device(StrEnum):
    """Where factors and networks are trained; see services/training/device.py."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Against(StrEnum):
    """What an evaluation can be compared with, beside its own methods."""

    champion = "champion"


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

    with explained(), Bar(console=stderr) as bar:
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
    stdout.print(f"{out}: {info['events']:,} events, {info['items']:,} items, {info['users']:,} shoppers")


def train(
    data: DataDirectory = None,  # type: ignore[assignment]  # typer
    seed: Seed = 7,
    force: Force = False,
    force_promote: Annotated[
        bool, typer.Option("--force-promote", help="Serve what was trained whatever the gate says.")
    ] = False,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="Learn also from what was served, and compare its features with Feast.")
    ] = False,
    device: Annotated[
        Device, typer.Option("--device", help="Where to train: auto is a GPU where torch sees one, else the processor.")
    ] = Device.auto,
) -> None:
    """
    Train every source of the settings, the re-ranker and the popular list, and promote them if the gate admits them.

    Does nothing when the same data was trained with the same sources and seed before. Exit code 3: trained and
    published, but not promoted; the reasons are printed, and what served before still serves.

    With --from-log the re-ranker is also taught what it served, once there is enough of it (docs/attribution.md).

    Example: tutti train --data .tutti/shop
    """
    place = data or default_data()
    with explained(), steps() as step:
        from services.training import pipeline, sources

        done = pipeline.train(
            place,
            sources.configured(),
            seed,
            force,
            progress=step,
            promote_anyway=force_promote,
            with_log=from_log,
            on=device.value,
        )
    if not done.was_needed:
        stdout.print(f"{place}: nothing has changed since the last training; --force trains anyway")
        return
    table = Table("model", "version", "figures", title=f"{place}: trained in {done.report['seconds']['total']:.0f} s")
    for name, version in done.versions.items():
        figures = ", ".join(f"{k} {v:.4g}" for k, v in done.report["metrics"][name].items())
        table.add_row(name, version, figures)
    stdout.print(table)
    if done.report.get("log") is not None:
        _say_of_the_log(place, done.report["log"])
    for note in done.report["gate"]["notes"]:
        stdout.print(f"gate: {note}", highlight=False, markup=False, soft_wrap=True)
    for reason in done.report["gate"]["reasons"]:
        stderr.print(f"gate: {reason['check']}: {reason['message']}", highlight=False, markup=False, soft_wrap=True)
    if not done.was_promoted:
        stderr.print(
            "[red]refused:[/red] published, not promoted; what served before still serves. `tutti models promote` or "
            "--force-promote overrules the gate",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(REFUSED)


def _say_of_the_log(place: Path, said: Mapping[str, Any]) -> None:
    """What the slate log gave, and which features it disagrees with Feast about."""
    taught = f"{said['lists']} lists of {said['slates']} slates"
    if not said["is_taught"]:
        taught += ": too few to learn from"
    stdout.print(f"log: {taught}", highlight=False)
    for placement, one in said["examination"].items():
        chances = ", ".join(f"{chance:.2f}" for chance in one["chances"][:10])
        stdout.print(f"log: placement {placement} is looked at ({one['how']}): {chances}", highlight=False)
    skewed = ", ".join(said["skewed"]) or "none"
    stdout.print(
        f"log: features that differ from Feast: {skewed}; all of them in {place / 'skew.json'}", soft_wrap=True
    )


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
    young: Annotated[
        int | None,
        typer.Option("--young", min=1, metavar="N", help="As if the shop had opened with its last N events before."),
    ] = None,
    against: Annotated[
        Against | None,
        typer.Option("--against", help="Also compare with the champion, query by query; exit code 3 if it is better."),
    ] = None,
    force: Force = False,
) -> None:
    """
    Train on the past of a window and judge what the serving pipeline would have shown in it, against simple methods.

    Example: tutti evaluate --data .tutti/shop --split test --seeds 7,8,9
    """
    place = data or default_data()
    with explained(), steps() as step:
        from services.training import redaction, sources
        from services.training.evaluation import run, tables

        redaction.honour(place)
        plan = run.Plan(split.value, _numbers(seeds) or (seed,), _words(diversity), shoppers, young, force=force)
        result = run.evaluate(place, sources.configured(), plan, progress=step)
    if stdout.is_terminal:
        for one in tables.main_tables(result.report):
            table = Table(*one.columns, title=one.title)
            for row in one.rows:
                table.add_row(*row)
            stdout.print(table)
        for line in tables.left_out(result.report):
            stdout.print(f"left out: {line}", highlight=False, soft_wrap=True)
    else:
        # In a file or a pipe: Markdown, whole, as the documents hold it.
        stdout.print(tables.report_markdown(result.report), highlight=False, markup=False, soft_wrap=True)
    stdout.print(f"written to {result.path}, and as a page beside it", highlight=False, soft_wrap=True)
    if against is not None:
        with explained():
            _compared(place, str(result.report["recipe"]), seed)


def _compared(place: Path, recipe: str, seed: int) -> None:
    """Say what the recipe just judged gains on the champion's; ends with code 3 where it is worse beyond noise."""
    from services.training import admission, gate, pipeline

    last = admission.read(place / "models" / pipeline.REPORT_FILE)
    verdict = gate.decide(admission.against_champion(place, recipe, last, seed))
    for line in verdict.lines():
        stdout.print(line, highlight=False, markup=False, soft_wrap=True)
    if not verdict.admits:
        raise typer.Exit(REFUSED)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def _numbers(text: str | None) -> tuple[int, ...]:
    if not all(word.isdecimal() for word in _words(text)):
        raise ValueError(f"--seeds {text!r}: expected numbers with commas between them, as in 7,8,9")
    return tuple(int(word) for word in _words(text))


def _mount_import() -> None:
    from services.training.importers import command

    help_text = getattr(command, "HELP", None)
    data.command("import", help=help_text)(command.import_)


_mount_import()
