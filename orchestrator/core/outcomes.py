"""
What the end of a call says about the dependency: one table from loss to verdict, sample and whether to try again.

Source: resilience specification §1.2, outcome table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from orchestrator.core.model import Loss


class Verdict(Enum):
    """What the breaker is told."""

    SUCCESS = "success"
    SLOW_SUCCESS = "slow_success"
    FAILURE = "failure"
    SLOW_FAILURE = "slow_failure"
    IGNORE = "ignore"


class Sample(Enum):
    """What the limiter is told: the time it took, a drop, or nothing."""

    RTT = "rtt"
    DROP = "drop"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The three answers to one outcome."""

    verdict: Verdict
    sample: Sample
    may_retry: bool = False


_FAILED = Judgement(Verdict.FAILURE, Sample.NONE)
_OUR_MISTAKE = Judgement(Verdict.SUCCESS, Sample.NONE)
_NOT_ASKED = Judgement(Verdict.IGNORE, Sample.NONE)
_ANSWERED = Judgement(Verdict.SUCCESS, Sample.RTT)
_ANSWERED_SLOWLY = Judgement(Verdict.SLOW_SUCCESS, Sample.RTT)
_TIMED_OUT = Judgement(Verdict.SLOW_FAILURE, Sample.DROP)

OF_LOSS: dict[Loss, Judgement] = {
    Loss.DEADLINE: _TIMED_OUT,
    Loss.UNAVAILABLE: Judgement(Verdict.FAILURE, Sample.NONE, may_retry=True),
    Loss.ERROR: _FAILED,
    Loss.INVALID_REPLY: _FAILED,
    Loss.UNCLASSIFIED: _FAILED,
    # A fast failure: kept out of the times, but it says "too much".
    Loss.OVERLOADED: Judgement(Verdict.FAILURE, Sample.DROP),
    Loss.SKEW: _OUR_MISTAKE,
    Loss.REFUSED: _OUR_MISTAKE,
    # Hystrix: what was not asked must not feed the health of who was not asked.
    Loss.BREAKER_OPEN: _NOT_ASKED,
    Loss.SHED: _NOT_ASKED,
    Loss.NO_BUDGET: _NOT_ASKED,
}
"""Every loss; a DEADLINE with less than a fair time is not its fault, see `judge`."""


def judge(loss: Loss | None, *, took_s: float, timeout_s: float, slow_s: float, fair_s: float) -> Judgement:
    """
    What one outcome means.

    Args:
        loss: None for an answer.
        slow_s: an answer that took longer is slow.
        fair_s: a timeout shorter than this says nothing about the dependency.
    """
    if loss is None:
        return _ANSWERED_SLOWLY if took_s > slow_s else _ANSWERED
    if loss is Loss.DEADLINE and timeout_s < fair_s:
        return _NOT_ASKED
    return OF_LOSS[loss]
