"""docs/resilience.md says truly which test covers which case of the specification, and none is left out."""

from tools import draw_breaker, resilience_cases


def test_the_table_is_what_the_tests_say():
    assert resilience_cases.PAGE.read_text() == resilience_cases.page(), "run python tools/resilience_cases.py"


def test_every_case_is_covered_and_no_other_is_claimed():
    claimed = resilience_cases.claims()

    assert sorted(claimed) == list(range(1, 79))
    assert [entry for entries in claimed.values() for entry in entries if not entry[1]] == []


def test_the_drawing_of_the_breaker_is_its_table():
    assert draw_breaker.PAGE.read_text() == draw_breaker.drawing(), "run python tools/draw_breaker.py"
