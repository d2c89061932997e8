"""Who is answered how when there is too much to do."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import settings
from orchestrator.core.lag import Lag
from orchestrator.core.model import Rung
from orchestrator.core.shedding import CROWD, Priority, Turns, admit

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


# At ten times the knee a turn took 0.4 s: 500 calls, admitted one after the other by the lag of the turn before.
def test_who_waits_behind_a_crowd_in_one_turn_is_decided_about_by_how_long_that_turn_has_taken():
    turns, per_call_s = Turns(), 0.0005

    decided = [
        admit(TABLE, CRITICAL, 0.0, turns.late_s(Lag(overdue_s=max(0.0, n * per_call_s - 0.01)))) for n in range(400)
    ]

    assert [decided.count(rung) for rung in (Rung.FULL, Rung.POPULAR, Rung.SHED)] == [91, 70, 239]
    assert decided == sorted(decided), "nobody who came later is answered better"


def test_a_process_that_was_stopped_answers_the_few_who_waited():
    turns = Turns()

    assert {turns.late_s(Lag(overdue_s=0.150)) for _ in range(CROWD)} == {0.0}


def test_a_new_turn_begins_with_nobody():
    turns = Turns()
    for _ in range(CROWD + 1):
        turns.late_s(Lag(overdue_s=0.1, beats=1))

    assert turns.late_s(Lag(overdue_s=0.1, beats=1)) == 0.1
    assert turns.late_s(Lag(overdue_s=0.1, beats=2)) == 0.0


def test_a_loop_that_is_late_on_the_whole_needs_no_crowd():
    assert Turns().late_s(Lag(smoothed_s=0.06, overdue_s=0.01)) == 0.06
