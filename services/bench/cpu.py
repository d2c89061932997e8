"""
CPU seconds of processes, before and after.

On Linux from the kernel's own clock of a process, which counts nanoseconds; /proc/PID/stat counts hundredths of a
second, which at 150 requests is .07 ms a request and process. The rule: a process that ends meanwhile makes the round
void, since its seconds are lost.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import psutil

_SCHEDULED = 2
"""CPUCLOCK_SCHED of the kernel (posix-timers.h): time on a core, user and system."""


class ProcessGone(RuntimeError):
    """A process that was measured has ended; the message names it."""


def seconds(pid: int) -> float:
    """
    CPU seconds of all threads of *pid*, those that have ended included.

    Raises:
        ProcessGone: there is no such process.
    """
    if sys.platform == "linux":
        try:
            # MAKE_PROCESS_CPUCLOCK of the kernel: what clock_getcpuclockid(3) computes.
            return time.clock_gettime((~pid << 3) | _SCHEDULED)
        except OSError as error:
            raise ProcessGone(f"process {pid} is gone") from error
    try:
        spent = psutil.Process(pid).cpu_times()
    except psutil.Error as error:
        raise ProcessGone(f"process {pid} is gone") from error
    return float(spent.user + spent.system)


def snapshot(processes: Mapping[str, int]) -> dict[str, float]:
    """
    Name → CPU seconds so far.

    Raises:
        ProcessGone: naming the first that has ended.
    """
    found = {}
    for name, pid in processes.items():
        try:
            found[name] = seconds(pid)
        except ProcessGone as error:
            raise ProcessGone(f"{name} (process {pid}) ended while it was measured; its log says why") from error
    return found


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Name → CPU seconds from one snapshot to the other."""
    return {name: after[name] - before[name] for name in before}
