"""
What is asked of the kernel: signals, control groups (v1), packet filters. Thin, and nothing here remembers anything.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
QUOTA_PERIOD_US = 100_000


def drop_rules(addresses: Iterable[str], share: float) -> list[tuple[str, ...]]:
    """Rules, without their verb, that drop *share* of the packets to and from each `host:port`."""
    chance = () if share >= 1 else ("-m", "statistic", "--mode", "random", "--probability", f"{share:g}")
    return [
        ("INPUT", "-i", "lo", "-p", "tcp", side, address.rpartition(":")[2], *chance, "-j", "DROP")
        for address in addresses
        for side in ("--dport", "--sport")
    ]


def in_own_network() -> bool:
    """
    Whether the network this process sees is nobody else's: its only link is the loopback.

    Comparing its namespace with the first process's would be more direct, but is refused in some containers.
    """
    return {name for _, name in socket.if_nameindex()} == {"lo"}


def iptables(verb: str, rule: Sequence[str]) -> None:
    done = subprocess.run(["iptables", verb, *rule], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"iptables {verb} {' '.join(rule)}: {done.stderr.strip()}")


def send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def home_group(controller: str) -> str:
    """The control group this process itself is in."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return "/"


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")
