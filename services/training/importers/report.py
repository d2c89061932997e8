"""
The account of an import: every row that was read is either kept or dropped under a named reason.

The same account is printed, returned and written to `dataset.json`. A sum that does not add up is a bug of
ours and raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ImportReport:
    """
    What an import read, kept and dropped.

    Attributes:
        source: the importer's name.
        events, items, users: rows of events.parquet, rows of items.parquet, distinct user ids.
        first_event_at, last_event_at: ISO 8601, UTC.
        rows_read, rows_kept, rows_dropped: rows of the source's events; read = kept + Σ dropped.
        items_read, items_dropped: rows of the source's catalogue (0 where it has none).
        items_from_events: items that no catalogue row described, made from their events.
        sha256: hex digest of each file written.
    """

    source: str
    events: int
    items: int
    users: int
    first_event_at: str
    last_event_at: str
    rows_read: int
    rows_kept: int
    rows_dropped: Mapping[str, int]
    items_read: int
    items_dropped: Mapping[str, int]
    items_from_events: int
    sha256: Mapping[str, str]

    def __post_init__(self) -> None:
        """Hold the two accounts: nothing vanishes between source and output."""
        dropped = sum(self.rows_dropped.values())
        if self.rows_read != self.rows_kept + dropped or self.rows_kept != self.events:
            raise AssertionError(
                f"rows do not add up: read {self.rows_read}, kept {self.rows_kept}, dropped {dropped}, "
                f"written {self.events}"
            )
        undescribed = self.items_read - sum(self.items_dropped.values()) + self.items_from_events
        if self.items != undescribed:
            raise AssertionError(
                f"items do not add up: read {self.items_read}, dropped {sum(self.items_dropped.values())}, "
                f"from events {self.items_from_events}, written {self.items}"
            )

    def write(self, path: Path) -> None:
        """Write `dataset.json` at *path*."""
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def lines(self) -> list[str]:
        """The account for people, one fact a line."""
        return [
            f"rows read     {self.rows_read:>12,}",
            *(f"  dropped     {count:>12,}  {reason}" for reason, count in self.rows_dropped.items()),
            f"rows kept     {self.rows_kept:>12,}",
            f"users         {self.users:>12,}",
            f"items         {self.items:>12,}",
            *(f"  dropped     {count:>12,}  catalogue: {reason}" for reason, count in self.items_dropped.items()),
            f"first event   {self.first_event_at}",
            f"last event    {self.last_event_at}",
        ]
