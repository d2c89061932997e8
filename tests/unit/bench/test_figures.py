"""Rows from what was counted."""

import math
import random

import pytest

from services.bench.figures import Comparison, Round, percentile, row


def a_round(**given):
    return Round(**{"seconds": 2.0, "latencies_us": [1000, 2000, 3000, 4000], "levels": {"full": 4}, **given})


def test_a_percentile_is_a_latency_that_somebody_had():
    latencies = [15, 20, 35, 40, 50]

    # The nearest-rank example of the textbooks: ranks 1, 2, 2, 3 and 5 of five.
    assert [percentile(latencies, share) for share in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]


def test_the_last_of_a_thousand_is_not_the_999th_of_them():
    latencies = list(range(1, 1001))

    assert percentile(latencies, 99) == 990
    # 99.9 / 100 × 1000 is not 999 in floating point.
    assert percentile(latencies, 99.9) == 999


@pytest.mark.parametrize("share", [1, 50, 99, 99.9])
def test_as_many_as_said_do_not_exceed_a_percentile(share):
    rng = random.Random(share)
    latencies = sorted(rng.randrange(10_000) for _ in range(rng.randrange(1, 400)))

    found = percentile(latencies, share)

    assert found in latencies
    assert sum(one <= found for one in latencies) >= share / 100 * len(latencies) - 1e-9
    assert sum(one < found for one in latencies) < share / 100 * len(latencies)


def test_nothing_measured_has_no_percentile():
    assert math.isnan(percentile([], 50))


def test_rounds_are_pooled_before_anything_is_divided():
    short = a_round(seconds=1.0, latencies_us=[1000], levels={"full": 1}, cpu_s={"edge": 0.01}, client_cpu_s=0.002)
    long = a_round(seconds=3.0, latencies_us=[9000] * 3, levels={"full": 3}, cpu_s={"edge": 0.01}, client_cpu_s=0.002)

    found = row("uncached", 8, [short, long], bare_ms=2.0)

    assert (found.requests, found.seconds, found.per_s) == (4, 4.0, 1.0)
    assert found.latency_ms == {"p50": 9.0, "p99": 9.0, "p99.9": 9.0}
    # A mean of means would be 6.7 ms.
    assert found.cpu_ms == {"edge": pytest.approx(5.0)}
    assert found.client_ms == pytest.approx(1.0)
    assert found.ratio == pytest.approx(2.5)


def test_the_loads_own_cpu_and_that_of_bystanders_is_not_the_systems():
    found = row("uncached", 1, [a_round(cpu_s={"edge": 0.004, "redis": 0.008}, client_cpu_s=1.0, bystanders_s=1.0)])

    assert found.total_ms == pytest.approx(3.0)
    assert found.client_ms == found.bystanders_ms == pytest.approx(250.0)


def test_popular_slates_among_full_ones_are_not_work_of_one_kind():
    nearly = row("uncached", 64, [a_round(levels={"full": 99, "popular": 1})])
    many = row("uncached", 64, [a_round(levels={"full": 98, "popular": 2})])

    assert nearly.is_one_work
    assert not many.is_one_work
    assert many.full_per_s == pytest.approx(0.98 * many.per_s)


def test_one_failure_is_told_whatever_its_share():
    found = row("uncached", 64, [a_round(failures={"503": 1, "empty": 0})])

    assert found.failures == {"503": 1}
    assert not found.is_one_work


def test_a_load_that_nobody_answered_has_no_cost_and_says_so():
    found = row("uncached", 1, [a_round(latencies_us=[], levels={}, failures={"disconnected": 9}, cpu_s={"edge": 1.0})])

    assert (found.requests, found.per_s, found.full_share) == (0, 0.0, 0.0)
    assert math.isnan(found.total_ms)
    assert not found.is_one_work


def test_a_comparison_is_of_full_slates_not_of_answers():
    on = row("uncached", 64, [a_round(latencies_us=[10_000] * 100, levels={"full": 100}, cpu_s={"edge": 0.1})])
    off = row(
        "uncached", 64, [a_round(latencies_us=[20_000] * 100, levels={"full": 50, "popular": 50}, cpu_s={"edge": 0.2})]
    )

    compared = Comparison(64, on, off)

    assert compared.throughput == pytest.approx(2.0)
    assert (compared.cpu, compared.p50) == (pytest.approx(0.5), pytest.approx(0.5))
