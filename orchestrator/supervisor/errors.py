"""
What can keep a system from running. Each message is one sentence that says what to do.

    SupervisorError
    ├── AlreadyRunning   another supervisor holds the data directory
    ├── PortTaken        the edge's port is in use
    ├── NoRedis          no server to start, or one that is too old
    ├── CannotProxy      faults are wanted before a Redis that no TCP proxy can stand before
    ├── CannotRestart    there is no such process, or nothing would serve meanwhile; everything goes on
    ├── ChildFailed      one process ended, or was not ready in time; `lines` are its last
    └── StartFailed      the system did not come up; everything is stopped again; `lines` as above
"""

from __future__ import annotations

from collections.abc import Sequence


class SupervisorError(Exception):
    """Nothing runs; see the tree above. *lines* are the last lines of the process at fault, if there is one."""

    def __init__(self, sentence: str, lines: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.lines = tuple(lines)


class AlreadyRunning(SupervisorError):
    """Another supervisor holds the data directory."""


class PortTaken(SupervisorError):
    """The edge's port is in use."""


class NoRedis(SupervisorError):
    """There is no server to start, and none was given; or the one given is too old."""


class CannotProxy(SupervisorError):
    """Faults are wanted before a Redis that no TCP proxy can stand before."""


class CannotRestart(SupervisorError):
    """There is no such process, or nothing would serve meanwhile; everything goes on."""


class ChildFailed(SupervisorError):
    """One process ended, or was not ready in time."""


class StartFailed(SupervisorError):
    """The system did not come up; everything is stopped again."""
