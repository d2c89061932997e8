"""The plan of a load test, what is counted of it, and whether it held."""

import math
import random
from pathlib import Path

import pytest

from loadtests.shoppers import objectives as module
from loadtests.shoppers.ledger import Histogram, Ledger, Seen
from loadtests.shoppers.objectives import (
    Objectives,
    ObjectivesError,
    Promise,
    breaking_point,
    carried_rate,
    exit_code,
    figures,
    judge,
    read_objectives,
    table,
)
from loadtests.shoppers.reading import read_answer
from loadtests.shoppers.session import Kind
from loadtests.shoppers.shapes import SHAPES, Asked, phase_at, phases

FILE = Path(module.__file__).parents[1] / "objectives.toml"
PROMISES = Objectives({"home": Promise(25, 100, 100, 0.99)}, 1.0, 0.0, 100, 30, 1.5, 20)
SLATE = (
    b'{"recommendation_id":"r","items":[{"id":"a"},{"id":"b"}],"quality":{"level":"%b","rung":"full","degraded":[]}}'
)


def a_ledger(*numbers, ms=10.0, n=200, **about):
    """*n* good answers to `home` in each of the phases *numbers*."""
    ledger = Ledger()
    for number in numbers:
        for _ in range(n):
            ledger.saw(number, "home", Seen(ms, level="full", **about))
    return ledger


def missed(claims):
    return [(claim.phase, claim.name) for claim in claims if claim.holds is False]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_lasts_as_long_as_it_was_told_and_begins_with_a_warm_up_that_is_not_judged(shape):
    plan = phases(shape, 2, 20)

    assert sum(phase.seconds for phase in plan) == pytest.approx(120, abs=9)
    assert plan[0].asked is Asked.NOTHING
    assert all(phase.asked is not Asked.NOTHING for phase in plan[1:])


def test_steps_grow_by_the_factor_and_a_burst_is_the_only_overload():
    steps = phases("step", 2, 20, 1.5)[1:]
    burst = phases("burst", 1, 20)

    assert [phase.rate for phase in steps] == [20 * 1.5**i for i in range(11)]
    assert [(phase.name, phase.asked) for phase in burst[1:]] == [
        ("before", Asked.WHOLE),
        ("burst", Asked.FLOOR),
        ("after", Asked.WHOLE),
    ]
    assert burst[2].rate == 5 * burst[1].rate


def test_a_moment_lies_in_one_phase_or_in_none():
    plan = phases("burst", 1, 20)

    assert [phase_at(plan, at) for at in (-0.1, 0, 4.9, 5, 59.9, 60)] == [None, 0, 0, 1, 3, None]


@pytest.mark.parametrize(
    "wrong", [("stroll", 2, 20, 1.3), ("step", 0.05, 20, 1.3), ("step", 2, 0, 1.3), ("step", 2, 20, 1)]
)
def test_a_plan_that_goes_nowhere_is_refused(wrong):
    with pytest.raises(ValueError, match=r"expected|there are"):
        phases(*wrong)


def test_quantiles_of_a_histogram_are_exact_to_two_per_cent_and_never_too_low():
    rng, histogram = random.Random(1), Histogram()
    values = sorted(rng.lognormvariate(2.5, 0.8) for _ in range(5_000))

    for value in values:
        histogram.add(value)

    for share in (0.5, 0.99, 0.999, 1.0):
        exact = values[math.ceil(share * 5_000) - 1]
        assert exact <= histogram.quantile(share) <= exact * 1.0201
    assert math.isnan(Histogram().quantile(0.5))


def test_ledgers_of_two_processes_add_up_to_one():
    one, other, both = a_ledger(1, ms=5), a_ledger(1, 2, ms=50), Ledger()
    other.saw(2, "home", Seen(70, failed="status 500"))
    other.saw(2, "home", Seen(1, is_refused=True))
    other.was_late(2, 3.0)

    both.add(one.document())
    both.add(other.document())

    assert both.rows[1, "home"].n == 400
    assert both.rows[1, "home"].latency.quantile(0.5) == pytest.approx(5, rel=0.02)
    assert both.rows[1, "home"].latency.quantile(0.51) == pytest.approx(50, rel=0.02)
    assert (both.rows[2, "home"].n, both.rows[2, "home"].refused) == (202, 1)
    assert both.rows[2, "home"].failed == {"status 500": 1}
    assert both.late[2].n == 1
    assert both.document() == both.document()


def test_the_file_is_read_and_asks_something_of_every_kind_of_request():
    found = read_objectives(FILE)

    assert set(found.requests) == {*(kind.value for kind in Kind), "events"}
    assert found.available_share == 1.0
    assert all(promise.p999_ms is not None for promise in found.requests.values())
    assert None not in (found.overload_p99_ms, found.soak_p99_growth, found.late_p99_ms)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[requests.home]\np95_ms = 3", "p95_ms"),
        ("[requests.home]\np99_ms = '3'", "requests.home.p99_ms"),
        ("[step]\nleast = 3", "step.least"),
        ("[refused]\nshare = -1", "refused.share"),
        ("[refused", "no TOML"),
    ],
)
def test_a_file_with_a_key_that_nothing_looks_at_is_refused_by_its_name(tmp_path, text, named):
    path = tmp_path / "objectives.toml"
    path.write_text(text)

    with pytest.raises(ObjectivesError, match=named):
        read_objectives(path)


def test_a_run_in_which_all_holds_ends_with_nought_and_says_so():
    plan = phases("steady", 1, 20)

    claims = judge(PROMISES, "steady", plan, a_ledger(0, 1))

    assert missed(claims) == []
    assert exit_code(claims) == 0
    assert "MISSED" not in table(claims)
    assert "home" in figures(plan, a_ledger(0, 1))


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({"ms": 30.0}, "home: p50"),
        ({"failed": "empty slate"}, "availability"),
        ({"is_refused": True}, "refused"),
    ],
)
def test_one_missed_objective_ends_a_run_with_one_and_is_marked(about, name):
    plan = phases("steady", 1, 20)
    ledger = a_ledger(1, n=1500)
    for number, row in a_ledger(1, n=1600, **about).rows.items():
        ledger.rows[number].merge(row)

    claims = judge(PROMISES, "steady", plan, ledger)

    assert ("steady", name) in missed(claims)
    assert exit_code(claims) == 1
    assert next(line for line in table(claims).splitlines() if name in line).endswith("MISSED")


def test_answers_that_are_less_than_full_and_a_load_that_leaves_late_are_missed_objectives():
    plan, ledger = phases("steady", 1, 20), a_ledger(1)
    for _ in range(20):
        ledger.saw(1, "home", Seen(10, level="partial"))
        ledger.was_late(1, 500.0)

    claims = judge(PROMISES, "steady", plan, ledger)

    assert missed(claims) == [("steady", "load: late p99"), ("steady", "home: full")]


def test_a_quantile_of_too_few_answers_is_named_and_not_judged():
    claims = judge(PROMISES, "steady", phases("steady", 1, 20), a_ledger(1, ms=500.0, n=9))

    quantiles = [claim for claim in claims if "home: p" in claim.name]
    assert [claim.holds for claim in quantiles] == [None] * 3
    assert all(claim.found == "too few (9)" for claim in quantiles)
    assert exit_code(claims) == 0


def test_nothing_seen_is_no_success():
    claims = judge(PROMISES, "steady", phases("steady", 1, 20), Ledger())

    assert missed(claims) == [("steady", "availability")]
    assert exit_code(claims) == 1
    assert exit_code([]) == 1


def test_an_overload_may_refuse_and_answer_with_popular_items_but_what_it_answers_is_in_time():
    plan, ledger = phases("burst", 1, 20), a_ledger(1, 3)
    for _ in range(200):
        ledger.saw(2, "home", Seen(60, level="popular"))
        ledger.saw(2, "home", Seen(1, is_refused=True))

    in_time = judge(PROMISES, "burst", plan, ledger)
    for _ in range(10):
        ledger.saw(2, "home", Seen(300, level="popular"))
    late = judge(PROMISES, "burst", plan, ledger)

    assert missed(in_time) == []
    assert missed(late) == [("burst", "home: p99")]


def test_steps_break_where_two_in_a_row_miss_and_carried_is_the_last_that_held_before():
    plan = phases("step", 2, 20, 1.5)
    ledger = a_ledger(1, 3)
    for number, ms in ((2, 400.0), (4, 400.0), (5, 400.0)):
        ledger.rows |= a_ledger(number, ms=ms).rows

    assert breaking_point(PROMISES, plan, ledger, 4) is None
    assert breaking_point(PROMISES, plan, ledger, 6) == 4
    assert carried_rate(PROMISES, plan, ledger) == plan[3].rate == 45
    assert missed(judge(PROMISES, "step", plan, ledger)) == []


def test_a_breaking_point_that_lies_too_low_is_missed_and_so_is_one_failure_in_any_step():
    plan, ledger = phases("step", 2, 20, 1.5), a_ledger(1)
    for number in (2, 3):
        ledger.rows |= a_ledger(number, ms=400.0).rows

    low = judge(PROMISES, "step", plan, ledger)
    ledger.saw(3, "home", Seen(5, failed="status 500"))
    failed = judge(PROMISES, "step", plan, ledger)

    assert missed(low) == [("all", "carried")]
    assert ("step 3", "availability") in missed(failed)
    assert exit_code(low) == 1


def test_a_soak_that_grows_slower_than_its_beginning_is_missed():
    plan = phases("soak", 3, 20)
    steady, slower = a_ledger(1, 2, 3, ms=10), a_ledger(1, 2, ms=10)
    slower.rows |= a_ledger(3, ms=16).rows

    assert missed(judge(PROMISES, "soak", plan, steady)) == []
    assert missed(judge(PROMISES, "soak", plan, slower)) == [("end", "home: p99 growth")]


@pytest.mark.parametrize(
    ("name", "status", "body", "retry_after", "failed"),
    [
        ("home", 200, SLATE % b"full", None, ""),
        ("home", 200, SLATE.replace(b'{"id":"a"},{"id":"b"}', b"") % b"full", None, "empty slate"),
        ("home", 200, SLATE.replace(b'"b"', b'"a"') % b"full", None, "an item twice"),
        ("home", 200, b'{"items":', None, "unreadable"),
        ("home", 200, b'{"items":3}', None, "unreadable"),
        ("home", 500, b"", None, "status 500"),
        ("home", 503, b"", None, "status 503"),
        ("home", 0, None, None, "no answer: ConnectionRefusedError"),
        ("events", 202, b'{"accepted":1,"rejected":[]}', None, ""),
        ("events", 202, b'{"accepted":0,"rejected":[{"index":0}]}', None, "events rejected"),
        ("events", 200, b"{}", None, "status 200"),
    ],
)
def test_what_is_no_good_answer_is_a_failure_with_a_name(name, status, body, retry_after, failed):
    read = read_answer(name, status, body, retry_after, "ConnectionRefusedError")

    assert read.failed == failed
    assert not read.is_refused
    assert (read.shown is not None) == (name == "home" and not failed)


def test_a_503_that_says_when_to_come_back_is_a_refusal():
    assert read_answer("home", 503, b"", "2").is_refused
    assert read_answer("events", 503, b"", "2").is_refused


@pytest.mark.parametrize(
    ("quality", "level"),
    [
        (b'"level":"full","rung":"full","degraded":[]', "full"),
        (b'"level":"popular","rung":"full","degraded":[]', "full"),
        (b'"level":"popular","rung":"popular","degraded":["user"]', "popular"),
        (b'"level":"partial","rung":"full","degraded":["content_based"]', "partial"),
    ],
)
def test_popular_items_are_whole_only_for_whom_nothing_was_lost(quality, level):
    body = b'{"recommendation_id":"r","items":[{"id":"a"}],"quality":{%b}}' % quality

    assert read_answer("home", 200, body, None).level == level
