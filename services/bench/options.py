"""What is asked of a measurement, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = ("cached", "uncached", "page", "ranking")
"""
cached    a personal slate, asked again by a few shoppers, so that it is remembered
uncached  a personal slate, computed: the slate cache is off
page      three shelves of one page, asked together
ranking   100 items in personal order
"""

CONCURRENCY = (1, 8, 32, 64, 128)

COMPARED_AT = (1, 64)
"""In flight where coalescing is compared with doing without: idle, where it may not cost, and busy, where it is to
pay."""


class BenchUnusable(ValueError):
    """What is asked for cannot be measured; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """
    seconds  each cell of the table is measured for this long
    knee     also find out at which rate it breaks, and how late answers are below that
    """

    data: Path | None
    seconds: float = 5.0
    concurrency: tuple[int, ...] = CONCURRENCY
    kinds: tuple[str, ...] = KINDS
    compare: bool = True
    knee: bool = True
    seed: int = 7


def kinds_of(text: str) -> tuple[str, ...]:
    """
    `cached,page` → its kinds, each once, in the order of KINDS.

    Raises:
        BenchUnusable: none, or one that there is not.
    """
    named = _words(text)
    if strange := [name for name in named if name not in KINDS]:
        raise BenchUnusable(f"--kinds: there is no {strange[0]!r}; choose from {', '.join(KINDS)}")
    if not named:
        raise BenchUnusable(f"--kinds names none; choose from {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in named)


def concurrency_of(text: str) -> tuple[int, ...]:
    """
    `1,8,32` → requests in flight, each once, rising.

    Raises:
        BenchUnusable: none, or something that is no number from 1 to 1024.
    """
    named = _words(text)
    if not named:
        raise BenchUnusable("--concurrency names none; try --concurrency 1,8,64")
    for word in named:
        if not word.isdecimal() or not 1 <= int(word) <= 1024:
            raise BenchUnusable(f"--concurrency: found {word!r}, expected whole numbers from 1 to 1024")
    return tuple(sorted({int(word) for word in named}))


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
