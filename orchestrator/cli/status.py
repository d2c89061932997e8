"""
`tutti status`: the processes of a running system, for people and, as JSON, for scripts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli import what_helps
from orchestrator.cli.up import default_data
from orchestrator.supervisor.state import read_status

CHECKS_WITHIN_S = 1.0
"""Derived: twice what /readyz waits for its checks."""


def status(
    data: Annotated[Path | None, typer.Option(help="Data directory. Default: $TUTTI_HOME/shop.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: {processes: [{name, pid, …}]}.")] = False,
) -> None:
    """
    Show every process: name, pid, address, state (starting, ready, restarting, failed, stopping, stopped), replica.

    Orchestrators share the edge's port; the address shown is where one worker is reached alone. A fault proxy's entry
    in the JSON also names what is behind it (upstream) and where it is told what to do (control); a model service's and
    ingestion's, where Prometheus reads what they say of themselves (metrics).
    Nothing running is an empty list, not an error.

    Below the table stands what an orchestrator finds wrong with what it leans on: a Redis, for example, that would not
    keep events. Then, a line a model, whether it has anything to say and from how many events on it will.

    Example: tutti status --data .tutti/shop --json
    """
    data = data or default_data()
    found = read_status(data / "run") or {}
    processes = found.get("processes", [])
    if as_json:
        typer.echo(json.dumps({"processes": processes}))
        return
    if not processes:
        typer.echo(f"nothing runs in {data}; start it with: tutti up --data {data}")
        _say_what_helps(data)
        return
    table = Table("name", "state", "address", "pid", "replica", box=None)
    for process in processes:
        pid = "–" if process["pid"] is None else str(process["pid"])
        name = f"{process['name']} → {process['upstream']}" if "upstream" in process else process["name"]
        table.add_row(name, process["state"], process["address"], pid, str(process["replica"]))
    Console().print(table)
    typer.echo(f"edge: http://{found['edge']}/")
    for line in doubts(checks_of(str(found["edge"]))):
        typer.echo(line)
    _say_what_helps(data)


def _say_what_helps(data: Path) -> None:
    for line in what_helps.lines(data):
        typer.echo(line)


def doubts(checks: Mapping[str, str]) -> list[str]:
    """What an orchestrator says of its dependencies, but for those that are well."""
    return [f"not ok: {name}: {state}" for name, state in sorted(checks.items()) if state != "ok"]


def checks_of(edge: str) -> dict[str, str]:
    """What an orchestrator behind *edge*, `host:port`, says of its dependencies; nothing where it does not answer."""
    import httpx

    try:
        answer = httpx.get(f"http://{edge}/readyz", timeout=CHECKS_WITHIN_S)
        return dict(answer.json()["checks"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        # Starting, stopping or gone: the table says so.
        return {}
