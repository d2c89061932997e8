"""What a doctor tells."""

import json
from dataclasses import replace

from orchestrator.doctor import report
from orchestrator.doctor.checker import Expect, Phases, judge
from orchestrator.doctor.drill import Outcome, good_share, overall
from orchestrator.doctor.faults import Fault
from orchestrator.doctor.history import Seen

PHASES = Phases(0.0, 10.0, 10.0, 20.0, 20.0, 30.0)


def an_answer(at, ms=10.0, **fields):
    fields = {"status": 200, "level": "full", "n_items": 12, "asked": 12, **fields}
    return Seen(at, at, at + ms / 1000, "home", **fields)


def an_outcome(seen, expect=Expect()):  # noqa: B008 – frozen
    return Outcome(Fault("a-fault", 7, "it breaks", (), expect), PHASES, judge(seen, PHASES, expect, ()), seen)


def a_history(ms_during=10.0, **during):
    return [
        an_answer(i / 10, ms_during if 10 <= i / 10 < 20 else 10.0, **(during if 10 <= i / 10 < 20 else {}))
        for i in range(300)
    ]


def test_a_row_says_how_it_went_and_what_did_not_hold():
    good, bad = report.row_of(an_outcome(a_history())), report.row_of(an_outcome(a_history(150.0)))

    assert good == ("7", "a-fault", "–", "0.0 s", "–", "10", "10", "10", "100% / 0% / 0% / 0%", "holds")
    assert bad[-1] == "p99 ≤ 100 ms: 150.0 ms"


def test_what_was_shed_is_shown():
    outcome = an_outcome(a_history(status=503, retry_after=True, level=""), Expect(may_shed=True))

    assert report.shares(outcome.verdict.during) == "0% / 0% / 0% / 0%, 100% shed"


def test_the_document_is_json_even_where_nothing_was_measured():
    document = report.document(an_outcome([]))

    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["during"]["p99_ms"] is None
    assert document["holds"] is False


def test_markdown_has_a_line_for_each_row_and_no_cell_breaks_it():
    lines = report.markdown([report.skipped(1, "a|b", "skipped: why")]).splitlines()

    assert len(lines) == 3
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "a\\|b" in lines[2]


def test_the_objectives_are_judged_over_what_happened_during_the_faults():
    n, available, p999_ms = overall([an_outcome(a_history(60.0)), an_outcome(a_history(40.0, status=500))])

    assert n == 200
    assert available == 0.5
    assert round(p999_ms) == 60


def test_a_fault_whose_lateness_is_allowed_does_not_count_against_them():
    n, _, _ = overall([an_outcome(a_history(900.0), Expect(p99_s=1.5))])

    assert n == 0


def test_goodput_is_whole_slates_in_time_over_everything_that_was_asked():
    good = an_answer(0)
    seen = [good, replace(good, done_at=0.2), replace(good, status=503), replace(good, n_items=3)]

    assert good_share(seen) == 0.25
