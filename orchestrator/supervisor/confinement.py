"""
A process that starts beside running ones keeps to one core until it is ready.

Starting means importing for seconds of CPU. On two cores a restart beside a running system made its p99 rise from 80 to
150 ms (fault matrix, rows 11 and 14): the newcomer and its library threads took both. Only Linux has this; elsewhere a
start is as it was. Affinity and not niceness: an unprivileged process cannot take its niceness back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def confine(pid: int) -> None:
    """Keep *pid*, which has only just been started, and all threads it will make to the last of our cores."""
    with suppress(AttributeError, OSError):
        cores = os.sched_getaffinity(0)
        if len(cores) > 1:
            os.sched_setaffinity(pid, {max(cores)})


def release(pid: int) -> None:
    """Let every thread of *pid* run on all of our cores; one that has ended meanwhile needs nothing."""
    with suppress(AttributeError, OSError):
        cores = os.sched_getaffinity(0)
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                os.sched_setaffinity(int(thread.name), cores)
