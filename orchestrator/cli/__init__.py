"""
The `tutti` command: one file a verb.

Verbs of the offline way (data, train, evaluate) are found through the entry-point group `tutti.commands`, so
that nothing here imports it. Exit codes: 0 done, 1 failed with one clear sentence, 2 wrong usage.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

from orchestrator.cli import config, demo, doctor, down, items, recommend, restart, status, up

OFFLINE = "tutti.commands"


def build() -> typer.Typer:
    """The whole command, with every verb that is installed."""
    app = typer.Typer(
        name="tutti",
        help="A recommendation orchestrator for storefronts. Start with: tutti demo",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    for verb in (
        demo.demo,
        up.up,
        down.down,
        restart.restart,
        status.status,
        recommend.recommend,
        doctor.doctor,
    ):
        app.command()(verb)
    app.add_typer(config.app, name="config")
    app.add_typer(items.app, name="items")
    for entry in sorted(entry_points(group=OFFLINE), key=lambda found: found.name):
        verb = entry.load()
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=entry.name)
        else:
            app.command(name=entry.name)(verb)
    return app


def main() -> None:
    """Entry point of the `tutti` script."""
    build()()
