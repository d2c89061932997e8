"""When a request arrived: reading a proxy's stamp, and how far its clock is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.arrival import CUT_SHARE, PERIOD_S, SkewGuard, has_run_out, queue_delay, stamped_at

NOW = 1_700_000_000.5
SLA_S = 0.1


@pytest.mark.parametrize(
    "header",
    [
        "t=1700000000.440",  # nginx: "t=${msec}"
        "1700000000.440",
        "1700000000440",  # Heroku
        "t=1700000000440",
        "t=1700000000440000",  # Apache: "t=%t"
        "1700000000440000.0",
        " t=1700000000.440 ",
    ],
)
# case 11: queue_time_counted
def test_the_stamp_of_every_usual_proxy_is_read(header):
    assert stamped_at(header) == pytest.approx(1_700_000_000.440, abs=1e-5)
    assert queue_delay(header, NOW, SLA_S) == pytest.approx(0.060, abs=1e-5)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=",
        "now",
        "t=-1",
        "1e9",
        "nan",
        "inf",
        "t=1,5",
        "1700000000440000000",
        "1" * 21,
        "٣",
        "1700000000.440\n\n x",
    ],
)
def test_what_is_no_moment_says_nothing(header):
    assert stamped_at(header) is None
    assert queue_delay(header, NOW, SLA_S) is None


def test_a_request_without_a_stamp_says_nothing_of_its_wait():
    assert queue_delay(None, NOW, SLA_S) is None


@pytest.mark.parametrize(
    ("at", "delay_s"),
    [(NOW, 0.0), (NOW - 0.0625, 0.0625), (NOW - 0.125, None), (NOW + 0.001, None), (NOW - 3600, None), (0, None)],
)
# case 11: queue_time_counted
def test_a_stamp_from_the_future_or_from_before_the_budget_is_ignored(at, delay_s):
    assert queue_delay(f"{at:.4f}", NOW, SLA_S) == delay_s


@given(st.text(max_size=30) | st.floats(-1e18, 1e18).map(str), st.floats(0, 2e9))
def test_a_believed_delay_always_lies_within_the_budget(header, wall):
    delay_s = queue_delay(header, wall, SLA_S)

    assert delay_s is None or 0 <= delay_s <= SLA_S


@pytest.mark.parametrize(("queued_s", "out"), [(0.0, False), (0.089, False), (0.091, True), (0.1, True), (0.2, True)])
def test_time_has_run_out_when_less_than_a_tenth_of_the_budget_is_left(queued_s, out):
    assert has_run_out(0.1, queued_s) is out


# case 12: clock_skew_guard
def test_when_every_request_looks_expired_one_in_five_is_cut():
    guard = SkewGuard()

    cut = [guard.may_cut(i / 100, looks_expired=True) for i in range(5000)]

    assert sum(cut) == 1000
    assert repr(guard) == "<SkewGuard 200 of 1000 cut, 20% may be>"


def test_requests_in_time_are_never_cut():
    guard = SkewGuard()

    assert not any(guard.may_cut(i / 100, looks_expired=False) for i in range(5000))


def test_a_few_that_waited_too_long_among_many_are_all_cut():
    guard = SkewGuard()

    cut = [guard.may_cut(i / 100, looks_expired=i % 10 == 9) for i in range(5000)]

    assert sum(cut) == 500


def test_what_happened_longer_ago_than_the_period_does_not_count():
    guard = SkewGuard()
    for i in range(1000):
        guard.may_cut(i / 1000, looks_expired=False)

    assert [guard.may_cut(1 + PERIOD_S, looks_expired=True) for _ in range(5)] == [False] * 4 + [True]


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=300))
# case 12: clock_skew_guard
def test_at_every_cut_at_most_a_fifth_of_the_periods_requests_were_cut(steps):
    guard, now = SkewGuard(), 0.0
    seen: list[tuple[float, bool]] = []

    for pause_s, looks_expired in steps:
        now += pause_s
        cut = guard.may_cut(now, looks_expired=looks_expired)
        seen.append((now, cut))
        assert looks_expired or not cut
        if cut:
            # The guard counts in tenths of the period: what it still knows is at least nine of them old.
            known = [was_cut for at, was_cut in seen if at // 1.0 > now // 1.0 - PERIOD_S]
            assert sum(known) <= CUT_SHARE * len(known)
    assert sum(cut for _, cut in seen) <= CUT_SHARE * len(seen)
