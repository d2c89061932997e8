"""How much is too much."""

import pytest

from services.bench.figures import Round
from services.bench.knee import Step, is_over, knee, rates, step_of


def steps(*shares):
    return [Step(rate=100.0 * (i + 1), sent=1000, full=1000 * share) for i, share in enumerate(shares)]


def test_the_knee_is_the_last_rate_that_was_followed():
    assert knee(steps(1, 1, 0.995, 0.9, 0.5)) == 300


def test_one_bad_step_may_be_the_machines_two_are_the_systems():
    assert knee(steps(1, 0.9, 1, 0.9, 0.9, 1)) == 300
    assert [is_over(steps(*shares)) for shares in ((1, 0.9), (0.9, 0.9), (0.9,))] == [False, True, False]


def test_a_system_that_follows_nothing_has_no_knee():
    assert knee(steps(0.5, 0.2)) is None
    assert knee([]) is None


def test_what_was_not_answered_was_sent_all_the_same():
    measured = Round(1.0, [1000] * 90, {"unanswered": 8, "503": 2}, {"full": 270})

    step = step_of(90.0, measured)

    assert (step.sent, step.full) == (100, 90)
    assert not step.is_followed


def test_popular_slates_do_not_count_as_followed():
    assert not step_of(1.0, Round(1.0, [1000] * 100, {}, {"full": 90, "popular": 10})).is_followed


def test_rates_rise_through_what_a_closed_loop_got():
    tried = list(rates(1000))

    assert tried == sorted(tried)
    assert tried[0] == pytest.approx(400)
    assert tried[-1] == pytest.approx(1500)
