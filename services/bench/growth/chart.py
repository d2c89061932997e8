"""
Curves as SVG: a figure over an axis, a line a series, with its name at its end.

The rule: numbers in, text out; no script, no font and no file from anywhere. Nothing is told by colour alone: every
line is dashed in its own way and carries its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 34, 46

_COLOURS = ("#1b4965", "#bc4b51", "#5b8e7d", "#8a6fae", "#b9770e", "#555555")
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")

Points = Sequence[tuple[float, float]]


def chart(title: str, across: str, up: str, series: Mapping[str, Points], is_log: bool) -> str:
    """
    A document of its own.

    Args:
        across, up: what the axes are of, with unit.
        series: name → (x, y), y ≥ 0; the upright axis begins at 0.
        is_log: the other axis grows by factors; every x is then above 0.
    """
    xs = sorted({x for points in series.values() for x, _ in points})
    ys = [y for points in series.values() for _, y in points]
    if not xs:
        return _svg(title, [])
    top = _round_up(max(ys) or 1.0)

    def place(x: float) -> float:
        value, low, high = (math.log(x), math.log(xs[0]), math.log(xs[-1])) if is_log else (x, xs[0], xs[-1])
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((value - low) / (high - low) if high > low else 0.5)

    def height(y: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * y / top

    parts = [_text(_LEFT, 20, f"{title}, {up}", size=15)]
    for i in range(5):
        y = top * i / 4
        parts.append(_line(_LEFT, height(y), _WIDTH - _RIGHT, height(y), "#dddddd"))
        parts.append(_text(_LEFT - 8, height(y) + 4, f"{y:g}", anchor="end"))
    for x in xs:
        parts.append(_line(place(x), _HEIGHT - _BOTTOM, place(x), _HEIGHT - _BOTTOM + 5, "#888888"))
        parts.append(_text(place(x), _HEIGHT - _BOTTOM + 18, short(x), anchor="middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, anchor="middle"))
    ends = _apart([(height(points[-1][1]), name) for name, points in series.items() if points])
    for number, (name, points) in enumerate(series.items()):
        if not points:
            continue
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        drawn = " ".join(f"{place(x):.1f},{height(y):.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        for x, y in points:
            tip = f"{name}: {y:.4g} at {short(x)}"
            parts.append(
                f'<circle cx="{place(x):.1f}" cy="{height(y):.1f}" r="3.5" fill="{colour}"><title>{escape(tip)}</title>'
                "</circle>"
            )
        parts.append(_text(_WIDTH - _RIGHT + 10, ends[name] + 4, f"{name} {points[-1][1]:.3g}", colour=colour))
    return _svg(title, parts)


def short(value: float) -> str:
    """A tick: 50 k, 1 M, 0.1 %."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def _apart(ends: list[tuple[float, str]], least: float = 15.0) -> dict[str, float]:
    """Where names stand, top to bottom, *least* apart: beside the end of their line, or as near as others let them."""
    found: dict[str, float] = {}
    last = -math.inf
    for y, name in sorted(ends):
        last = max(y, last + least)
        found[name] = last
    beyond = last - (_HEIGHT - _BOTTOM)
    return {name: y - max(beyond, 0.0) for name, y in found.items()}


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8 or 10 times a power of ten: quarters of it are short numbers."""
    power = float(10 ** math.floor(math.log10(value)))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value * (1 - 1e-9))


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12, colour: str = "#222222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )


def _svg(title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(title, quote=True)}" font-family="sans-serif">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )
