"""
The system under test, a process of its own: what `tutti up` starts, with one orchestrator for each variant of settings.

    python -m services.bench.orchestra --data DIR --variants FILE      until SIGINT, or until its input ends

Redis, seed, models and ingestion are started once and asked by every variant in turn, so that two variants differ in
nothing but their settings and can be measured in alternation. The supervisor is the real one: the same command lines,
the same log files, the same order, the same end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import settings as tree
from orchestrator.supervisor.console import Console
from orchestrator.supervisor.errors import SupervisorError
from orchestrator.supervisor.plan import HOST, ORCHESTRATOR, Plan, Probe, ProcessSpec, make_plan, settings_file
from orchestrator.supervisor.ports import free_ports
from orchestrator.supervisor.supervisor import Supervisor
from services.bench.variants import Variant


def planner(variants: Sequence[Variant], ports: Sequence[int]) -> Callable[..., Plan]:
    """`make_plan` with an orchestrator for each of *variants* at one of *ports*, in place of the workers."""

    def plan(settings: tree.Settings, data: Path, free: Iterator[int], **others: Any) -> Plan:
        made = make_plan(settings, data, free, **others)
        python = made.orchestrators[0].command[0]
        orchestrators = tuple(
            ProcessSpec(
                ORCHESTRATOR,
                (python, "-m", "orchestrator", "--config", str(settings_file(data))),
                f"{HOST}:{port}",
                Probe.HTTP,
                {**variant.environment, "TUTTI_EDGE__HOST": HOST, "TUTTI_EDGE__PORT": str(port)},
                replica,
            )
            for replica, (variant, port) in enumerate(zip(variants, ports, strict=True))
        )
        return replace(made, orchestrators=orchestrators)

    return plan


def main() -> int:
    """0 after a clean end, 1 with one sentence when it did not come up."""
    parser = argparse.ArgumentParser(prog="python -m services.bench.orchestra", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--variants", type=Path, required=True, help="JSON: [[name, environment], …]")
    arguments = parser.parse_args()
    variants = [Variant(*entry) for entry in json.loads(arguments.variants.read_text(encoding="utf-8"))]
    try:
        settings = tree.load(data=arguments.data)
        # Nobody is to find it: the variants listen elsewhere, and the shop's own port may be taken by the shop.
        edge = settings.edge.model_copy(update={"host": HOST, "port": 0})
        settings = settings.model_copy(update={"edge": edge})
        console = Console(sys.stderr, show_children=False)
        supervisor = Supervisor(
            settings, arguments.data, None, console, planner=planner(variants, free_ports(len(variants)))
        )
        threading.Thread(target=_end_with_whoever_started_us, daemon=True).start()
        asyncio.run(supervisor.run())
    except (SupervisorError, tree.SettingsError) as error:
        for line in getattr(error, "lines", ()):
            print(f"    {line}", file=sys.stderr)  # noqa: T201  # a command's answer
        print(str(error), file=sys.stderr)  # noqa: T201
        return 1
    console.close()
    return 0


def _end_with_whoever_started_us() -> None:
    """Standard input is the other end of a pipe that the system closes however the bench ends."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    raise SystemExit(main())
