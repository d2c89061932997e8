"""
The item vocabulary: item id ↔ interned key, shared by every process and every artefact.

A Parquet file with one column `item_id`; the row number is the key. It only ever grows: a key, once given,
is never given to another item, so histories, artefacts and cached slates of different ages agree.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE_NAME = "vocabulary.parquet"
LOCK_NAME = ".vocabulary.lock"


def read(path: Path) -> list[str]:
    """
    Item ids in key order.

    Raises:
        FileNotFoundError: there is no vocabulary at *path* yet.
    """
    ids: list[str] = pq.read_table(path, columns=["item_id"]).column("item_id").to_pylist()
    return ids


def write(path: Path, ids: Sequence[str]) -> None:
    """Replace the file at *path* whole, so that a reader sees the old vocabulary or the new one."""
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table({"item_id": pa.array(ids, pa.string())}), partial, compression="zstd")
    partial.replace(path)


@contextmanager
def sole_writer(data: Path) -> Iterator[None]:
    """
    Nobody else gives keys meanwhile: training and ingestion both do, each after reading the file anew. Blocks.

    The lock is the kernel's, on a file that stays: a writer that is killed frees it.
    """
    descriptor = os.open(data / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def digest(ids: Sequence[str]) -> str:
    """SHA-256 (hex) over the ids joined by newlines: equal digests mean equal keys for equal ids."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
