"""When a slate counts as fresh, and when the promise is broken; judged from what readers saw."""

from collections import Counter

import orjson
import pytest

from loadtests.freshness import Read, Seen, holds, is_remembered, judged, lines, read_of
from orchestrator.doctor.http_client import Reply

OLD, NEW = ("a", "b"), ("b", "c")


def a_read(asked_at, watermark=1, items=NEW, took_s=0.01):
    return Read(asked_at, asked_at + took_s, watermark, items)


def test_time_counts_to_the_first_slate_that_covers_the_event_and_is_another_one():
    reads = [a_read(-1, 0, OLD), a_read(0.5, 1, OLD), a_read(0.6, 1, NEW), a_read(0.7, 1, NEW)]

    seen = judged(0.0, 1, OLD, reads)

    assert seen.covered_s == pytest.approx(0.51)
    assert seen.changed_s == pytest.approx(0.61)
    assert (seen.n_stale, seen.n_back, seen.n_silent) == (0, 0, 0)
    assert holds([seen])


def test_a_slate_that_was_asked_for_before_the_202_is_not_counted_however_late_it_comes():
    seen = judged(0.0, 1, OLD, [a_read(-0.01, 0, OLD, took_s=0.5), a_read(0.5, 1, NEW)])

    assert seen.n_stale == 0
    assert seen.covered_s == pytest.approx(0.51)


def test_one_asked_for_after_it_that_does_not_cover_the_event_breaks_the_promise_in_either_reader():
    for readers in ([[a_read(0.1, 0, NEW), a_read(0.2)]], [[a_read(0.2)], [a_read(0.1, 0)]]):
        seen = judged(0.0, 1, OLD, *readers)
        assert seen.n_stale == 1
        assert not holds([seen])


def test_a_watermark_that_goes_back_is_seen_also_before_the_event_and_over_a_silent_slate():
    first = [a_read(-3, 4), a_read(-2, None), a_read(-1, 3), a_read(0.1, 5)]
    second = [a_read(-3, 2), a_read(-2, 3), a_read(0.1, 5)]

    seen = judged(0.0, 5, OLD, first, second)

    assert (seen.n_back, seen.n_silent, seen.n_stale) == (1, 1, 0)
    assert not holds([seen])


def test_a_slate_that_stays_the_same_is_covered_and_not_changed():
    seen = judged(0.0, 1, OLD, [a_read(0.1, 1, OLD)])

    assert seen.covered_s is not None
    assert seen.changed_s is None
    assert holds([seen])


def test_nothing_seen_proves_nothing():
    assert not holds([])
    assert not holds([judged(0.0, 1, OLD, [a_read(0.1, None)])])


def test_an_answer_says_what_it_claims_and_a_lost_shopper_claims_nothing():
    def reply(status, degraded):
        body = {"items": [{"id": "a"}], "watermark": 7, "quality": {"degraded": degraded}}
        return Reply(status, b"", orjson.dumps(body), 2.0)

    assert read_of(1.0, reply(200, [])) == Read(1.0, 2.0, 7, ("a",))
    assert read_of(1.0, reply(200, ["user"])) == Read(1.0, 2.0, None, ("a",))
    assert read_of(1.0, reply(503, [])) is None


def test_percentiles_are_of_what_came_and_what_never_came_is_counted():
    seen = [Seen(0.01 * n, 0.01 * n, 0, 0, 0) for n in range(1, 100)] + [Seen(0.02, None, 0, 0, 0)]

    said = lines(seen, [0.005, 0.005], 1, Counter({"200": 2}))

    assert "100 events; 0 slates" in said[0]
    assert "500.0 ms (p50)" in said[2]
    assert "1 never within 2 s" in said[2]
    assert "never" not in said[1]
    assert "2 other slates, 50.0% of them remembered" in said[3]


def test_a_slate_is_remembered_by_its_own_word():
    def reply(status, *sources):
        body = {"quality": {"sources": [{"name": "a", "status": one} for one in sources]}}
        return Reply(status, b"", orjson.dumps(body), 2.0)

    assert is_remembered(reply(200, "cached", "cached"))
    assert not is_remembered(reply(200, "ok", "ok"))
    assert not is_remembered(reply(503, "cached"))
