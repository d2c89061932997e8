"""`tutti config check`: read settings and rules as the orchestrator would, and say what they came to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer

from orchestrator import settings as tree
from orchestrator.adapters.rules_file import RulesError, read
from orchestrator.bootstrap import NotReady, rulebook_of
from orchestrator.core.rules import Rule

app = typer.Typer(help="Look at the settings.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `check` a verb of its own, since more will join it."""


@app.command()
def check(
    config: Annotated[Path | None, typer.Option(help="File laid over the defaults; TUTTI_CONFIG when absent.")] = None,
) -> None:
    """
    Check defaults, file and environment as a whole, and the file of rules if one is named; print the effective tree.

    With a trained data directory rules are also held against the shop: items it does not have, features nobody reads.

    Example: tutti config check --config deploy/compose.toml
    """
    try:
        settings = tree.load(config)
    except tree.SettingsError as error:
        typer.secho(f"settings: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    try:
        rules = read(settings.rules.file) if settings.rules.file is not None else ()
        lines = list(_described(rules, settings, time.time()))
    except RulesError as error:
        typer.secho(f"rules: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    typer.echo(orjson.dumps(settings.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode())
    for line in lines:
        typer.echo(line, err=True)


def _described(rules: Sequence[Rule], settings: tree.Settings, now: float) -> Iterator[str]:
    """A line a rule, for people: what it does, whether it does so now, and to how many items."""
    book = None
    if rules:
        try:
            book = rulebook_of(rules, settings)
        except NotReady as error:
            yield f"rules are not held against the shop: {error}"
    for number, rule in enumerate(rules):
        reach = "" if book is None else f", {int(book.reaches[number].mask.sum())} items"
        yield f"rule {rule.name}: {rule.action.value}, {_state(rule, now)}{reach}"
        missing = [] if book is None else book.reaches[number].unknown
        if missing:
            yield f"  {len(missing)} items that this shop does not have: {', '.join(missing[:10])}"


def _state(rule: Rule, now: float) -> str:
    if now < rule.opens_at:
        return f"from {datetime.fromtimestamp(rule.opens_at, UTC):%Y-%m-%d %H:%M} UTC"
    return "in force" if now < rule.ends_at else "over"
