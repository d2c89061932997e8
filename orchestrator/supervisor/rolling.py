"""
A rolling restart: one process at a time, the next when the one before is ready and its clients have found it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from orchestrator.supervisor.errors import CannotRestart
from orchestrator.supervisor.plan import FAULT_PROXY, INGESTION, ORCHESTRATOR, REDIS
from orchestrator.supervisor.process import Child, State

SETTLE_S = 1.5
"""Derived: an orchestrator tries a lost replica again after 1 s at most, jittered by a fifth, and needs some ms to
connect (adapters/grpc_channel.py). Sooner, it could be without both of two."""

ONLY_BY_NAME = (REDIS, FAULT_PROXY)
"""Not part of "everything": there is one of each, so that nothing stands in for it meanwhile."""


def chosen(children: Sequence[Child], names: Sequence[str]) -> list[Child]:
    """
    The processes that *names* name, in the order in which they were started; all but `ONLY_BY_NAME` for none.

    A name stands for every replica, `name:1` for one.

    Raises:
        CannotRestart: a name that stands for none of *children*.
    """
    if not names:
        return [child for child in children if child.spec.name not in ONLY_BY_NAME]
    known = {child.spec.name for child in children} | {_key(child) for child in children}
    if unknown := [name for name in names if name not in known]:
        raise CannotRestart(
            f"there is no process {', '.join(unknown)}; there are {', '.join(sorted(map(_key, children)))}"
        )
    return [child for child in children if child.spec.name in names or _key(child) in names]


async def roll(
    children: Sequence[Child],
    names: Sequence[str],
    say: Callable[[str], None],
    grace_s: Callable[[str], float],
) -> int:
    """
    Restart what *names* name, one by one; the number of processes restarted.

    Args:
        children: every process that is watched.
        grace_s: name → seconds between SIGTERM and SIGKILL.

    Raises:
        CannotRestart: an unknown name, or the only other replicas that could serve meanwhile are not ready.
        ChildFailed: one did not come back. What follows it is left as it is.
    """
    targets = chosen(children, names)
    for child in targets:
        siblings = [other for other in children if other.spec.name == child.spec.name and other is not child]
        if down := [other.spec.label for other in siblings if other.state is not State.READY]:
            raise CannotRestart(
                f"{', '.join(down)} is not ready, so {child.spec.label} must stay; look at its log, then try again"
            )
        say(f"restarting {child.spec.label}")
        await child.restart(grace_s(child.spec.name))
        say(f"{child.spec.label} is ready again")
        if siblings and child.spec.name not in (ORCHESTRATOR, INGESTION) and child is not targets[-1]:
            await asyncio.sleep(SETTLE_S)
    return len(targets)


def _key(child: Child) -> str:
    return f"{child.spec.name}:{child.spec.replica}"
