"""The matrix's rows, what fits into ten minutes, and the pure parts of overload, nemesis and soak."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from loadtests.faults.nemesis import GAP_S, MOST_AT_ONCE, breakable, judge_play, schedule, touches
from loadtests.faults.overload import judge_storm, recovered_after
from loadtests.faults.rows import ROWS, parse_rows, within
from loadtests.faults.soak import slope
from loadtests.faults.specials import SPECIALS
from orchestrator.doctor.catalogue import catalogue
from orchestrator.doctor.checker import Expect, Phases
from orchestrator.doctor.faults import Fault
from orchestrator.doctor.history import Seen
from orchestrator.doctor.system import Names

FAULTS = catalogue(Names(("collaborative_filtering", "content_based"), "reranking"))


def an_answer(at, ms=10.0, degraded=(), **fields):
    fields = {"status": 200, "level": "full", "n_items": 12, "asked": 12, **fields}
    return Seen(at, at, at + ms / 1000, "home_fresh", degraded=tuple(degraded), **fields)


def test_all_44_rows_are_there_and_each_has_faults_a_special_way_or_a_reason():
    by_row = {fault.row for fault in FAULTS}

    assert [row.number for row in ROWS] == list(range(1, 45))
    for row in ROWS:
        ways = [row.number in by_row, bool(row.special), bool(row.cannot)]
        assert sum(ways) == 1, row
    assert {row.special for row in ROWS if row.special} == set(SPECIALS)


def test_rows_are_given_as_numbers_and_ranges():
    assert parse_rows("1,9-11, 2,1") == [1, 9, 10, 11, 2]
    for wrong in ("x", "1-", "0", "45"):
        with pytest.raises(ValueError, match="row"):
            parse_rows(wrong)


def test_into_few_minutes_go_the_worst_faults_first_then_one_of_each_row():
    n_quick = sum(fault.quick for fault in FAULTS)

    few, rest = within(FAULTS, 20.0, 20.0 * n_quick)
    more, _ = within(FAULTS, 20.0, 20.0 * len(FAULTS) / 2)

    assert all(fault.quick for fault in few)
    assert len(few) + len(rest) == len(FAULTS)
    assert len({fault.row for fault in more}) > len({fault.row for fault in few})
    assert within(FAULTS, 20.0, 1e9) == (list(FAULTS), [])


def test_a_nemesis_is_replayed_by_its_seed():
    assert schedule(FAULTS, 600, 7) == schedule(FAULTS, 600, 7) != schedule(FAULTS, 600, 8)


@pytest.mark.parametrize("seed", range(20))
def test_a_nemesis_ends_what_it_began_and_never_has_two_faults_on_one_thing(seed):
    by_name = {fault.name: fault for fault in FAULTS}
    living = set()

    acts = schedule(FAULTS, 600, seed)

    for act in acts:
        if not act.begins:
            living.remove(act.fault)
            continue
        assert not touches(by_name[act.fault]) & {thing for name in living for thing in touches(by_name[name])}
        if by_name[act.fault].lasts_s is None:
            living.add(act.fault)
        assert len(living) <= MOST_AT_ONCE
    assert living == set()
    gaps = [b.at_s - a.at_s for a, b in pairwise(acts) if b.at_s < 600]
    assert max(gaps) <= GAP_S[1] * 2
    assert len({act.fault for act in acts}) > 20


def test_whatever_is_named_must_have_been_broken_then_or_shortly_before():
    fault = Fault("cf-hangs", 3, "", (), Expect(lost=frozenset({"cf"})))
    lives = {"cf-hangs": [(10.0, 20.0)]}

    assert breakable(an_answer(15), lives, {"cf-hangs": fault}) == {"cf"}
    assert breakable(an_answer(24), lives, {"cf-hangs": fault}) == {"cf"}
    assert breakable(an_answer(26), lives, {"cf-hangs": fault}) == frozenset()
    assert breakable(an_answer(9), lives, {"cf-hangs": fault}) == frozenset()


def a_play(seen):
    fault = Fault("cf-hangs", 3, "", (), Expect(lost=frozenset({"cf"})))
    phases = Phases(0, 0, 0, 50, 50, 60)
    played = judge_play(seen, phases, {"cf-hangs": [(10.0, 20.0)]}, {"cf-hangs": fault}, [])
    return [claim.name for claim in played.claims if not claim.holds]


def test_a_play_is_judged_by_what_must_hold_whatever_was_broken():
    good = [an_answer(i / 10, 10, ["cf"] if 10 <= i / 10 < 20 else []) for i in range(600)]

    assert a_play(good) == []
    assert a_play([*good, an_answer(30, status=500)]) == ["every answer 200"]
    assert a_play([*good, an_answer(30, broken=("I7: 0 items",))]) == ["invariants"]
    assert a_play([replace(one, degraded=("cb",)) if 30 <= one.scheduled_at < 40 else one for one in good]) == [
        "only what was broken is named"
    ]
    assert a_play([replace(one, done_at=one.scheduled_at + 0.2) for one in good]) == ["p99 ≤ 100 ms"]
    assert a_play([replace(one, degraded=("cf",)) if one.scheduled_at > 59 else one for one in good]) == [
        "healthy in the end"
    ]


def a_storm(good_share, shed_politely=True, after_ms=10.0, order=("critical", "best_effort", "bulk")):
    """200 requests a second for 10 s; of each priority its share is answered in time, the rest shed."""
    rng = random.Random(1)
    during = []
    for i in range(2000):
        priority = order[i % 3]
        if rng.random() < good_share[priority]:
            during.append(an_answer(i / 200, priority=priority))
        else:
            during.append(an_answer(i / 200, priority=priority, status=503, retry_after=shed_politely))
    after = [an_answer(10 + i / 10, after_ms if i < 30 else 10.0) for i in range(150)]
    return judge_storm(2.0, 100.0, 10.0, during, after, 10.0)


def failed(storm):
    return [claim.name for claim in storm.claims if not claim.holds]


def test_a_storm_holds_when_goodput_stays_the_important_come_first_and_it_passes():
    storm = a_storm({"critical": 0.9, "best_effort": 0.5, "bulk": 0.2})

    assert storm.holds
    assert storm.goodput == pytest.approx(107, abs=5)
    assert storm.recovery_s == 0.0


def test_goodput_that_collapses_is_noticed():
    assert failed(a_storm({"critical": 0.3, "best_effort": 0.1, "bulk": 0.0})) == ["goodput ≥ 90% of the knee"]


def test_bulk_before_critical_is_noticed():
    assert failed(a_storm({"critical": 0.4, "best_effort": 0.5, "bulk": 0.7})) == ["critical > best effort > bulk"]


def test_a_rude_503_is_noticed():
    assert failed(a_storm({"critical": 0.9, "best_effort": 0.5, "bulk": 0.2}, shed_politely=False)) == [
        "every answer 200 or a polite 503"
    ]


def test_a_storm_that_leaves_something_behind_is_noticed():
    storm = a_storm({"critical": 0.9, "best_effort": 0.5, "bulk": 0.2}, after_ms=500.0)

    assert storm.recovery_s == pytest.approx(2.8)
    assert recovered_after([an_answer(i / 10, 500.0) for i in range(100)], 0.0) is None
    assert recovered_after([], 0.0) is None


def test_a_slope_is_least_squares():
    assert slope([(0, 1.0), (10, 2.0), (20, 3.0)]) == pytest.approx(0.1)
