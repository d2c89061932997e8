"""One deadline a request: what a stage may use of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import settings
from orchestrator.core.deadline import MIN_USEFUL_S, Deadline

GRACE_S = 0.004

moments = st.floats(0, 1e6)
lengths = st.floats(0, 10)


def test_the_reply_keeps_its_share_of_the_budget():
    deadline = Deadline.after(now=5.0, budget_s=0.1, reply_reserve_s=0.008)

    assert deadline.at == pytest.approx(5.092)
    assert deadline.remaining(5.0) == pytest.approx(0.092)


def test_a_deadline_that_has_passed_leaves_nothing_rather_than_less():
    assert Deadline(1.0).remaining(3.0) == 0.0
    assert Deadline(1.0).timeout(3.0, cap_s=0.04, reserve_after_s=0.0) is None


def test_with_time_to_spare_a_stage_gets_its_cap_less_the_grace():
    assert Deadline(10.0).timeout(0.0, cap_s=0.04, reserve_after_s=0.04, grace_s=GRACE_S) == pytest.approx(
        0.04 - GRACE_S
    )


def test_when_time_is_short_later_stages_keep_their_reserve():
    assert Deadline(0.07).timeout(0.0, cap_s=0.04, reserve_after_s=0.04, grace_s=GRACE_S) == pytest.approx(
        0.03 - GRACE_S
    )


def test_a_call_that_could_only_make_load_is_not_started():
    just_enough = GRACE_S + MIN_USEFUL_S

    assert Deadline(just_enough + 0.001).timeout(0.0, 0.04, 0.0, GRACE_S) is not None
    assert Deadline(just_enough - 0.001).timeout(0.0, 0.04, 0.0, GRACE_S) is None


# Once: a cap of 8 ms less 4 ms grace was below the 5 ms that make a call useful, and the cache was never asked.
@pytest.mark.parametrize("stage", ["cache", "user", "retrieve", "rerank"])
def test_by_default_every_stage_of_an_unhurried_request_may_make_its_call(stage):
    tree = settings.load(environment={})
    deadline = Deadline.after(0.0, tree.budget.total_ms / 1000, tree.budget.reply_ms / 1000)
    chosen = getattr(tree.stages, stage)

    timeout_s = deadline.timeout(0.0, chosen.cap_ms / 1000, chosen.reserve_after_ms / 1000, chosen.grace_ms / 1000)

    assert timeout_s is not None
    assert timeout_s > 0


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_a_lowered_budget_lowers_what_later_stages_keep_back(share):
    deadline = Deadline.after(0.0, 0.1 * share, 0.008, usual_s=0.1)

    assert deadline.at == pytest.approx(0.092 * share)
    assert deadline.timeout(0.0, cap_s=1.0, reserve_after_s=0.07) == pytest.approx(0.022 * share)


def test_a_cap_that_the_grace_eats_whole_never_makes_a_call():
    assert Deadline(10.0).timeout(0.0, cap_s=GRACE_S, reserve_after_s=0.0, grace_s=GRACE_S) is None


# case 3: deadline_overshoot_grace (what the grace is worth on real calls: docs/results)
# case 4: deadline_shrinks_only
@given(now=moments, left=st.floats(-1, 1), cap_s=lengths, reserve_s=lengths)
def test_a_slice_never_exceeds_its_cap_nor_what_is_left_before_the_reserve(now, left, cap_s, reserve_s):
    deadline = Deadline(now + left)

    timeout_s = deadline.timeout(now, cap_s, reserve_s, GRACE_S)

    if timeout_s is not None:
        tiny = 1e-9
        assert 0 < timeout_s <= cap_s - GRACE_S + tiny
        assert timeout_s + GRACE_S + reserve_s <= deadline.remaining(now) + tiny


# case 4: deadline_shrinks_only
@given(at=moments, earlier=moments, later=moments)
def test_what_is_left_only_shrinks(at, earlier, later):
    earlier, later = sorted((earlier, later))

    assert 0 <= Deadline(at).remaining(later) <= Deadline(at).remaining(earlier)


@given(caps=st.lists(st.tuples(st.floats(0, 0.05), st.floats(0, 0.09)), max_size=6), spent=st.floats(0, 1))
def test_stages_one_after_the_other_that_all_use_up_their_slice_end_before_the_deadline(caps, spent):
    deadline, now = Deadline.after(0.0, 0.1, 0.008), 0.0

    for cap_s, reserve_s in caps:
        timeout_s = deadline.timeout(now, cap_s, reserve_s, GRACE_S)
        now += 0 if timeout_s is None else (timeout_s + GRACE_S) * spent

    assert now <= deadline.at + 1e-9
