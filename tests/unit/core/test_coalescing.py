"""When a batch may leave, and how many queries it carries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.coalescing import LONGEST_S, Lane, LanePolicy


def taught(took_s, queries=1, times=20, policy=None):
    """A lane whose batches of *queries* took *took_s* each, and the time it is."""
    lane, now = Lane(policy), 0.0
    for _ in range(times):
        ticket = lane.leave(now, queries)
        now += took_s
        lane.arrived(now, ticket, answered=True)
    return lane, now


def test_nobody_waits_while_nothing_is_in_flight():
    assert Lane().may_carry(0.0) > 0


def test_while_a_batch_is_on_time_the_next_one_gathers():
    lane, now = taught(0.004)
    lane.leave(now, 1)

    assert lane.may_carry(now + 0.003) == 0


def test_when_the_batch_in_flight_is_late_another_may_leave():
    lane, now = taught(0.004)
    lane.leave(now, 1)

    assert lane.may_carry(now + lane.late_after_s) > 0


def test_the_one_that_left_beside_a_late_one_holds_back_the_next_in_its_turn():
    lane, now = taught(0.004)
    lane.leave(now, 1)
    now += lane.late_after_s
    lane.leave(now, 1)

    assert lane.may_carry(now) == 0
    assert lane.may_carry(now + lane.late_after_s) > 0


def test_when_a_batch_has_arrived_the_next_one_leaves_at_once():
    lane, now = taught(0.004)
    ticket = lane.leave(now, 1)
    lane.arrived(now + 0.001, ticket, answered=True)

    assert lane.may_carry(now + 0.001) > 0


def test_a_batch_that_arrives_leaves_an_older_one_in_flight_that_is_late_and_holds_nobody_back():
    lane, now = taught(0.004)
    lane.leave(now, 1)
    now += lane.late_after_s
    ticket = lane.leave(now, 1)
    lane.arrived(now + 0.001, ticket, answered=True)

    assert lane.in_flight == 1
    assert lane.may_carry(now + 0.001) > 0


def test_steady_batches_are_late_soon_after_they_usually_arrive():
    lane, _ = taught(0.004, times=50)

    assert 0.004 <= lane.late_after_s < 0.005


def test_batches_that_vary_are_given_more_time():
    steady, _ = taught(0.004)
    lane, now = Lane(), 0.0
    for took_s in [0.002, 0.006] * 10:
        ticket = lane.leave(now, 1)
        now += took_s
        lane.arrived(now, ticket, answered=True)

    assert lane.late_after_s > steady.late_after_s


def test_a_service_that_hangs_does_not_make_hanging_usual():
    lane, now = taught(0.004)
    usual_s = lane.late_after_s
    for _ in range(20):
        ticket = lane.leave(now, 1)
        now += 0.036
        lane.arrived(now, ticket, answered=False)

    assert lane.late_after_s == usual_s


def test_however_slow_a_service_is_nobody_gathers_longer_than_a_third_of_the_cap():
    lane, now = taught(0.030, policy=LanePolicy.of_cap(0.036))
    lane.leave(now, 1)

    assert lane.late_after_s == pytest.approx(0.012)
    assert lane.may_carry(now + 0.012) > 0


def costing(own_s, each_s, sizes, policy=None):
    """A lane whose batches took *own_s* and *each_s* for every query, and the time it is."""
    lane, now = Lane(policy), 0.0
    for queries in sizes:
        ticket = lane.leave(now, queries)
        now += own_s + each_s * queries
        lane.arrived(now, ticket, answered=True)
    return lane, now


def test_a_batch_is_cut_so_that_it_takes_half_of_the_cap():
    lane, now = costing(0.003, 0.001, [1, 4, 2, 8, 3] * 5, LanePolicy.of_cap(0.0366))

    assert lane.may_carry(now) == 15


def test_however_long_a_call_may_take_batches_stay_short_enough_to_overlap():
    lane, now = costing(0.010, 0.002, [1, 4, 2, 8, 3] * 5, LanePolicy.of_cap(2.0))

    assert lane.may_carry(now) == pytest.approx((LONGEST_S - 0.010) / 0.002, abs=1)


def test_what_a_second_query_costs_is_found_out_by_carrying_two():
    lane, now = costing(0.007, 0.001, [1] * 20, LanePolicy.of_cap(0.036))

    assert lane.may_carry(now) == 2


def test_a_service_that_answers_one_by_one_is_given_two_however_slow_it_is():
    lane, now = taught(0.5, policy=LanePolicy.of_cap(0.036))

    assert lane.may_carry(now) == 2


def test_fast_services_carry_no_more_than_the_most():
    lane, now = taught(0.001, queries=20)

    assert lane.may_carry(now) == LanePolicy().most


@given(st.lists(st.tuples(st.sampled_from(["leave", "arrive", "lose"]), st.floats(0, 0.1), st.integers(1, 64))))
def test_whatever_happens_a_lane_opens_again_within_the_latest_moment(steps):
    policy = LanePolicy()
    lane, now, tickets = Lane(policy), 0.0, []
    for what, after_s, queries in steps:
        now += after_s
        if what == "leave":
            if lane.may_carry(now):
                tickets.append(lane.leave(now, queries))
        elif tickets:
            lane.arrived(now, tickets.pop(queries % len(tickets)), answered=what == "arrive")
        assert policy.soonest_s <= lane.late_after_s <= policy.latest_s
        assert lane.in_flight == len(tickets)
        assert lane.may_carry(now + policy.latest_s) >= 1
