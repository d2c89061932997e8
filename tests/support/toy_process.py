"""
The toy model of `model_server` as a process of its own, for what only another process can do: stop, die, answer while
our event loop stands still. `async with toy_process(delay_s=0.01) as toy: toy.address, toy.pid`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL

from tests.support.model_server import Toy, serving

START_WITHIN_S = 30
"""Imports of grpc and numpy on a busy machine."""


@dataclass(frozen=True, slots=True)
class ToyProcess:
    address: str
    pid: int


@asynccontextmanager
async def toy_process(delay_s: float = 0.0) -> AsyncIterator[ToyProcess]:
    """A running one; killed at the end, whatever was done to it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.toy_process", str(delay_s), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(START_WITHIN_S):
            address = (await process.stdout.readline()).decode().strip()
        yield ToyProcess(address, process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, SIGCONT)
            os.kill(process.pid, SIGKILL)
        await process.wait()


class Delayed(Toy):
    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self.delay_s = delay_s

    async def _enter(self, request, context) -> None:
        await asyncio.sleep(self.delay_s)
        await super()._enter(request, context)


async def _serve(delay_s: float) -> None:
    async with serving(Delayed(delay_s)) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("delay_s", type=float)
    asyncio.run(_serve(parser.parse_args().delay_s))
