"""
Who is asked for in a batch: one row of a users file each, with the page they are on where the file says so.

The rule: a file of bare user ids means one slate on the home page for each of them; once a file names a page, every row
is a query of its own, and answers carry its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from orchestrator.core.model import Placement, Query
from orchestrator.ports import Catalogue

PAGE_COLUMNS = ("placement", "context_item_ids", "cart_item_ids", "category")
"""Any of these makes every row a query; names as in POST /v1/recommendations."""

SEPARATOR = "|"
"""Between item ids where a column is text, as it must be in CSV; ids of every importer are free of it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of the file; ids as the caller wrote them. Without *user_id* nobody is known to ask."""

    number: int
    user_id: str | None
    placement: Placement = Placement.HOME
    context_item_ids: tuple[str, ...] = ()
    cart_item_ids: tuple[str, ...] = ()
    category: str | None = None

    def query(self, catalogue: Catalogue, count: int, seen: tuple[int, ...] | None) -> Query:
        """The pipeline's query; items the shop does not have are ignored. With *seen*, those are left out."""
        return Query(
            f"batch-{self.number}",
            self.placement,
            count,
            user_id=self.user_id,
            context_keys=_keys(self.context_item_ids, catalogue),
            cart_keys=_keys(self.cart_item_ids, catalogue),
            category=self.category,
            exclude_keys=seen or (),
            exclude_seen=seen is not None,
        )


@dataclass(frozen=True, slots=True)
class AskedFile:
    """The rows of a users file; `has_pages` when it names placements or contexts."""

    rows: list[Asked] = field(default_factory=list)
    has_pages: bool = False

    def user_ids(self) -> list[str]:
        """Everybody named, once each, in order of first appearance."""
        return list(dict.fromkeys(row.user_id for row in self.rows if row.user_id is not None))


def read_asked(path: Path) -> AskedFile:
    """
    Read a Parquet or CSV file with a column user_id and, for other pages than home, those of `PAGE_COLUMNS`.

    Raises:
        ValueError: no column user_id, nobody at all, an unknown placement, a category page without its category.
        OSError: the file cannot be read.
    """
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: neither Parquet nor CSV: {error}") from error
    if "user_id" not in table.column_names:
        raise ValueError(f"{path}: no column user_id; found {', '.join(table.column_names)}")
    users = [None if value in (None, "") else str(value) for value in table.column("user_id").to_pylist()]
    if not any(name in table.column_names for name in PAGE_COLUMNS):
        known = list(dict.fromkeys(user for user in users if user is not None))
        if not known:
            raise ValueError(f"{path}: no users in column user_id")
        return AskedFile([Asked(number, user) for number, user in enumerate(known)])
    if not users:
        raise ValueError(f"{path}: no row, so nobody is asked for")
    columns = [table.column(n).to_pylist() if n in table.column_names else [None] * len(users) for n in PAGE_COLUMNS]
    rows = [_asked(path, number, *row) for number, row in enumerate(zip(users, *columns, strict=True))]
    return AskedFile(rows, has_pages=True)


def _asked(path: Path, number: int, user: str | None, placement: object, *page: object) -> Asked:
    named = str(placement or Placement.HOME.value)
    if named not in {one.value for one in Placement}:
        allowed = ", ".join(one.value for one in Placement)
        raise ValueError(f"{path}: placement {named!r} in row {number}; expected one of {allowed}")
    context, cart, category = page
    chosen = None if category in (None, "") else str(category)
    if Placement(named) is Placement.CATEGORY and chosen is None:
        raise ValueError(f"{path}: row {number} is on the page of a category without naming it in column category")
    return Asked(number, user, Placement(named), _ids(context), _ids(cart), chosen)


def _ids(value: object) -> tuple[str, ...]:
    """Item ids of a cell: a list, or text with ids between separators."""
    if value is None:
        return ()
    parts: Sequence[object] = value if isinstance(value, list) else str(value).split(SEPARATOR)
    return tuple(str(part) for part in parts if part not in (None, ""))


def _keys(item_ids: Sequence[str], catalogue: Catalogue) -> tuple[int, ...]:
    found = (catalogue.key_of(item_id) for item_id in item_ids)
    return tuple(dict.fromkeys(key for key in found if key is not None))
