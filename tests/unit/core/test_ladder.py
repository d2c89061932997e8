"""The ladder's controller: quick down, slow up, never twice within the dwell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.ladder import DWELL_S, GOOD_SECONDS, Health, Ladder, wanted
from orchestrator.core.model import Rung

WELL = Health()
BUSY = Health(limiter_share=0.81)
SLOW = Health(rerank_p95_share=0.81)
OPEN = Health(rerank_open=True)


@pytest.mark.parametrize(
    ("health", "rung"),
    [
        (WELL, Rung.FULL),
        (Health(limiter_share=0.8, lag_s=0.010, rerank_p95_share=0.8, features_missing=0.5), Rung.FULL),
        (BUSY, Rung.LEAN),
        (Health(lag_s=0.011), Rung.LEAN),
        (SLOW, Rung.NARROW),
        (Health(features_missing=0.51), Rung.NARROW),
        (Health(limiter_share=0.9, rerank_p95_share=0.9), Rung.NARROW),
        (OPEN, Rung.NO_RERANK),
        (Health(0.9, 0.9, 0.9, 0.9, True), Rung.NO_RERANK),
    ],
)
def test_what_each_ailment_asks_for(health, rung):
    assert wanted(health) is rung


def watched(ladder, seconds, start=0):
    return [ladder.observe(start + i, health) for i, health in enumerate(seconds)]


def test_one_bad_second_is_one_rung_down_at_once():
    ladder = Ladder()

    assert watched(ladder, [WELL, BUSY]) == [Rung.FULL, Rung.LEAN]
    assert ladder.rung is Rung.LEAN


def test_a_great_ailment_is_met_one_rung_at_a_time_the_dwell_apart():
    assert watched(Ladder(), [OPEN] * 12) == [Rung.LEAN] * 5 + [Rung.NARROW] * 5 + [Rung.NO_RERANK] * 2


def test_ten_good_seconds_in_a_row_are_one_rung_up():
    ladder = Ladder()

    assert watched(ladder, [BUSY] + [WELL] * 10) == [Rung.LEAN] * 10 + [Rung.FULL]


def test_every_rung_up_takes_its_own_ten_seconds():
    ladder = Ladder()
    watched(ladder, [SLOW] * 6)

    rungs = watched(ladder, [WELL] * 20, start=6)

    assert rungs == [Rung.NARROW] * 9 + [Rung.LEAN] * 10 + [Rung.FULL]


@pytest.mark.parametrize("between", [BUSY, SLOW])
def test_a_second_that_is_not_good_starts_the_count_anew(between):
    ladder = Ladder()

    # LEAN is what BUSY asks for: neither good nor bad. SLOW asks for more and has to wait for the dwell.
    rungs = watched(ladder, [BUSY] + [WELL] * 3 + [between] + [WELL] * 9)

    assert rungs == [Rung.LEAN] * 14


def test_a_bad_second_within_the_dwell_is_heard_when_it_lasts():
    ladder = Ladder()

    assert watched(ladder, [SLOW] * 6) == [Rung.LEAN] * 5 + [Rung.NARROW]


def test_the_controller_says_where_it_stands():
    ladder = Ladder()
    watched(ladder, [BUSY, WELL, WELL])

    assert repr(ladder) == "<Ladder lean, 2 good and 0 bad seconds>"


healths = st.builds(
    Health,
    limiter_share=st.floats(0, 2),
    lag_s=st.floats(0, 0.1),
    rerank_p95_share=st.floats(0, 2),
    features_missing=st.floats(0, 1),
    rerank_open=st.booleans(),
)


@given(st.lists(st.tuples(st.floats(0.001, 3), healths), max_size=200))
def test_it_moves_one_rung_at_a_time_never_within_the_dwell_and_up_only_after_good_seconds(seconds):
    ladder, now, rung = Ladder(), 0.0, Rung.FULL
    changed_at, wants = -DWELL_S, []

    for pause_s, health in seconds:
        now += pause_s
        wants.append(wanted(health))
        found = ladder.observe(now, health)
        assert abs(found - rung) <= 1
        if found != rung:
            assert now - changed_at >= DWELL_S
            if found > rung:
                assert wants[-1] >= found
            else:
                assert len(wants) >= GOOD_SECONDS
                assert all(want < rung for want in wants[-GOOD_SECONDS:])
            changed_at, rung = now, found


@given(st.lists(healths, max_size=60), healths)
def test_it_settles_where_health_wants_it(before, last):
    ladder = Ladder()

    watched(ladder, before + [last] * 40, start=0)

    assert ladder.rung is wanted(last)
