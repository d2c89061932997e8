"""
The supervisor with a real Redis and fakes for all else: `python -m tests.support.fake_system DIR PORT [--fail NAME]`.
"""

import asyncio
import dataclasses
import sys
from pathlib import Path

from orchestrator import settings as tree
from orchestrator.supervisor.console import Console
from orchestrator.supervisor.errors import SupervisorError
from orchestrator.supervisor.plan import Plan, make_plan
from orchestrator.supervisor.supervisor import Supervisor

FAKE = (sys.executable, "-m", "tests.support.fake_service")


def planner(fail: str | None):
    def plan(*arguments, **named) -> Plan:
        real = make_plan(*arguments, **named)

        def fake(spec):
            extra = ("--fail", "the model has no items") if spec.name == fail else ()
            return dataclasses.replace(spec, command=(*FAKE, spec.probe.value, spec.address, *extra))

        return dataclasses.replace(
            real,
            seed=(*FAKE, "once", *(("--fail", "no features") if fail == "seed" else ())),
            models=tuple(map(fake, real.models)),
            ingestion=fake(real.ingestion),
            orchestrator=fake(real.orchestrator),
        )

    return plan


def main(data: str, port: str, fail: str | None = None) -> int:
    settings = tree.load(environment={"TUTTI_EDGE__PORT": port})
    console = Console()
    try:
        asyncio.run(Supervisor(settings, Path(data), None, console, planner(fail)).run())
    except SupervisorError as error:
        print(f"{error}\n{error.lines}", file=sys.stderr)
        return 1
    finally:
        console.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
