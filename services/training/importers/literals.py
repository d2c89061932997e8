"""
Python literals from strangers, read as data.

The product lines of Amazon Reviews 2014 were printed by Python, so they are no JSON. They are parsed with
`ast.literal_eval`, which builds constants and never runs anything, and only after the text has passed three
bounds of ours: its length, its depth, and a whitelist without any operator, call or name.
"""

from __future__ import annotations

import ast
import re

# Measured: 1 MB of "[1,1,…]" or "[{},{},…]" makes Python 3.11's parser hold 0.5 GB for a moment.
LONGEST_LITERAL = 1024 * 1024
# Derived: product lines nest four deep (dict, related, list, string); twice that and room.
DEEPEST_LITERAL = 16

# Possessive quantifiers, and a string that never closes runs to the end: each byte is looked at once, whatever the
# text. Two strings side by side, and with them triple quotes, are refused: Python prints neither.
_STRING = re.compile(
    r"""[uU]?(?:'(?:[^'\\]|\\.)*+(?:(')|\\?\Z)|"(?:[^"\\]|\\.)*+(?:(")|\\?\Z))""",
    re.DOTALL,
)
_PLAIN = re.compile(r'(?:[\[\]{}():,\s]|-?\d[\d.]*+(?:[eE][+-]?\d++)?+|True|False|None|"(?!"))*+')
_BRACKETS = re.compile(r"[\[\]{}()]")


def parse_literal(text: str) -> object:
    """
    The value that *text* denotes: dict, list, tuple, set, text, number, True, False or None.

    Raises:
        ValueError: too long, too deep, or anything but a literal; the message says which.
    """
    if len(text) > LONGEST_LITERAL:
        raise ValueError(f"a literal of {len(text)} characters, more than {LONGEST_LITERAL}")
    # Each string becomes one mark, so that brackets inside texts count for nothing; "!" is no part of any literal.
    skeleton = _STRING.sub(lambda string: '"' if string[1] or string[2] else "!", text)
    if not _PLAIN.fullmatch(skeleton):
        raise ValueError("something that is no plain literal")
    depth = 0
    for bracket in _BRACKETS.findall(skeleton):
        depth += 1 if bracket in "[{(" else -1
        if depth > DEEPEST_LITERAL:
            raise ValueError(f"a literal more than {DEEPEST_LITERAL} levels deep")
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"a broken literal ({error.__class__.__name__}: {error})") from None
