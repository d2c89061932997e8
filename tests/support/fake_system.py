"""
The supervisor with a real Redis and fakes for all else.

    python -m tests.support.fake_system DIR PORT [--fail NAME] [--replicas N] [--workers N] [--faults]
"""

import argparse
import asyncio
import dataclasses
import sys
from pathlib import Path

from orchestrator import settings as tree
from orchestrator.supervisor.console import Console
from orchestrator.supervisor.errors import SupervisorError
from orchestrator.supervisor.plan import Plan, Probe, Shape, make_plan
from orchestrator.supervisor.supervisor import Supervisor

FAKE = (sys.executable, "-m", "tests.support.fake_service")


def planner(fail: str | None):
    def plan(*arguments, **named) -> Plan:
        real = make_plan(*arguments, **named)

        def fake(spec):
            match spec.probe:
                case Probe.TCP:
                    where = (spec.control,)
                case Probe.HTTP:
                    where = (spec.address, "--fd", str(spec.inherits[0]))
                case _:
                    where = (spec.address,)
            extra = ("--fail", "the model has no items") if spec.name == fail else ()
            return dataclasses.replace(spec, command=(*FAKE, spec.probe.value, *where, *extra))

        return dataclasses.replace(
            real,
            seed=(*FAKE, "once", *(("--fail", "no features") if fail == "seed" else ())),
            models=tuple(map(fake, real.models)),
            ingestion=fake(real.ingestion),
            proxies=tuple(map(fake, real.proxies)),
            orchestrators=tuple(map(fake, real.orchestrators)),
        )

    return plan


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("port")
    parser.add_argument("--fail")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--faults", action="store_true")
    given = parser.parse_args()
    settings = tree.load(environment={"TUTTI_EDGE__PORT": given.port})
    console = Console()
    shape = Shape(given.replicas, given.workers, given.faults)
    try:
        asyncio.run(Supervisor(settings, given.data, None, console, shape, planner(given.fail)).run())
    except SupervisorError as error:
        print(f"{error}\n{error.lines}", file=sys.stderr)
        return 1
    finally:
        console.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
