"""
What a fault is, and what it needs of the machine and of the system that it is made in. The faults themselves:
`catalogue`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from orchestrator.doctor.checker import Expect
from orchestrator.doctor.kernel import CGROUP, in_own_network
from orchestrator.doctor.steps import Step
from orchestrator.doctor.system import System
from orchestrator.supervisor.plan import ORCHESTRATOR


class Need(Enum):
    """What a fault needs of machine and system; the value says what is missing when it is."""

    REPLICAS = "two replicas of every model service (tutti up --replicas 2)"
    WORKERS = "two orchestrators (tutti up --workers 2)"
    PROXIES = "fault proxies (tutti up --faults)"
    OWN_REDIS = "a Redis that tutti started itself (unset REDIS_URL)"
    FREEZER = "root and a mounted cgroup v1 freezer"
    OWN_NETWORK = "a network namespace of its own with iptables in it (python -m loadtests.faults --netns, as root)"
    CPU_QUOTA = "root and a mounted cgroup v1 cpu controller"


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One fault.

    Args:
        name: as on the command line.
        row: of the fault matrix.
        says: what happens, for people.
        steps: in order; undone in reverse.
        lasts_s: the fault is over by itself after so long; None: it lasts as long as the drill wants.
        quick: part of `tutti doctor --quick`.
        by_doctor: safe on anybody's data directory. The others are for the matrix, which works on a copy.
        least_answers: it lasts until so many were asked for at least, where few could not tell what is promised from
            what is not: of 150 answers one or two lost something by chance where 4 in a thousand do.
        impatient: clients ask again three times, each after 100 ms.
    """

    name: str
    row: int
    says: str
    steps: tuple[Step, ...]
    expect: Expect
    needs: frozenset[Need] = frozenset()
    lasts_s: float | None = None
    quick: bool = False
    by_doctor: bool = True
    least_answers: int = 0
    impatient: bool = False

    def seconds(self, usual_s: float, rate: float) -> float:
        """How long it lasts at *rate* requests a second in a drill whose faults last *usual_s*."""
        return max(usual_s, self.least_answers / rate) if self.lasts_s is None else self.lasts_s


def missing(needs: frozenset[Need], system: System) -> list[Need]:
    """Which of *needs* are not met."""
    return [need for need in sorted(needs, key=lambda n: n.value) if not _MET[need](system)]


def _can_write(controller: str) -> Callable[[System], bool]:
    def check(_: System) -> bool:
        folder = CGROUP / controller
        return os.geteuid() == 0 and (folder / "cgroup.procs").is_file() and os.access(folder, os.W_OK)

    return check


_MET: dict[Need, Callable[[System], bool]] = {
    Need.REPLICAS: lambda system: all(len(system.of(name)) > 1 for name in system.names.models),
    Need.WORKERS: lambda system: len(system.of(ORCHESTRATOR)) > 1,
    Need.PROXIES: lambda system: bool(system.proxies_of(system.names.reranker)),
    Need.OWN_REDIS: lambda system: system.has_own_redis(),
    Need.FREEZER: _can_write("freezer"),
    Need.OWN_NETWORK: lambda _: in_own_network() and shutil.which("iptables") is not None,
    Need.CPU_QUOTA: _can_write("cpu"),
}
