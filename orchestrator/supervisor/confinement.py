"""
A process that starts beside running ones steps back until it is ready: one core, and a low priority where allowed.

Starting means importing for seconds of CPU. On two cores a restart beside a running system made its p99 rise from 80 to
150 ms (fault matrix, rows 11 and 14): the newcomer and its library threads took both. Only Linux has this; elsewhere a
start is as it was. Niceness only where it can be taken back, which needs a privilege.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

NICER_BY = 10
"""Judged: a tenth of the weight of a running process (110 of 1,024), so that a start beside full load still ends."""

CAP_SYS_NICE = 23
"""Bit of capabilities(7)."""


def confine(pid: int) -> None:
    """Let *pid*, which has only just been started, and all threads it will make step back."""
    with suppress(AttributeError, OSError):
        cores = os.sched_getaffinity(0)
        if len(cores) > 1:
            os.sched_setaffinity(pid, {max(cores)})
            if can_take_niceness_back():
                os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + NICER_BY)


def release(pid: int) -> None:
    """Let every thread of *pid* run on all of our cores, as we do; one that has ended meanwhile needs nothing."""
    with suppress(AttributeError, OSError):
        cores, niceness = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                os.sched_setaffinity(int(thread.name), cores)
                # On Linux niceness belongs to a thread.
                if os.getpriority(os.PRIO_PROCESS, int(thread.name)) > niceness:
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), niceness)


def can_take_niceness_back() -> bool:
    """Whether this process may lower a niceness: by capability, or because its limit allows it."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        effective = int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)
        if effective >> CAP_SYS_NICE & 1:
            return True
        # RLIMIT_NICE counts from 20 downwards: 20 allows niceness 0 (getrlimit(2)).
        return 20 - resource.getrlimit(resource.RLIMIT_NICE)[0] <= os.getpriority(os.PRIO_PROCESS, 0)
    return False
