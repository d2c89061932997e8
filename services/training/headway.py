"""
How far the stage in hand is: told from deep inside a fit, heard by whoever shows it, unknown to everything between.

The rule: it changes nothing. Nobody has to listen, what is told is never read back by who tells it, and time left is
what the stage itself has shown so far, or unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

Hears = Callable[[float], None]
"""Called with the share of the stage that is done, in [0, 1]."""

LEAST_SHARE, LEAST_S = 0.02, 2.0
"""Before so much is done, and so many seconds are spent, nothing is said of the time left. Judged: a first batch also
pays for imports and compilation, and would promise hours."""


@dataclass(frozen=True, slots=True)
class _Ear:
    hears: Hears
    start: float = 0.0
    end: float = 1.0

    def told(self, done: float, of: float) -> None:
        share = min(max(done / of, 0.0), 1.0) if of > 0 else 1.0
        self.hears(self.start + (self.end - self.start) * share)


_EAR: ContextVar[_Ear | None] = ContextVar("headway", default=None)


def told(done: float, of: float) -> None:
    """*done* parts of *of* are done, of the stage or of the `span` it is in."""
    if (ear := _EAR.get()) is not None:
        ear.told(done, of)


def teller() -> Callable[[float, float], None]:
    """`told` of here and now, for a thread that was begun here."""
    ear = _EAR.get()
    return ear.told if ear is not None else lambda done, of: None


@contextmanager
def span(start: float, end: float) -> Iterator[None]:
    """What is told inside counts from *start* to *end* of the stage (or of the span around), in [0, 1]."""
    ear = _EAR.get()
    if ear is None:
        yield
        return
    width = ear.end - ear.start
    token = _EAR.set(_Ear(ear.hears, ear.start + width * start, ear.start + width * end))
    try:
        yield
    finally:
        _EAR.reset(token)
    told(end, 1.0)


@contextmanager
def heard_by(hears: Hears) -> Iterator[None]:
    """Who hears what is told inside."""
    token = _EAR.set(_Ear(hears))
    try:
        yield
    finally:
        _EAR.reset(token)


@dataclass(frozen=True, slots=True)
class Headway:
    """
    One stage as it stands.

    share  done, in [0, 1]; spent_s since it began
    """

    what: str
    share: float
    spent_s: float

    @property
    def left_s(self) -> float | None:
        """Seconds to go at the pace so far; None while there is no pace to speak of."""
        if self.share < LEAST_SHARE or self.spent_s < LEAST_S:
            return None
        return self.spent_s * (1 - self.share) / self.share

    def __str__(self) -> str:
        left = "time left unknown" if self.left_s is None else f"{spoken(self.left_s)} left"
        return f"{self.what}: {self.share:.0%}, {left}"


def spoken(seconds: float) -> str:
    """A length of time as people say it: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
