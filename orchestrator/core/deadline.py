"""
One absolute deadline a request, and what a stage may use of it.

Absolute and monotonic inside, relative only on the wire; it may only shrink. Formula and values:
resilience specification §1.1 (docs/adr/0004-one-absolute-deadline.md).
"""

from __future__ import annotations

from dataclasses import dataclass

GRACE_S = 0.004
"""gRPC deadlines fire late: p90 3.5–4.4 ms measured on loopback (grpcio 1.85.1); subtracted from every call."""

MIN_USEFUL_S = 0.005
"""No call is started with less: a healthy one takes 1–5 ms on loopback, so a shorter one only makes load."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment (monotonic seconds) by which the answer must be ready to be written."""

    at: float

    @classmethod
    def after(cls, now: float, budget_s: float, reply_reserve_s: float) -> Deadline:
        """*budget_s* from *now*, less what writing the reply takes."""
        return cls(now + budget_s - reply_reserve_s)

    def remaining(self, now: float) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at - now)

    def timeout(self, now: float, cap_s: float, reserve_after_s: float) -> float | None:
        """
        Seconds a call may take: its cap, or less when later stages need their reserve.

        Returns:
            None when what is left is not worth a call; the stage is then lost to NO_BUDGET.
        """
        allowed = min(cap_s, self.remaining(now) - reserve_after_s) - GRACE_S
        return allowed if allowed >= MIN_USEFUL_S else None
