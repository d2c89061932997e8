"""
Stacks → a flame graph as SVG: width is the share of samples, what calls stands below what it calls.

One self-contained file that says more under the mouse; no script, so that it may be shown anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from zlib import crc32

from loadtests.profile.stacks import Stack, Stacks, below

WIDTH, ROW, HEAD = 1200, 17, 28
"""Pixels: the picture, one frame's height, the title."""

LEAST_PX = 0.4
"""Judged: what is thinner cannot be seen, and a third of all frames are."""

LETTER_PX = 6.6
"""Of the font below, so that a name is cut to what fits."""


def flame_graph(stacks: Stacks, title: str) -> str:
    """The whole picture; without a sample only its title."""
    depth = max(map(len, stacks.counts), default=0)
    height = HEAD + (depth + 1) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<style>text{font:11px monospace;fill:#222;pointer-events:none}rect{stroke:#fff;stroke-width:.4}"
        "g:hover rect{stroke:#222}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fafafa"/>',
        f'<text x="6" y="18">{escape(title)}: {stacks.n} samples</text>',
    ]
    if stacks.n:
        parts += _frames(stacks.counts, 0, 0.0, WIDTH / stacks.n, stacks.n, height)
    return "\n".join([*parts, "</svg>", ""])


def _frames(counts: Mapping[Stack, int], depth: int, x: float, px: float, n: int, height: int) -> list[str]:
    """Everything that stands on one frame, from the left at *x*; *px* wide a sample."""
    parts = []
    for name, inner in below(counts, depth):
        own_n = sum(inner.values())
        width = own_n * px
        if width >= LEAST_PX:
            parts.append(_frame(name, x, height - (depth + 1) * ROW - 4, width, own_n, n))
            parts += _frames(inner, depth + 1, x, px, n, height)
        x += width
    return parts


def _frame(name: str, x: float, y: float, width: float, own_n: int, n: int) -> str:
    letters = int((width - 4) / LETTER_PX)
    shown = name if len(name) <= letters else f"{name[: letters - 1]}…"
    text = f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(shown)}</text>' if letters > 2 else ""
    return (
        f"<g><title>{escape(name)}: {own_n} samples, {own_n / n:.1%}</title>"
        f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{ROW - 1}" fill="{colour(name)}"/>{text}</g>'
    )


def colour(name: str) -> str:
    """A warm one that is always the same for the same function: two graphs can be compared by eye."""
    number = crc32(name.encode())
    return f"hsl({10 + number % 45} {60 + number // 45 % 30}% {64 + number // 1350 % 14}%)"
