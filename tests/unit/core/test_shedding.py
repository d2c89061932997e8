"""Who is answered how when there is too much to do."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import settings
from orchestrator.core.model import Rung
from orchestrator.core.shedding import Priority, admit

TABLE = settings.load(environment={}).admission.table
BULK, BEST_EFFORT, CRITICAL = Priority.BULK, Priority.BEST_EFFORT, Priority.CRITICAL


@pytest.mark.parametrize(
    ("priority", "cheap_share", "cheap_lag_s", "shed_lag_s"),
    [(BULK, 0.6, 0.010, 0.035), (BEST_EFFORT, 0.8, 0.020, 0.050), (CRITICAL, 1.0, 0.035, 0.070)],
)
def test_the_defaults_are_the_table_of_the_specification(priority, cheap_share, cheap_lag_s, shed_lag_s):
    above = 1.0001

    assert admit(TABLE, priority, 0.0, 0.0) is Rung.FULL
    assert admit(TABLE, priority, cheap_share, cheap_lag_s) is Rung.FULL, "exceeded, not reached"
    assert admit(TABLE, priority, cheap_share * above, 0.0) is Rung.STALE
    assert admit(TABLE, priority, 0.0, cheap_lag_s * above) is Rung.POPULAR
    assert admit(TABLE, priority, 9.0, shed_lag_s) is Rung.POPULAR
    assert admit(TABLE, priority, 0.0, shed_lag_s * above) is Rung.SHED


@given(st.floats(0, 5), st.floats(0, 0.2))
def test_who_matters_more_is_never_answered_worse(share, lag_s):
    rungs = [admit(TABLE, priority, share, lag_s) for priority in (CRITICAL, BEST_EFFORT, BULK)]

    assert rungs == sorted(rungs)


@given(st.sampled_from(Priority), st.floats(0, 100))
def test_however_much_is_in_flight_nobody_is_turned_away_while_the_loop_turns_in_time(priority, share):
    assert admit(TABLE, priority, share, 0.010) is not Rung.SHED


@given(st.sampled_from(Priority), st.lists(st.floats(0, 3), min_size=2), st.lists(st.floats(0, 0.2), min_size=2))
def test_more_load_never_gives_a_better_answer(priority, shares, lags):
    by_share = [admit(TABLE, priority, share, lags[0]) for share in sorted(shares)]
    by_lag = [admit(TABLE, priority, shares[0], lag_s) for lag_s in sorted(lags)]

    for rungs in (by_share, by_lag):
        assert all(before <= after for before, after in itertools.pairwise(rungs))
