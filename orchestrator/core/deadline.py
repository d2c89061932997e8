"""
One absolute deadline a request, and what a stage may use of it.

Absolute and monotonic inside, relative only on the wire; it may only shrink. Formula and values:
resilience specification §1.1 (docs/adr/0004-one-absolute-deadline.md).
"""

from __future__ import annotations

from orchestrator.core.values import value

MIN_USEFUL_S = 0.002
"""No call is started with less: a gRPC timer has a granularity of 1 ms and a healthy call takes 0.5 ms or more, so
a shorter one only makes load. Derived from the resilience specification's measurements of grpcio 1.85.1."""


@value
class Deadline:
    """
    The moment (monotonic seconds) by which the answer must be ready to be written.

    share  of the usual budget this request has, in (0, 1]; the reserves of later stages shrink with it
    """

    at: float
    share: float = 1.0

    @classmethod
    def after(cls, now: float, budget_s: float, reply_reserve_s: float, usual_s: float | None = None) -> Deadline:
        """*budget_s* from *now*, less what writing the reply takes; *usual_s* is the budget of a normal request."""
        share = min(1.0, budget_s / usual_s) if usual_s else 1.0
        return cls(now + budget_s - reply_reserve_s * share, share)

    def remaining(self, now: float) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at - now)

    def timeout(self, now: float, cap_s: float, reserve_after_s: float, grace_s: float = 0.0) -> float | None:
        """
        Seconds a call may take: its cap, or less when later stages need their reserve; *grace_s* of it is kept back
        since its timer fires late.

        Returns:
            None when what is left is not worth a call; the stage is then lost to NO_BUDGET.
        """
        allowed = min(cap_s, self.remaining(now) - reserve_after_s * self.share) - grace_s
        return allowed if allowed >= MIN_USEFUL_S else None
