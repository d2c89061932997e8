"""Calls of the last ten seconds, counted in buckets."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.window import BUCKETS, SPAN_S, Counts, Window

WIDTH_S = SPAN_S / BUCKETS

calls = st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=60)


def test_it_counts_calls_failures_and_slow_ones():
    window = Window()

    window.add(0.0)
    window.add(0.1, failed=True)
    window.add(0.2, slow=True)
    window.add(0.3, failed=True, slow=True)

    assert window.counts(0.3) == Counts(4, 2, 2)


# case 25: window_rollover
def test_what_is_older_than_the_window_is_forgotten():
    window = Window()
    for _ in range(50):
        window.add(0.5, failed=True)

    assert window.counts(9.9) == Counts(50, 50, 0)
    assert window.counts(10.0) == Counts(0, 0, 0)


def test_an_hour_of_silence_costs_no_more_than_a_second():
    window = Window()
    window.add(1.0, failed=True)

    window.add(3_601.0)

    assert window.counts(3_601.0) == Counts(1, 0, 0)


def test_a_moment_before_the_newest_bucket_counts_into_that_one():
    window = Window()
    window.add(5.0)

    window.add(4.0)

    assert window.counts(14.9).calls == 2


def test_cleared_it_holds_nothing():
    window = Window()
    window.add(5.0, failed=True, slow=True)

    window.clear()

    assert window.counts(5.0) == Counts(0, 0, 0)


@given(calls)
def test_it_holds_what_a_list_of_all_calls_would(gaps):
    window, seen, now = Window(), [], 0.0

    for gap_s, failed, slow in gaps:
        now += gap_s
        window.add(now, failed=failed, slow=slow)
        seen.append((int(now / WIDTH_S), failed, slow))
        newest = int(now / WIDTH_S)
        inside = [call for call in seen if call[0] > newest - BUCKETS]
        assert window.counts(now) == Counts(len(inside), sum(c[1] for c in inside), sum(c[2] for c in inside))
