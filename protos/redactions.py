"""
People who were erased, as a file of a data directory: what ingestion writes and the offline way takes out.

Parquet with a row an erasure: `digest`, keyed, of the id and its kind, and `erased_at`. The key is made with the file
and stands in its metadata: the file does not say at a glance who left, and hides nobody from whoever tries every id.
Ids themselves would make the list of the forgotten the one place that remembers them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE_NAME = "redactions.parquet"
_KEY = b"tutti.key"
_SCHEMA = pa.schema([("digest", pa.string()), ("erased_at", pa.timestamp("us", tz="UTC"))])


@dataclass(frozen=True, slots=True)
class Redactions:
    """
    Who was erased, by digest, and when last: microseconds since the epoch, UTC.

    repr shows no digest.
    """

    key: bytes
    erased_at_us: Mapping[str, int]

    def of_users(self, user_ids: Iterable[str]) -> dict[str, int]:
        """Of *user_ids* those that were erased, with the moment: what a user did up to it is to go."""
        return self._found("u", user_ids)

    def of_visitors(self, visitor_ids: Iterable[str]) -> dict[str, int]:
        """The same of visitors."""
        return self._found("v", visitor_ids)

    def _found(self, kind: str, ids: Iterable[str]) -> dict[str, int]:
        moments = ((one, self.erased_at_us.get(self._digest(kind, one))) for one in ids)
        return {one: at_us for one, at_us in moments if at_us is not None}

    def _digest(self, kind: str, identifier: str) -> str:
        return hashlib.blake2b(f"{kind}:{identifier}".encode(), key=self.key, digest_size=16).hexdigest()

    def __repr__(self) -> str:
        return f"<Redactions of {len(self.erased_at_us)} people>"


def read(data: Path) -> Redactions:
    """The people erased from *data*; nobody when there is no file."""
    path = data / FILE_NAME
    if not path.is_file():
        return Redactions(secrets.token_bytes(16), {})
    table = pq.read_table(path)
    moments = table.column("erased_at").cast("int64").to_pylist()
    digests = table.column("digest").to_pylist()
    return Redactions(bytes.fromhex(table.schema.metadata[_KEY].decode()), dict(zip(digests, moments, strict=True)))


def add(data: Path, user_ids: Sequence[str], visitor_ids: Sequence[str], erased_at_us: int) -> None:
    """
    Add people to the file of *data*, on disk when this returns; of somebody erased before, the later moment holds.

    One writer at a time; readers see the old file or the new one.
    """
    known = read(data)
    people = dict(known.erased_at_us)
    for kind, ids in (("u", user_ids), ("v", visitor_ids)):
        for identifier in ids:
            digest = known._digest(kind, identifier)
            people[digest] = max(erased_at_us, people.get(digest, erased_at_us))
    rows = sorted(people.items())
    columns = {"digest": [digest for digest, _ in rows], "erased_at": [at_us for _, at_us in rows]}
    table = pa.table(columns, schema=_SCHEMA.with_metadata({_KEY: known.key.hex()}))
    path = data / FILE_NAME
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
