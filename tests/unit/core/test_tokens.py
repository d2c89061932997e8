"""Tokens that spoil: none is spent twice, none lives longer than it should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.tokens import SpoilingTokens


def test_a_bucket_is_empty_at_first():
    tokens = SpoilingTokens(10.0)

    assert tokens.balance(0.0) == 0.0
    assert not tokens.try_take(0.0, 1.0)


def test_what_came_in_can_be_taken_once():
    tokens = SpoilingTokens(10.0)
    for _ in range(10):
        tokens.put(3.0)

    assert tokens.try_take(3.5, 10.0)
    assert not tokens.try_take(3.5, 1.0)
    assert tokens.balance(3.5) == 0.0


def test_too_few_are_left_as_they_are():
    tokens = SpoilingTokens(10.0)
    tokens.put(0.0, 9.0)

    assert not tokens.try_take(0.0, 10.0)
    assert tokens.balance(0.0) == 9.0


@pytest.mark.parametrize("came_at", [100.0, 100.9])
@pytest.mark.parametrize(("later_s", "left"), [(8.9, 1.0), (10.0, 0.0), (15.0, 0.0), (3600.0, 0.0)])
def test_a_token_spoils_within_the_last_tenth_of_its_life(came_at, later_s, left):
    tokens = SpoilingTokens(10.0)
    tokens.put(came_at)

    assert tokens.balance(came_at + later_s) == left


def test_the_oldest_are_taken_first():
    tokens = SpoilingTokens(10.0)
    tokens.put(0.0, 5.0)
    tokens.put(6.0, 5.0)

    tokens.try_take(6.0, 5.0)

    assert tokens.balance(11.0) == 5.0


def test_a_tenth_ten_times_is_one():
    tokens = SpoilingTokens(10.0)
    for _ in range(10):
        tokens.put(0.0, 0.1)

    assert tokens.try_take(0.0, 1.0)
    assert tokens.balance(0.0) == pytest.approx(0.0)


def test_a_bucket_says_what_is_left():
    tokens = SpoilingTokens(10.0)
    tokens.put(0.0, 2.5)

    assert repr(tokens) == "<SpoilingTokens 2.5 left, each lives 10 s>"


@given(st.lists(st.tuples(st.sampled_from(["put", "take"]), st.floats(0, 4), st.integers(1, 12))))
def test_a_bucket_is_a_list_of_dated_tokens_of_which_the_oldest_go_first(steps):
    tokens, dated, now = SpoilingTokens(10.0), [], 0.0
    for step, seconds, n in steps:
        now += seconds
        # A token belongs to the second it came in, and that second's tokens spoil together.
        dated = [second for second in dated if int(now) - second < 10]
        if step == "put":
            tokens.put(now, n)
            dated += [int(now)] * n
        else:
            assert tokens.try_take(now, n) == (len(dated) >= n)
            dated = dated[n:] if len(dated) >= n else dated
        assert tokens.balance(now) == len(dated)
