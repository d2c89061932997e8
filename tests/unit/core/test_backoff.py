"""When what failed may be tried again."""

import random

import pytest

from orchestrator.core import backoff
from orchestrator.core.backoff import Backoff


def a_backoff(seed=1, **about):
    return Backoff(random.Random(seed), **about)


def pause_after(backoff, key, now):
    """Seconds until *key* may be tried again, to the hundredth."""
    backoff.failed(key, now)
    return next(n / 100 for n in range(10_000) if backoff.may_try(key, now + n / 100))


def test_what_never_failed_may_be_tried():
    assert a_backoff().may_try("k", 0.0)


def test_pauses_double_up_to_the_longest_each_between_half_and_whole():
    pauses = a_backoff(first_s=1, last_s=30)

    got = [pause_after(pauses, "k", now) for now in range(0, 800, 100)]

    for pause, whole in zip(got, [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert whole / 2 <= pause <= whole + 0.01


def test_keys_that_failed_together_are_not_tried_together():
    pauses = a_backoff()

    assert len({pause_after(pauses, key, 0.0) for key in range(20)}) > 10


def test_it_counts_failures_in_a_row_so_that_the_first_can_be_told():
    pauses = a_backoff()

    assert [pauses.failed("k", 0.0) for _ in range(3)] == [1, 2, 3]
    pauses.worked("k")
    assert pauses.may_try("k", 0.0)
    assert pauses.failed("k", 0.0) == 1


def test_a_key_pauses_alone():
    pauses = a_backoff()
    pauses.failed("k", 0.0)

    assert pauses.may_try("other", 0.0)


def test_the_longest_untouched_key_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(backoff, "MAX_KEYS", 2)
    pauses = a_backoff()
    for key in ("a", "b", "a", "c"):
        pauses.failed(key, 0.0)

    assert [pauses.may_try(key, 0.0) for key in "abc"] == [False, True, False]


@pytest.mark.parametrize("times", [100, 5000])
def test_a_thousand_failures_are_no_overflow(times):
    pauses = a_backoff()
    for _ in range(times):
        pauses.failed("k", 0.0)

    assert pauses.may_try("k", backoff.LAST_S)


def test_it_says_what_it_holds():
    pauses = a_backoff()
    pauses.failed("k", 0.0)

    assert repr(pauses) == "<Backoff 1 keys that failed last>"
