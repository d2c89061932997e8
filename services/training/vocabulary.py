"""
Keeps DIR/vocabulary.parquet: every item of the catalogue and of the events has a key, and keeps it for ever.

The rule: only appending. A key that meant another item yesterday would turn every stored history into lies.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from protos import vocabulary
from services.training.dataset import EVENTS_FILE, ITEMS_FILE, DatasetUnusable


def maintain(data: Path) -> list[str]:
    """
    Append the items of *data* that have no key yet: the catalogue's in its order, then those only events know, sorted.

    Returns:
        All item ids in key order.

    Raises:
        DatasetUnusable: the catalogue or the events are missing, or the catalogue is empty.
    """
    for name in (EVENTS_FILE, ITEMS_FILE):
        if not (data / name).is_file():
            raise DatasetUnusable(
                f"no {name} in {data}; `tutti data synth --out {data}` or `tutti data import` makes one"
            )
    with vocabulary.sole_writer(data):
        return _maintained(data)


def _maintained(data: Path) -> list[str]:
    path = data / vocabulary.FILE_NAME
    ids = vocabulary.read(path) if path.is_file() else []
    known = set(ids)
    catalogue = pq.read_table(data / ITEMS_FILE, columns=["item_id"]).column("item_id").to_pylist()
    evented = pc.unique(pq.read_table(data / EVENTS_FILE, columns=["item_id"]).column("item_id")).to_pylist()
    new = [i for i in dict.fromkeys(catalogue) if i not in known]
    known.update(new)
    new += sorted(i for i in evented if i not in known)
    if not ids and not new:
        raise DatasetUnusable(f"{data / ITEMS_FILE} lists no item; at least one is needed to train")
    if new:
        vocabulary.write(path, [*ids, *new])
    return [*ids, *new]
