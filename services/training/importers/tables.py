"""
Parquet files as chunks: a batch of rows at a time, with the columns asked for and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from services.training.importers.base import Progress
from services.training.importers.chunks import Chunk
from services.training.importers.errors import DatasetError

# Derived: a batch of eight text columns stays around 10 MB, like a block of text.
BATCH_ROWS = 65_536


def read_parquet(
    file: Path,
    progress: Progress,
    *,
    required: Sequence[str],
    optional: Sequence[str] | None = (),
    hint: str = "",
) -> Iterator[Chunk]:
    """
    Stream the rows of *file*; "line" in errors is the row, from 1.

    Args:
        file: Parquet.
        progress: advanced by rows; the caller has started its stage with `rows_of`.
        required, optional: as for `read_delimited`.
        hint: added to every error.

    Raises:
        DatasetError: no Parquet, a column that is missing, unknown or of a type that holds no text, number or moment.
    """
    expected = f"columns {', '.join(required)}"
    try:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            for name in required:
                if name not in schema.names:
                    raise DatasetError(
                        file, column=name, found=f"only columns {', '.join(schema.names)}", expected=expected, hint=hint
                    )
            allowed = [*required, *(optional or ())]
            for name in schema.names:
                if optional is not None and name not in allowed:
                    raise DatasetError(
                        file, column=name, found="an unknown column", expected=f"only {', '.join(allowed)}", hint=hint
                    )
            columns = [name for name in schema.names if name in allowed]
            first = 0
            for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
                table = pa.Table.from_batches([batch]).select(columns)
                yield Chunk(file, _plain(table), _Rows(first), hint)
                first += batch.num_rows
                progress.advance(batch.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(
            file, found=f"no readable Parquet ({error})", expected="a Parquet file", hint=hint
        ) from error


def rows_of(file: Path) -> int | None:
    """The number of rows of a Parquet file; None when it is not one (reading it will say so)."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowInvalid, OSError):
        return None


class _Rows:
    """Row of a batch → row of the file, from 1."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __call__(self, row: int) -> int:
        return self._first + row + 1


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary-encoded columns (pandas categories) as the values they stand for."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table
