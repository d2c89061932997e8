"""
Plots as inline SVG: means with intervals, two figures against each other, a matrix of pairs, bars.

The rule: numbers in, text out; no script, no font and no file from anywhere, so that a page can be mailed. Colours are
names of the page's style sheet, and nothing is told by colour alone: every mark has its label or its tooltip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_ROW, _LABEL, _WIDTH, _TOP, _AXIS = 25, 178, 620, 8, 30
_FIGURE = 52


@dataclass(frozen=True, slots=True)
class Mark:
    """One method in a plot. *kind* is its class in the style sheet; *dots* are its seeds."""

    label: str
    kind: str
    value: float
    low: float
    high: float
    note: str = ""
    dots: tuple[float, ...] = ()


def intervals(marks: Sequence[Mark], axis: str) -> str:
    """One row a mark: its mean, its 95 % interval, its seeds as small ticks; the axis begins at 0."""
    top = max([m.high for m in marks] + [m.value for m in marks] + [1e-9])
    ticks = ticks_to(top)
    right = _WIDTH - _FIGURE
    height = _TOP + _ROW * len(marks) + _AXIS

    def x(value: float) -> float:
        return _LABEL + (right - _LABEL) * value / ticks[-1]

    parts = [_line(x(t), _TOP, x(t), height - _AXIS, "grid") for t in ticks]
    parts += [_text(x(t), height - _AXIS + 15, f"{t:g}", "tick", "middle") for t in ticks]
    parts.append(_text((_LABEL + right) / 2, height - 2, axis, "tick", "middle"))
    for i, mark in enumerate(marks):
        y = _TOP + _ROW * (i + 0.5)
        tip = f"{mark.label}: {mark.value:.3f} ({mark.low:.3f} … {mark.high:.3f}){mark.note}"
        parts.append(f'<g class="mark {mark.kind}"><title>{escape(tip)}</title>')
        parts.append(f'<rect class="hit" x="0" y="{y - _ROW / 2:.1f}" width="{_WIDTH}" height="{_ROW}"/>')
        parts.append(_text(_LABEL - 10, y + 4, mark.label, "name", "end"))
        parts.append(_line(x(0), y, x(mark.value), y, "stem"))
        parts.append(_line(x(mark.low), y, x(mark.high), y, "whisker"))
        parts += [_line(x(d), y - 6, x(d), y + 6, "seed") for d in mark.dots]
        parts.append(f'<circle cx="{x(mark.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(_text(_WIDTH - 4, y + 4, f"{mark.value:.3f}", "figure", "end"))
        parts.append("</g>")
    return _svg(_WIDTH, height, parts, f"{axis} of {len(marks)} methods")


@dataclass(frozen=True, slots=True)
class Point:
    """One method among two figures."""

    label: str
    kind: str
    x: float
    y: float


def scatter(points: Sequence[Point], x_axis: str, y_axis: str) -> str:
    """Two figures of every method; labels are moved apart where they would meet."""
    width, height, left, bottom, top = 470, 330, 58, 38, 10
    xs = ticks_to(max([p.x for p in points] + [1e-9]))
    ys = ticks_to(max([p.y for p in points] + [1e-9]))

    def place(point: Point) -> tuple[float, float]:
        across = left + (width - left - 12) * point.x / xs[-1]
        return across, height - bottom - (height - bottom - top) * point.y / ys[-1]

    parts = []
    for tick in xs:
        across = left + (width - left - 12) * tick / xs[-1]
        parts.append(_line(across, top, across, height - bottom, "grid"))
        parts.append(_text(across, height - bottom + 15, f"{tick:g}", "tick", "middle"))
    for tick in ys:
        down = height - bottom - (height - bottom - top) * tick / ys[-1]
        parts.append(_line(left, down, width - 12, down, "grid"))
        parts.append(_text(left - 6, down + 4, f"{tick:g}", "tick", "end"))
    parts.append(_text((left + width) / 2, height - 4, x_axis, "tick", "middle"))
    parts.append(
        f'<text class="tick" text-anchor="middle" transform="translate(11 {(height - bottom) / 2:.0f}) rotate(-90)">'
        f"{escape(y_axis)}</text>"
    )
    # A label may not lie on another method's mark either.
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in map(place, points)]
    for point in sorted(points, key=lambda p: p.kind != "slate"):
        px, py = place(point)
        parts.append(f'<g class="mark {point.kind}"><title>{escape(f"{point.label}: {point.x:.3f}, {point.y:.3f}")}')
        parts.append(f'</title><circle cx="{px:.1f}" cy="{py:.1f}" r="5"/>')
        parts += _apart(point.label, px, py, width, height - bottom, taken)
        parts.append("</g>")
    return _svg(width, height, parts, f"{y_axis} against {x_axis}")


def matrix(names: Sequence[str], differences: Sequence[Sequence[float]], p: Sequence[Sequence[float]]) -> str:
    """Every method (row) minus every other (column): shade by size, a ring where the difference is not chance."""
    cell, left, head = 30, 170, 140
    size = cell * len(names)
    most = max((abs(d) for row in differences for d in row), default=0.0) or 1.0
    parts = []
    for i, name in enumerate(names):
        middle = cell * (i + 0.5)
        parts.append(_text(left - 8, head + middle + 4, name, "name", "end"))
        parts.append(
            f'<text class="name" transform="translate({left + middle + 4:.0f} {head - 8}) rotate(-55)">'
            f"{escape(name)}</text>"
        )
        for j, other in enumerate(names):
            difference = differences[i][j]
            if i == j:
                continue
            kind = "gain" if difference > 0 else "lack"
            tip = f"{name} − {other}: {difference:+.3f}, p = {p[i][j]:.4f}"
            x, y = left + cell * j, head + cell * i
            parts.append(f'<g class="cell {kind}"><title>{escape(tip)}</title>')
            parts.append(
                f'<rect x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="3" '
                f'fill-opacity="{0.08 + 0.92 * abs(difference) / most:.2f}"/>'
            )
            if p[i][j] < 0.05:
                parts.append(f'<circle class="sure" cx="{x + cell / 2}" cy="{y + cell / 2}" r="3.5"/>')
            parts.append("</g>")
    return _svg(left + size + 90, head + size + 6, parts, "differences between all pairs of methods")


def bars(rows: Sequence[tuple[str, float, str]], unit: str) -> str:
    """One row a stage: its name, a bar as long as its value, and what is said of it."""
    top = max([value for _, value, _ in rows] + [1e-9])
    left, width, row = 300, 860, 20
    parts = []
    for i, (name, value, said) in enumerate(rows):
        y = row * i
        length = (width - left - 190) * value / top
        parts.append(f'<g class="mark cost"><title>{escape(f"{name}: {value:g} {unit}, {said}")}</title>')
        parts.append(_text(left - 10, y + 14, name, "name", "end"))
        parts.append(f'<rect x="{left}" y="{y + 4}" width="{max(length, 1):.1f}" height="{row - 8}" rx="2"/>')
        parts.append(_text(left + length + 8, y + 14, f"{value:.1f} {unit} · {said}", "figure", "start"))
        parts.append("</g>")
    return _svg(width, row * len(rows) + 4, parts, f"{unit} by stage")


def ticks_to(top: float, about: int = 5) -> list[float]:
    """0 and some round numbers, the last of which is not below *top*."""
    rough = top / about
    power = 10 ** np.floor(np.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    return [round(float(step * i), 10) for i in range(int(np.ceil(top / step - 1e-9)) + 1)]


def _apart(
    label: str, px: float, py: float, width: float, bottom: float, taken: list[tuple[float, float, float, float]]
) -> list[str]:
    """A label beside its point where none stands yet; nothing where everything is full (the tooltip has it)."""
    long = 6.2 * len(label)
    for dx, dy, anchor in ((9, 4, "start"), (-9, 4, "end"), (0, -10, "middle"), (0, 18, "middle"), (9, 16, "start")):
        left = {"start": px + dx, "end": px + dx - long, "middle": px - long / 2}[anchor]
        box = (left, py + dy - 11, left + long, py + dy + 2)
        is_inside = box[0] > 58 and box[2] < width and box[3] < bottom and box[1] > 0
        if is_inside and not any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in taken):
            taken.append(box)
            return [_text(px + dx, py + dy, label, "name", anchor)]
    return []


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'style="max-width:{width:.0f}px">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
