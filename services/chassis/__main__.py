"""
`python -m services.chassis NAME --data DIR --address HOST:PORT`: serve one trained model.

Example:
    python -m services.chassis collaborative_filtering --data .tutti/shop --address 127.0.0.1:50051
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from protos import artefacts
from services.chassis import server
from services.chassis.faults import Faults
from services.chassis.health import CannotListen
from services.chassis.model import Resources
from services.chassis.telemetry import start_logging

EXAMPLE = "example: python -m services.chassis content_based --data .tutti/shop --address 127.0.0.1:50052"


def main() -> int:
    """Exit code 0 after a drain, 1 when the model cannot be served, 2 for wrong usage."""
    arguments = _arguments()
    log = start_logging(arguments.name)
    resources = Resources(data=arguments.data, redis_url=arguments.redis)
    began_at = time.monotonic()
    try:
        loaded = server.load(arguments.name, resources, arguments.alias)
        log.info("loaded", version=loaded.model.version, load_ms=round((time.monotonic() - began_at) * 1000, 1))
        faults = Faults.from_environment(os.environ, arguments.name, arguments.replica, log)
        _run(server.serve(loaded, arguments.address, log, metrics_port=arguments.metrics_port, faults=faults))
    except (artefacts.ArtefactError, server.NotAService, CannotListen) as error:
        log.error("cannot serve", reason=str(error))
        print(f"{arguments.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.chassis", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("name", help="a folder of services/, for example collaborative_filtering")
    parser.add_argument("--data", type=Path, required=True, help="data directory with models/ inside")
    parser.add_argument("--address", required=True, help="host:port to listen on; port 0 takes a free one")
    parser.add_argument("--redis", help="URL of the online store, for models that read features")
    parser.add_argument("--alias", default=artefacts.CHAMPION, help="alias or version to serve (default: champion)")
    parser.add_argument("--replica", type=int, default=0, help="which of several replicas this is (default: 0)")
    parser.add_argument("--metrics-port", type=int, default=0, help="port of /metrics; 0 for none (default)")
    return parser.parse_args()


def _run(main_coroutine: object) -> None:
    """Run on uvloop where it exists (it carries gRPC's callbacks cheaper), on asyncio elsewhere."""
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main_coroutine)  # type: ignore[arg-type]  # a coroutine; Runner is generic over its result


if __name__ == "__main__":
    sys.exit(main())
