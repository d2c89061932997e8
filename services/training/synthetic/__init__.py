"""
The embedded shop: a whole storefront's history without a download.

`build` writes canonical data (events.parquet, items.parquet, dataset.json) and the hidden truth beside it. Rule: the
same arguments give the same bytes; the year of the shop is fixed (calendar.LAST_DAY), nothing reads a clock.

By default 2,000 shoppers, 1,500 items in 89 leaves and 270 days become 94,847 events of 1,866 ids (seed 7) in 2.5 s
of processor time: 100 views to 13.1 carts and 4.9 purchases; popularity Gini 0.62 over all events (Online Retail
0.64), repeats 26 % of purchase lines (31 %), median gap between orders 19 days (22). Baskets are a household's (mean
2.4 lines), not a wholesaler's (21), and there are 4 purchase lines an item, not 107. Methods come in the same order:
popularity, content, then item-kNN and EASE in discovery; personal repeat first in re-buy (docs/embedded-shop.md).

    taxonomy   categories            world       items, prices, births, complements
    naming     words                 shoppers    tastes, activity, identities
    calendar   seasons, days, hours  behaviour   a day of sessions;  memory  what passes between days
    truth      the hidden truth      writing     Parquet in row groups
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from services.training.synthetic import calendar
from services.training.synthetic.behaviour import Behaviour
from services.training.synthetic.shoppers import build_shoppers
from services.training.synthetic.truth import Truth, write_truth
from services.training.synthetic.world import build_world
from services.training.synthetic.writing import EventWriter, sha256_of

__all__ = ["Truth", "build"]

SMALLEST = {"shoppers": 10, "items": 20, "days": 14}


def build(
    out: Path,
    *,
    seed: int = 7,
    shoppers: int = 2000,
    items: int = 1500,
    days: int = 270,
    events: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, object]:
    """
    Write a shop into *out* (created; files of the same names are replaced).

    Args:
        out: the data directory.
        seed: any integer ≥ 0; the same seed and sizes give the same bytes.
        shoppers, items: people and items, at least SMALLEST.
        days: length of the window, which ends on calendar.LAST_DAY.
        events: about how many events to aim for; by default what *shoppers* do in *days*. Give more shoppers with more
            events: it is the sessions a shopper that are scaled.
        progress: called about once a simulated week with the share done in [0, 1] and what is being done.

    Returns:
        What was written as dataset.json.

    Raises:
        ValueError: a size below SMALLEST, or a negative seed.
    """
    sizes = {"shoppers": shoppers, "items": items, "days": days}
    for name, least in SMALLEST.items():
        if sizes[name] < least:
            raise ValueError(f"{name} = {sizes[name]}, but a shop needs at least {least}; give a larger --{name}")
    if seed < 0:
        raise ValueError(f"seed = {seed}, but a seed is an integer of 0 or more")
    tell = progress or (lambda _share, _what: None)
    out.mkdir(parents=True, exist_ok=True)
    first_day = calendar.first_day(days)
    world_rng, people_rng, behaviour_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))

    tell(0.0, "catalogue and shoppers")
    world = build_world(items, days, first_day, world_rng)
    people = build_shoppers(shoppers, world, days, people_rng)
    pq.write_table(world.table(days - 1), out / "items.parquet", compression="zstd")
    write_truth(out / "truth", world, people, days)

    behaviour = Behaviour(world, people, days, behaviour_rng)
    pace = _Pace(behaviour.day_weights(), events)
    with EventWriter(out / "events.parquet", people, world.item_ids) as writer:
        for day in range(days):
            today = behaviour.day(day, pace.rate(day, writer.rows))
            writer.append(today, day, calendar.midnight_us(first_day + timedelta(days=day)))
            if day % 7 == 0:
                tell(0.05 + 0.93 * day / days, "sessions")
    tell(1.0, "done")

    summary: dict[str, object] = {
        "source": "synthetic",
        "parameters": {"seed": seed, **sizes, "events": events},
        "events": writer.rows,
        "items": items,
        "users": writer.users,
        "first_event_at": _iso(writer.first_us or 0),
        "last_event_at": _iso(writer.last_us),
        "rows_read": writer.rows,
        "rows_kept": writer.rows,
        "rows_dropped": {},
        "sha256": {name: sha256_of(out / name) for name in ("events.parquet", "items.parquet")},
    }
    (out / "dataset.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


class _Pace:
    """How fast the shop must run to reach a number of events: corrected every day by what has come out so far."""

    def __init__(self, weights: np.ndarray[tuple[int], np.dtype[np.float64]], target: int | None) -> None:
        self._weights, self._target = weights, target
        self._rate = 1.0
        self._weight_done = 0.0

    def rate(self, day: int, rows: int) -> float:
        """Multiplier of sessions for *day* when *rows* events exist; 1.0 without a target."""
        if self._target is None:
            return 1.0
        left = float(self._weights[day:].sum())
        if day == 0:
            # First guess: sessions a day times events a session; both measured at the default size.
            self._rate = self._target / max(left * _EVENTS_PER_WEIGHT, 1e-9)
        elif day >= 3 and rows:
            per_weight = rows / self._weight_done
            self._rate = max(0.0, (self._target - rows) / max(left * per_weight, 1e-9))
        self._weight_done += self._rate * float(self._weights[day])
        return self._rate


_EVENTS_PER_WEIGHT = 0.26
"""Events per unit of `Behaviour.day_weights`; measured at the default size, and only a first guess."""


def _iso(us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).strftime("%Y-%m-%dT%H:%M:%SZ")
