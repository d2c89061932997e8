"""The report, as text and as JSON."""

import json

import pytest

from services.bench import table
from services.bench.beside import Cost, cheaper, pooled
from services.bench.figures import Comparison, Round, row
from services.bench.knee import Step
from services.bench.options import Options
from services.bench.run import Results


def a_row(kind="uncached", concurrency=64, bare_ms=0.5, **given):
    measured = {
        "seconds": 2.0,
        "latencies_us": [4000] * 1000,
        "levels": {"full": 1000},
        "cpu_s": {"orchestrator": 0.9, "redis": 0.1},
        "client_cpu_s": 0.05,
    }
    return row(kind, concurrency, [Round(**{**measured, **given})], bare_ms)


def results(*rows, **given):
    machine = {"cores": 2, "processor": "a processor", "python": "3.11", "load_average": [0.1, 0.1, 0.1]}
    return Results(machine, {"items": 50_000, "shoppers_asked_for": 4000}, list(rows), **given)


def cells(line):
    return line.split()


def test_every_row_has_every_figure_under_its_name():
    head, line = table.table([a_row()]).splitlines()

    names = head.replace("p50 ms", "p50").split()
    found = dict(zip(names, cells(line), strict=True))
    assert found == {
        "kind": "uncached",
        "c": "64",
        "req/s": "500",
        "/core": "1000",
        "p50": "4.0",
        "p99": "4.0",
        "p99.9": "4.0",
        "full": "100.0%",
        "cached": "0%",
        "orchestrator": "0.90",
        "redis": "0.10",
        "all": "1.00",
        "bare": "0.50",
        "ratio": "2.00",
        "(load)": "0.05",
    }


def test_a_remembered_slate_has_no_arithmetic_to_be_compared_with():
    line = table.table([a_row("cached", bare_ms=None)]).splitlines()[1]

    assert cells(line)[-3:] == ["–", "–", "0.05"]


def test_a_row_of_popular_slates_is_marked_and_explained():
    report = table.text(results(a_row(levels={"full": 400, "popular": 600})))

    assert "40.0%*" in report
    assert "2.00*" in report
    assert "* uncached at 64: 400 full, 600 popular: not the work the bare arithmetic does" in report


def test_failures_are_told_by_name():
    assert "1000 full, 3 unanswered" in table.text(results(a_row(failures={"unanswered": 3})))


def test_columns_stand_under_their_names_whatever_their_width():
    lines = table.aligned([["kind", "c"], ["uncached", "1"], ["page", "128"]])

    assert lines == "kind        c\nuncached    1\npage      128"


def test_a_process_of_several_words_is_shown_by_its_initials_and_named_below():
    report = table.text(results(a_row(cpu_s={"collaborative_filtering": 1.0})))

    assert "cf" in report.splitlines()[2].split()
    assert "cf: collaborative_filtering" in report


def test_the_ratio_is_to_the_cheapest_way_to_do_the_same():
    alone, together = pooled(1, [(100, 0.1), (300, 0.5)]), pooled(32, [(400, 0.2)])

    assert (alone.ms, alone.low_ms, alone.high_ms, alone.requests) == pytest.approx((1.5, 1.0, 5 / 3, 400))
    assert cheaper([alone, together]) is together
    report = table.text(_with(alone, together))
    assert "uncached: 1.500 in batches of 1 (1.000 to 1.667), 0.500 in batches of 32" in report
    assert "the ratio is to batches of 32" in report


def _with(*costs):
    found = results(a_row())
    found.costs["uncached"] = list(costs)
    return found


def test_a_stretch_in_which_nothing_was_answered_costs_nothing_and_hides_nothing():
    assert pooled(1, [(0, 0.3), (100, 0.1)]).ms == pytest.approx(4.0)


def test_why_nothing_was_compared_is_said():
    assert "coalescing on and off: not compared, because" in table.text(results(a_row(), not_compared="because"))


def test_a_comparison_names_both_sides():
    on, off = a_row(), a_row(latencies_us=[8000] * 500, levels={"full": 500}, cpu_s={"orchestrator": 1.0})

    report = table.text(results(a_row(), comparisons=[Comparison(64, on, off)]))

    assert "c = 64: throughput 2.00 × (500 and 250 full/s), CPU 0.50 × (1.00 and 2.00 ms, " in report
    assert " × the bare arithmetic), p50 0.50 ×" in report


def test_latency_below_the_knee_is_told_with_the_rate():
    found = results(a_row(), steps=[Step(100, 300, 300), Step(110, 330, 200)], knee_per_s=100.0)
    found.below_knee = a_row(concurrency=None)

    report = table.text(found)

    assert "100 → 100.0%, 110 → 60.6%" in report
    assert "knee: 100 requests/s; at 90% of it, from when each was due: p50 4.0 ms" in report


def test_the_file_says_the_same_and_can_be_read():
    found = _with(Cost(1, 1.0, 0.9, 1.1, 100))
    found.comparisons.append(Comparison(1, a_row(), a_row()))

    document = json.loads(json.dumps(found.to_json(Options(None))))

    (one,) = document["rows"]
    assert (one["kind"], one["concurrency"], one["ratio"]) == ("uncached", 64, pytest.approx(2.0))
    assert one["cpu_ms"] == pytest.approx({"orchestrator": 0.9, "redis": 0.1})
    assert document["bare"]["uncached"][0]["batch"] == 1
    assert document["coalescing"]["compared"][0]["throughput"] == pytest.approx(1.0)
    assert document["machine"]["cores"] == 2
    assert document["options"]["seed"] == 7
