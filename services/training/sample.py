"""
DIR/shoppers.json: a dozen shoppers to try, from the busiest to one with a single event, for demos and smoke tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protos import artefacts
from services.chassis.signals import POSITIVE_TYPES
from services.training.dataset import Dataset

FILE = "shoppers.json"
_SHOPPERS = 12
_TITLES = 5
_TITLE_LENGTH = 80


def write(path: Path, dataset: Dataset) -> None:
    """
    Write [{"user_id", "label", "events", "last_items": [titles, newest first, at most 5]}].

    Chosen at equal steps along the order of activity, so every kind of history is there; the same data gives the
    same shoppers.
    """
    wanted = np.isin(dataset.types, POSITIVE_TYPES)
    events = np.bincount(dataset.users[wanted], minlength=len(dataset.user_ids))
    active = np.flatnonzero(events)
    ordered = active[np.lexsort((active, -events[active]))]
    steps = np.unique(np.linspace(0, len(ordered) - 1, min(_SHOPPERS, len(ordered))).round().astype(int))
    artefacts.write_json(path, [_shopper(dataset, wanted, int(ordered[i]), int(events[ordered[i]])) for i in steps])


def _shopper(dataset: Dataset, wanted: NDArray[np.bool_], user: int, events: int) -> dict[str, object]:
    keys = dataset.keys[(dataset.users == user) & wanted][::-1]
    last = list(dict.fromkeys(keys.tolist()))[:_TITLES]
    titles = [str(dataset.items.titles[k])[:_TITLE_LENGTH] or dataset.item_ids[k] for k in last]
    kind = "one event" if events == 1 else f"{events} events"
    name = dataset.user_ids[user]
    return {"user_id": name, "label": f"{name} · {kind}", "events": events, "last_items": titles}
