"""
Ends every child of a supervisor that was killed before it could do so itself.

Runs as a process of its own, in its own session, and waits for the end of its standard input: the supervisor
holds the other end, and the system closes it however the supervisor dies. Children are known in two ways: by their
process groups, which the supervisor writes down at every change (the last line holds), and by a token in their
environment, which finds a child started in the supervisor's last moment. The token alone is not enough:
Redis writes its title over its environment. Imports nothing of ours.

    python reaper.py TOKEN < pipe
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

TOKEN_VARIABLE = "TUTTI_RUN"  # noqa: S105 – a name that marks our children, no secret
ALL_IS_WELL = "stopped"
"""The last line of a supervisor that has stopped everything itself."""

GRACE_S = 5.0
"""Judged: half of what an orderly stop may take; nobody is waiting for this one."""

POLL_S = 0.1


def main(token: str) -> None:
    """Wait for the supervisor's end; then ask, and after `GRACE_S` force, what it left behind to end."""
    last = ""
    for line in sys.stdin:
        last = line.strip() if line.endswith("\n") else last
    if last == ALL_IS_WELL:
        return
    groups = {int(word) for word in last.split()}
    forced_at = time.monotonic() + GRACE_S
    asked: set[int] = set()
    # Until two looks in a row find nothing: the first may fall between a fork and its exec.
    empty_looks = 0
    while empty_looks < 2:
        left = list(_left_behind(token, groups))
        empty_looks = 0 if left else empty_looks + 1
        for process in left:
            _end(process, force=time.monotonic() >= forced_at, asked=asked)
        time.sleep(POLL_S)


def _left_behind(token: str, groups: set[int]) -> Iterator[psutil.Process]:
    import psutil

    for process in psutil.process_iter():
        try:
            is_ours = os.getpgid(process.pid) in groups or process.environ().get(TOKEN_VARIABLE) == token
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):  # gone meanwhile, or somebody else's: not ours either way
            continue


def _end(process: psutil.Process, *, force: bool, asked: set[int]) -> None:
    import psutil

    try:
        if force:
            process.kill()
        elif process.pid not in asked:
            asked.add(process.pid)
            process.terminate()
    except psutil.Error:  # gone meanwhile
        return


if __name__ == "__main__":
    main(sys.argv[1])
