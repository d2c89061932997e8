"""Python literals as data: what passes, what is refused, and in how much time."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.training.importers.literals import DEEPEST_LITERAL, LONGEST_LITERAL, parse_literal

LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(LITERALS)
def test_what_python_prints_is_read_back(value):
    text = repr(value)

    assert parse_literal(text) == ast.literal_eval(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "open('x')",
        "1+1",
        "'a'*9",
        "f'{1}'",
        "b'x'",
        "a",
        "lambda: 0",
        "[x for x in 'y']",
        "--1",
        "...",
        "{**{}}",
        "'a' if 1 else 2",
        "'open",
        "['a'",
        "{'a': }",
        "",
        "1 2",
        "'a'.upper()",
        "not True",
    ],
)
def test_anything_but_a_literal_is_refused(text):
    with pytest.raises(ValueError, match="literal"):
        parse_literal(text)


def test_brackets_inside_a_text_do_not_count_as_depth():
    assert parse_literal(repr(["(" * 500])) == ["(" * 500]


def test_the_depth_is_bounded():
    assert parse_literal("[" * DEEPEST_LITERAL + "]" * DEEPEST_LITERAL)

    with pytest.raises(ValueError, match="levels deep"):
        parse_literal("[" * (DEEPEST_LITERAL + 1) + "]" * (DEEPEST_LITERAL + 1))


def test_the_length_is_bounded():
    with pytest.raises(ValueError, match="more than"):
        parse_literal("'" + "a" * LONGEST_LITERAL + "'")


@pytest.mark.parametrize("piece", ["1", "1-", "'", "\\", "'\\", '"', "TrueFalse", "1e1", " "])
def test_a_long_run_of_anything_is_judged_in_linear_time(piece):
    with pytest.raises(ValueError, match="literal"):
        parse_literal(piece * 20_000 + "!")
    with pytest.raises(ValueError, match="literal"):
        parse_literal("[" + piece * 20_000)
