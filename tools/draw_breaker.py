"""
Draw docs/breaker.svg from the breaker's table of transitions; a test holds the two together.

By hand, since six boxes and a dozen arrows need no library: states stand on fixed places, arrows are computed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "breaker.svg"
sys.path.insert(0, str(ROOT))

from orchestrator.core.breaker import TRANSITIONS, Signal, State  # noqa: E402

WIDTH, HEIGHT = 860, 445
BOX_W, BOX_H = 180, 46
PLACES = {
    State.CLOSED: (130, 90),
    State.OPEN: (700, 90),
    State.HALF_OPEN: (415, 250),
    State.FORCED_OPEN: (130, 370),
    State.DISABLED: (415, 370),
    State.METRICS_ONLY: (700, 370),
}
"""Centres of the boxes."""

NOTES = {
    State.CLOSED: "calls pass and are counted",
    State.OPEN: "calls are refused",
    State.HALF_OPEN: "5 probes, 2 at once",
    State.FORCED_OPEN: "refuses",
    State.DISABLED: "passes, counts nothing",
    State.METRICS_ONLY: "passes, counts",
}

BENDS = {
    (State.CLOSED, State.OPEN): 22,
    (State.OPEN, State.HALF_OPEN): -34,
    (State.HALF_OPEN, State.OPEN): -34,
    (State.HALF_OPEN, State.CLOSED): -22,
}
"""How far an arrow bows out, in pixels, so that two between the same boxes do not cover each other."""


def drawing() -> str:
    """The whole SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 10 5 0 10z" fill="#444"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for (before, signal), after in TRANSITIONS.items():
        if not _is_an_operators(signal):
            parts.append(_arrow(before, after, signal.value, BENDS.get((before, after), 0)))
    operators = {signal: after for (_, signal), after in TRANSITIONS.items() if _is_an_operators(signal)}
    for state, (x, y) in PLACES.items():
        parts.append(_box(state, x, y))
    said = [f"{signal.value} → {after.value}" for signal, after in operators.items()]
    for line, text in enumerate(("from every state: " + "; ".join(said[:2]), "; ".join(said[2:]))):
        parts.append(
            f'<text x="{WIDTH / 2}" y="{HEIGHT - 24 + 15 * line}" text-anchor="middle" fill="#666" font-size="12">'
            f"{escape(text)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _is_an_operators(signal: Signal) -> bool:
    """Whether *signal* leads from every state, which is what only an operator can do."""
    return all((state, signal) in TRANSITIONS for state in State)


def _box(state: State, x: int, y: int) -> str:
    dash = ' stroke-dasharray="5 4"' if state in (State.FORCED_OPEN, State.DISABLED, State.METRICS_ONLY) else ""
    left, top = x - BOX_W / 2, y - BOX_H / 2
    return (
        f'<rect x="{left}" y="{top}" width="{BOX_W}" height="{BOX_H}" rx="9" fill="#f4f6fa" stroke="#345"{dash}/>'
        f'<text x="{x}" y="{y - 3}" text-anchor="middle" font-weight="bold">{state.value}</text>'
        f'<text x="{x}" y="{y + 14}" text-anchor="middle" fill="#555" font-size="11">{NOTES[state]}</text>'
    )


def _arrow(before: State, after: State, label: str, bend: int) -> str:
    (x1, y1), (x2, y2) = PLACES[before], PLACES[after]
    length = math.hypot(x2 - x1, y2 - y1)
    across = (-(y2 - y1) / length * -bend, (x2 - x1) / length * -bend)
    middle = ((x1 + x2) / 2 + 2 * across[0], (y1 + y2) / 2 + 2 * across[1])
    start, end = _edge(PLACES[before], middle), _edge(PLACES[after], middle)
    at = ((x1 + x2) / 2 + 1.45 * across[0], (y1 + y2) / 2 + 1.45 * across[1])
    return (
        f'<path d="M{start[0]:.0f} {start[1]:.0f} Q{middle[0]:.0f} {middle[1]:.0f} {end[0]:.0f} {end[1]:.0f}" '
        'fill="none" stroke="#444" stroke-width="1.4" marker-end="url(#tip)"/>'
        f'<text x="{at[0]:.0f}" y="{at[1]:.0f}" text-anchor="middle" fill="#222" stroke="#fff" stroke-width="4" '
        f'paint-order="stroke">{escape(label)}</text>'
    )


def _edge(centre: tuple[int, int], towards: tuple[float, float]) -> tuple[float, float]:
    """Where the way from *centre* *towards* a point leaves the box."""
    dx, dy = towards[0] - centre[0], towards[1] - centre[1]
    scale = min(
        (BOX_W / 2 + 4) / abs(dx) if dx else math.inf,
        (BOX_H / 2 + 4) / abs(dy) if dy else math.inf,
    )
    return centre[0] + dx * scale, centre[1] + dy * scale


if __name__ == "__main__":
    PAGE.write_text(drawing(), encoding="utf-8")
