"""
What a fault does, as values: one class a kind of step. `injection` does and undoes them.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from orchestrator.doctor.toxics import Toxic


@dataclass(frozen=True, slots=True)
class Target:
    """Which processes: every replica of *names*, or only the *replica*-th."""

    names: tuple[str, ...]
    replica: int | None = None

    def __str__(self) -> str:
        which = "" if self.replica is None else f" (replica {self.replica})"
        return "+".join(self.names) + which


@dataclass(frozen=True, slots=True)
class Signal:
    """Send *number* to every process of *target*; STOP is undone by CONT, an end by the supervisor."""

    target: Target
    number: signal.Signals


@dataclass(frozen=True, slots=True)
class Poison:
    """Set *toxics* on the fault proxies in front of *target*."""

    target: Target
    toxics: tuple[Toxic, ...]


@dataclass(frozen=True, slots=True)
class Tell:
    """Send *command* to the system's own Redis, and *undo* afterwards."""

    command: tuple[str | int, ...]
    undo: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Configure:
    """CONFIG SET *key* to *value* in the system's own Redis; undone with what it was before."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class ForgetSlates:
    """Every cached slate is gone: what a flush does to the cache, without touching histories and features."""


@dataclass(frozen=True, slots=True)
class Misbehave:
    """What the model services are to do by themselves: (service or service:replica) → a document of the fault file."""

    wishes: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]


@dataclass(frozen=True, slots=True)
class Freeze:
    """The whole process group at once, by the control group freezer (v1)."""

    target: Target


@dataclass(frozen=True, slots=True)
class Starve:
    """A share of one core, by CFS quota (v1)."""

    target: Target
    share: float


@dataclass(frozen=True, slots=True)
class FewFiles:
    """Every process of *target* may have *most* open files; those that are open stay open."""

    target: Target
    most: int


@dataclass(frozen=True, slots=True)
class Drop:
    """
    A share of the packets to and from *target* is dropped by iptables: a route that went away, a bad cable.

    Only in a network namespace of our own, so that no rule can hurt the machine.
    """

    target: Target
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Again:
    """Do *step* again and again, each time *every_s* after the last; *undo_after_s* later it is undone each time."""

    step: Step
    every_s: float
    undo_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class InTurn:
    """
    One process of *target* after the other gets *number*; each must be ready again, and have been for a moment, before
    the next one's turn.
    """

    target: Target
    number: signal.Signals


Step = (
    Signal | Poison | Tell | Configure | ForgetSlates | Misbehave | Freeze | Starve | FewFiles | Drop | Again | InTurn
)
