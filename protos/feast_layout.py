"""
Where Feast keeps a feature in Redis, and the read plan: which features one model version reads, in which order.

A read plan is compiled once by training from the Feast registry and travels inside the re-ranking artefact, so that
a model always reads the columns it was trained on and no server needs to import Feast (3.4 s and 174 MB, see
docs/features.md). This module knows the layout and imports neither Feast nor a Redis client; the parity test
against Feast's SDK keeps it true.

Layout (Feast 0.67, entity_key_serialization_version 3): one hash an entity, shared by all its views;
    key     u32 number of join keys, per join key (u32 2, u32 length, name), per value (u32 type, u32 length, value),
            then the project name; little-endian; a string has type 2, an int64 type 4 and 8 bytes
    fields  murmur3_32("<view>:<feature>"), 4 bytes little-endian → Value proto; "_ts:<view>" → Timestamp proto
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mmh3
import numpy as np
from numpy.typing import NDArray

from protos import feast_values
from protos.feast_values import Cell

_FORMAT = 1
_STRING, _INT64 = 2, 4
_KEY_TYPES = ("STRING", "INT64")


class PlanError(ValueError):
    """A read plan that cannot be read or would read the wrong thing."""


@dataclass(frozen=True, slots=True)
class FeatureColumns:
    """
    n entities' features, by column of the plan.

    numeric      (n, n_numeric) float32, NaN where missing or expired
    categorical  (n, n_categorical) object array of str, "" where missing or expired
    found        (n,) bool, True where at least one view has a row that has not expired
    others       column → n Python values, None where missing: lists (as tuples), bytes, JSON; no model input
    """

    numeric: NDArray[np.float32]
    categorical: NDArray[np.object_]
    found: NDArray[np.bool_]
    others: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class EntityFeatures:
    """
    One entity's features: a row of `FeatureColumns`.

    numeric      (n_numeric,) float32
    categorical  n_categorical words
    found        at least one view has a row that has not expired
    """

    numeric: NDArray[np.float32]
    categorical: tuple[str, ...]
    found: bool


@dataclass(frozen=True)
class ViewPlan:
    """
    What is read of one feature view.

    Attributes:
        ttl_s: age at which a row expires, seconds; 0 means never. Feast does not apply it online, so we do.
        features: (name, Feast value type) in the service's order.
    """

    name: str
    ttl_s: float
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class EntityPlan:
    """All that one model version reads of one entity: one HMGET of `fields` at `redis_key(id)`."""

    project: str
    join_key: str
    key_type: str
    views: tuple[ViewPlan, ...]

    def __post_init__(self) -> None:
        if self.key_type not in _KEY_TYPES:
            raise PlanError(f"entity {self.join_key} has value type {self.key_type}; expected one of {_KEY_TYPES}")
        check_collisions(f"{view.name}:{name}" for view in self.views for name, _ in view.features)

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """Columns `view__feature` of `FeatureColumns.numeric`, in order."""
        return tuple(column for column, dtype in self._columns if dtype in feast_values.NUMERIC)

    @cached_property
    def categorical(self) -> tuple[str, ...]:
        """Columns `view__feature` of `FeatureColumns.categorical`, in order."""
        return tuple(column for column, dtype in self._columns if dtype in feast_values.CATEGORICAL)

    @cached_property
    def fields(self) -> tuple[bytes, ...]:
        """Arguments of HMGET after the key; empty when the service has no view of this entity (then do not read)."""
        out: list[bytes] = []
        for view in self.views:
            out += [struct.pack("<I", field_hash(f"{view.name}:{name}")) for name, _ in view.features]
            out.append(b"_ts:" + view.name.encode())
        return tuple(out)

    def redis_key(self, entity_id: str) -> bytes:
        """
        Key of the hash that holds *entity_id*.

        Raises:
            ValueError: the join key is int64 and *entity_id* is not a decimal number that fits: nobody has that id.
        """
        if self.key_type == "INT64":
            try:
                value, kind = struct.pack("<q", int(entity_id)), _INT64
            except (ValueError, struct.error) as error:
                raise ValueError(f"{self.join_key} is an int64; {entity_id!r} is not one") from error
        else:
            value, kind = entity_id.encode(), _STRING
        return b"".join((self._key_head, struct.pack("<II", kind, len(value)), value, self.project.encode()))

    def decode(self, rows: Sequence[Sequence[Cell]], now_s: float) -> FeatureColumns:
        """
        Replies of HMGET, one row an entity with one cell a field → columns.

        Args:
            now_s: seconds since the epoch; rows older than their view's ttl count as missing.

        Raises:
            ValueError: a row with another number of cells than `fields`.
        """
        n = len(rows)
        if any(len(row) != len(self.fields) for row in rows):
            raise ValueError(f"a row of {min(map(len, rows))} cells; the plan reads {len(self.fields)} fields")
        cells: Sequence[Sequence[Cell]] = list(zip(*rows, strict=True)) if n else [()] * len(self.fields)
        found = np.zeros(n, bool)
        numeric: list[Any] = []
        categorical: list[Sequence[str]] = []
        others: dict[str, Sequence[Any]] = {}
        at = 0
        for view in self.views:
            end = at + len(view.features)
            seconds = feast_values.event_seconds(cells[end])
            is_fresh = now_s - seconds <= view.ttl_s if view.ttl_s > 0 else ~np.isnan(seconds)
            found |= is_fresh
            all_fresh = bool(is_fresh.all())
            for (name, dtype), column in zip(view.features, cells[at:end], strict=True):
                fresh = column if all_fresh else _only(column, is_fresh)
                if dtype in feast_values.NUMERIC:
                    numeric.append(feast_values.numbers(fresh, dtype))
                elif dtype in feast_values.CATEGORICAL:
                    categorical.append(feast_values.strings(fresh))
                else:
                    others[f"{view.name}__{name}"] = feast_values.objects(fresh)
            at = end + 1
        with np.errstate(over="ignore"):  # a double beyond float32 is infinite, without a warning a request
            numeric_block = np.array(numeric, np.float32).reshape(len(numeric), n)
        categorical_block = np.array(categorical, object).reshape(len(categorical), n)
        return FeatureColumns(np.ascontiguousarray(numeric_block.T), categorical_block.T.copy(), found, others)

    def decode_one(self, cells: Sequence[Cell], now_s: float) -> EntityFeatures:
        """
        One reply of HMGET → its features, the same as `decode` of this row alone (a test holds them equal).

        Columns pay for many rows; for one they are a hundred small arrays. What is no model input is not decoded.

        Raises:
            ValueError: another number of cells than `fields`.
        """
        if len(cells) != len(self.fields):
            raise ValueError(f"a row of {len(cells)} cells; the plan reads {len(self.fields)} fields")
        numbers: list[float] = []
        words: list[str] = []
        found = False
        for at, ttl_s, numeric, categorical in self._places:
            cell = cells[at]
            seconds = math.nan if cell is None else feast_values.moment(cell)
            if now_s - seconds <= ttl_s if ttl_s > 0 else not math.isnan(seconds):
                found = True
                numbers += [feast_values.number(cells[i], tag) for i, tag in numeric]
                words += [feast_values.string(cells[i]) for i in categorical]
            else:
                numbers += [math.nan] * len(numeric)
                words += [""] * len(categorical)
        if not self._has_doubles:
            return EntityFeatures(np.array(numbers, np.float32), tuple(words), found)
        with np.errstate(over="ignore"):  # as in `decode`
            return EntityFeatures(np.array(numbers, np.float32), tuple(words), found)

    @cached_property
    def _places(self) -> tuple[tuple[int, float, tuple[tuple[int, int], ...], tuple[int, ...]], ...]:
        """Of each view: the cell of its moment, its ttl, (cell, tag) of its numbers, the cells of its words."""
        out, at = [], 0
        for view in self.views:
            types = [dtype for _, dtype in view.features]
            numbers = [(at + i, feast_values.NUMERIC[t]) for i, t in enumerate(types) if t in feast_values.NUMERIC]
            words = [at + i for i, t in enumerate(types) if t in feast_values.CATEGORICAL]
            out.append((at + len(types), view.ttl_s, tuple(numbers), tuple(words)))
            at += len(types) + 1
        return tuple(out)

    @cached_property
    def _has_doubles(self) -> bool:
        return any(dtype == "DOUBLE" for _, dtype in self._columns)

    @cached_property
    def _columns(self) -> tuple[tuple[str, str], ...]:
        return tuple((f"{view.name}__{name}", dtype) for view in self.views for name, dtype in view.features)

    @cached_property
    def _key_head(self) -> bytes:
        name = self.join_key.encode()
        return struct.pack("<III", 1, _STRING, len(name)) + name


@dataclass(frozen=True)
class ReadPlan:
    """What one model version reads of users and of items. Equal digests mean equal columns in equal order."""

    service: str
    user: EntityPlan
    item: EntityPlan

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the whole content, order included."""
        return hashlib.sha256(json.dumps(self._content(), separators=(",", ":")).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write as JSON, with the digest, replacing *path* whole."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"digest": self.digest, **self._content()}, indent=1) + "\n")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> ReadPlan:
        """
        Read what `save` wrote.

        Raises:
            FileNotFoundError: nothing at *path*.
            PlanError: not a read plan, of another format, or changed after it was written.
        """
        try:
            content = json.loads(path.read_text())
            if content["format"] != _FORMAT:
                raise PlanError(f"{path} is a read plan of format {content['format']}; expected {_FORMAT}: train again")
            plan = cls(content["service"], *(_entity(content[name]) for name in ("user", "item")))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise PlanError(f"{path} is not a read plan ({error!r}): train again") from error
        if plan.digest != content.get("digest"):
            raise PlanError(f"{path} has digest {plan.digest[:12]}…, its own says {str(content.get('digest'))[:12]}…")
        return plan

    def _content(self) -> dict[str, Any]:
        entities = {"user": self.user, "item": self.item}
        return {"format": _FORMAT, "service": self.service} | {k: _jsonable(v) for k, v in entities.items()}

    def __repr__(self) -> str:
        n_user, n_item = (sum(len(v.features) for v in e.views) for e in (self.user, self.item))
        return f"<ReadPlan {self.service} {self.digest[:12]}, {n_user} user and {n_item} item features>"


def _only(column: Sequence[Cell], kept: NDArray[np.bool_]) -> Sequence[Cell]:
    """The cells of rows that have not expired; the others become missing."""
    return [cell if keep else None for cell, keep in zip(column, kept, strict=True)]


def field_hash(name: str) -> int:
    """Feast's 32-bit name of the field `<view>:<feature>`."""
    return mmh3.hash(name, signed=False)


def check_collisions(names: Iterable[str]) -> None:
    """
    Refuse two features of one entity that Feast would silently store in one field.

    Args:
        names: `<view>:<feature>` of views that share an entity.

    Raises:
        PlanError: two names have the same 32-bit hash.
    """
    seen: dict[int, str] = {}
    for name in names:
        other = seen.setdefault(field_hash(name), name)
        if other != name:
            raise PlanError(f"features {other!r} and {name!r} share one field of Feast's Redis hash; rename one")


def _jsonable(entity: EntityPlan) -> dict[str, Any]:
    views = [{"name": v.name, "ttl_s": float(v.ttl_s), "features": [list(f) for f in v.features]} for v in entity.views]
    return {"project": entity.project, "join_key": entity.join_key, "key_type": entity.key_type, "views": views}


def _entity(content: Mapping[str, Any]) -> EntityPlan:
    views = tuple(
        ViewPlan(v["name"], float(v["ttl_s"]), tuple((name, dtype) for name, dtype in v["features"]))
        for v in content["views"]
    )
    return EntityPlan(content["project"], content["join_key"], content["key_type"], views)
