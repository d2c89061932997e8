"""
A long answer in parts, so that a run that was stopped goes on where it was.

    OUT.parts/manifest.json        of what the answer is made, and which parts are whole
    OUT.parts/part-00007.parquet   the answers to questions 7·n … 8·n - 1

The rule: a part counts when the manifest says so, which it does after the part lies there whole; and OUT appears at
the end, at once. Parts made of other inputs are never joined: whoever changes one is told which it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "manifest.json"
SUFFIX = ".parts"
_SIZE = "questions a part"


class InputsChanged(ValueError):
    """There are parts, and they are of something else."""


@dataclass
class Parts:
    """
    The parts of one answer.

    inputs  name → digest or value of everything the answer is made of
    size    questions a part; it decides where parts are cut, so it is an input too
    total   questions in all
    done    number of the part → (level → slates in it)
    """

    out: Path
    inputs: Mapping[str, Any]
    size: int
    total: int
    done: dict[int, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, out: Path, inputs: Mapping[str, Any], size: int, total: int, restart: bool = False) -> Parts:
        """
        What there is of *out* already, or nothing.

        Args:
            restart: throw away what there is.

        Raises:
            InputsChanged: there are parts of other inputs, or parts whose manifest cannot be read.
        """
        parts = cls(out, json.loads(json.dumps({**inputs, _SIZE: size})), size, total)
        if restart:
            parts.forget()
        parts._remember()
        return parts

    def __len__(self) -> int:
        return (self.total + self.size - 1) // self.size

    def __repr__(self) -> str:
        return f"<Parts of {self.out}: {len(self.done)} of {len(self)}>"

    @property
    def folder(self) -> Path:
        """Where the parts lie."""
        return self.out.with_name(self.out.name + SUFFIX)

    @property
    def counts(self) -> Counter[str]:
        """Level → slates in the parts that are done."""
        total: Counter[str] = Counter()
        for levels in self.done.values():
            total.update(levels)
        return total

    def missing(self) -> list[int]:
        """Parts that are not done yet, in order."""
        return [number for number in range(len(self)) if number not in self.done]

    def questions(self, number: int) -> slice:
        """Which questions part *number* answers."""
        return slice(number * self.size, min((number + 1) * self.size, self.total))

    def keep(self, number: int, table: pa.Table, levels: Mapping[str, int]) -> None:
        """Part *number* is whole: write it, then say so."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, partial = self._path(number), self._path(number).with_suffix(".partial")
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
        self.done[number] = dict(levels)
        self._write()

    def join(self, schema: pa.Schema) -> None:
        """Make *out* of all the parts, which must be done, and take them away."""
        if left := self.missing():
            raise RuntimeError(f"part {left[0]} of {self.out} is not done")
        partial = self.out.with_suffix(self.out.suffix + ".partial")
        try:
            with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
                for number in range(len(self)):
                    writer.write_table(pq.read_table(self._path(number), schema=schema))
            partial.replace(self.out)
        finally:
            partial.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Take all parts away."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.done.clear()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def _write(self) -> None:
        said = {"inputs": self.inputs, "total": self.total, "done": {str(n): c for n, c in self.done.items()}}
        partial = self.folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.folder / MANIFEST)

    def _remember(self) -> None:
        if not (self.folder / MANIFEST).exists():
            return
        try:
            said = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            before = dict(said["inputs"])
            done = {int(number): dict(levels) for number, levels in said["done"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            raise InputsChanged(f"{self.folder / MANIFEST} cannot be read; {_WAYS_OUT}") from broken
        if changed := sorted(name for name in {*before, *self.inputs} if before.get(name) != self.inputs.get(name)):
            # It follows from the options: said where it is all there is to say.
            changed = [name for name in changed if name != _SIZE] or changed
            raise InputsChanged(
                f"{self.folder} holds {len(done)} parts of a run that was stopped, and since then "
                f"{' and '.join(changed)} changed; {_WAYS_OUT}"
            )
        self.done = {number: levels for number, levels in done.items() if self._path(number).is_file()}


_WAYS_OUT = "give --restart to begin anew, or another --out"


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file's content; "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
