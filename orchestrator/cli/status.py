"""
`tutti status`: the processes of a running system, for people and, as JSON, for scripts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli.up import default_data
from orchestrator.supervisor.state import read_status


def status(
    data: Annotated[Path | None, typer.Option(help="Data directory. Default: $TUTTI_HOME/shop.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: {processes: [{name, pid, …}]}.")] = False,
) -> None:
    """
    Show every process: name, pid, address, state (starting, ready, restarting, failed, stopping, stopped), replica.

    Orchestrators share the edge's port; the address shown is where one worker is reached alone. A fault proxy's entry
    in the JSON also names what is behind it (upstream) and where it is told what to do (control).
    Nothing running is an empty list, not an error.

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
        return
    table = Table("name", "state", "address", "pid", "replica", box=None)
    for process in processes:
        pid = "–" if process["pid"] is None else str(process["pid"])
        name = f"{process['name']} → {process['upstream']}" if "upstream" in process else process["name"]
        table.add_row(name, process["state"], process["address"], pid, str(process["replica"]))
    Console().print(table)
    typer.echo(f"edge: http://{found['edge']}/")
