"""The outcome table of the resilience specification, row by row."""

import pytest

from orchestrator.core.model import Loss
from orchestrator.core.outcomes import OF_LOSS, Judgement, Sample, Verdict, judge

SLOW_S, FAIR_S = 0.032, 0.02


def judged(loss, took_s=0.001, timeout_s=0.036):
    return judge(loss, took_s=took_s, timeout_s=timeout_s, slow_s=SLOW_S, fair_s=FAIR_S)


@pytest.mark.parametrize(
    ("loss", "took_s", "timeout_s", "verdict", "sample", "may_retry"),
    [
        (None, 0.010, 0.036, Verdict.SUCCESS, Sample.RTT, False),
        (None, 0.032, 0.036, Verdict.SUCCESS, Sample.RTT, False),
        (None, 0.033, 0.036, Verdict.SLOW_SUCCESS, Sample.RTT, False),
        (Loss.UNAVAILABLE, 0.001, 0.036, Verdict.FAILURE, Sample.NONE, True),
        (Loss.ERROR, 0.001, 0.036, Verdict.FAILURE, Sample.NONE, False),
        (Loss.INVALID_REPLY, 0.001, 0.036, Verdict.FAILURE, Sample.NONE, False),
        (Loss.UNCLASSIFIED, 0.001, 0.036, Verdict.FAILURE, Sample.NONE, False),
        (Loss.DEADLINE, 0.036, 0.036, Verdict.SLOW_FAILURE, Sample.DROP, False),
        (Loss.DEADLINE, 0.020, 0.020, Verdict.SLOW_FAILURE, Sample.DROP, False),
        (Loss.DEADLINE, 0.019, 0.019, Verdict.IGNORE, Sample.NONE, False),
        (Loss.OVERLOADED, 0.001, 0.036, Verdict.FAILURE, Sample.DROP, False),
        (Loss.SKEW, 0.001, 0.036, Verdict.SUCCESS, Sample.NONE, False),
        (Loss.REFUSED, 0.001, 0.036, Verdict.SUCCESS, Sample.NONE, False),
        (Loss.BREAKER_OPEN, 0.0, 0.036, Verdict.IGNORE, Sample.NONE, False),
        (Loss.SHED, 0.0, 0.036, Verdict.IGNORE, Sample.NONE, False),
        (Loss.NO_BUDGET, 0.0, 0.036, Verdict.IGNORE, Sample.NONE, False),
    ],
)
def test_an_outcome_means_what_the_table_says(loss, took_s, timeout_s, verdict, sample, may_retry):
    assert judged(loss, took_s, timeout_s) == Judgement(verdict, sample, may_retry)


def test_every_loss_has_its_row():
    assert set(OF_LOSS) == set(Loss)
