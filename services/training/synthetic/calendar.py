"""
When people shop: seasons, weekdays, hours.

Rule: every curve is a fixed function of the date, so that a shop of any size or seed has the same year. The last day
is a constant: a generated shop never depends on the day it was generated.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

LAST_DAY = date(2026, 10, 31)
"""Last day with events. A constant, so that the same seed gives the same bytes next year."""

SEASONS: dict[str, tuple[tuple[int, float, float], ...]] = {
    # name → (day of the year of the peak, width in days, height): weight = floor + Σ height · bell
    "steady": (),
    "gift": ((45, 10, 0.8), (74, 12, 0.6), (340, 30, 1.5)),
    "spring": ((120, 32, 2.4),),
    "summer": ((188, 34, 2.2),),
    "winter": ((1, 45, 1.0), (330, 45, 1.3)),
    "school": ((236, 20, 2.0),),
    "christmas": ((338, 26, 9.0),),
    "halloween": ((296, 12, 6.0),),
    "easter": ((92, 13, 6.0),),
}
"""Bells of each season. Chosen, not measured; peaks follow the British year."""

SEASON_FLOOR: dict[str, float] = {"spring": 0.5, "summer": 0.5, "christmas": 0.15, "halloween": 0.08, "easter": 0.08}

_WEEKDAY = np.array([1.02, 0.97, 0.95, 1.0, 0.96, 0.98, 1.22])
"""Monday to Sunday. Chosen: evenings and Sundays are for shopping."""

_HOUR = np.array([2, 1, 0.5, 0.3, 0.3, 0.6, 1.5, 3, 4, 5, 6, 6.5, 7.5, 7, 6, 5.5, 5.5, 6, 7, 9, 10, 9, 6, 0])
"""Weight of each hour. Hour 23 is empty, so that a session (at most an hour) ends on the day it began."""


def first_day(days: int) -> date:
    """The day *days* − 1 before LAST_DAY."""
    return LAST_DAY - timedelta(days=days - 1)


def midnight_us(day: date) -> int:
    """Microseconds since the epoch at 00:00 UTC of *day*."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def season_weight(season: str, day: date) -> float:
    """How much of a season's trade falls on *day*; 1.0 is an ordinary day."""
    weight = SEASON_FLOOR.get(season, 0.8)
    if season == "steady":
        return 1.0
    for peak, width, height in SEASONS[season]:
        away = abs(day.timetuple().tm_yday - peak)
        away = min(away, 365 - away)
        weight += height * float(np.exp(-0.5 * (away / width) ** 2))
    return weight


def day_weight(day: date, position: float) -> float:
    """Trade of the whole shop: weekday, growth over the window (*position* in [0, 1]), the pull of autumn."""
    autumn = 0.35 * float(np.exp(-0.5 * ((day.timetuple().tm_yday - 325) / 35) ** 2))
    return float(_WEEKDAY[day.weekday()]) * (0.85 + 0.3 * position) * (1.0 + autumn)


def hour_cdf() -> NDArray[np.float64]:
    """Cumulative share of sessions by hour of the day, (24,)."""
    return np.asarray(np.cumsum(_HOUR) / _HOUR.sum(), np.float64)
