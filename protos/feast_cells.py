"""
Values → the bytes that Feast would have written into its Redis hashes: the other half of protos/feast_values.py.

The rule: what is written here is byte for byte what Feast's own materialisation writes of the same row; a test on a
real server compares whole hashes (tests/integration/test_live_features.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from protos.tutti.v1.feast_value_pb2 import FeastTimestamp, FeastValue

NULL = b""
"""Feast's null: a Value without a value."""

_ONE = {
    "FLOAT": "float_val",
    "DOUBLE": "double_val",
    "INT32": "int32_val",
    "INT64": "int64_val",
    "BOOL": "bool_val",
    "STRING": "string_val",
    "BYTES": "bytes_val",
    "UNIX_TIMESTAMP": "unix_timestamp_val",
}


def cell(value: Any, dtype: str) -> bytes:
    """
    One value of a Feast value type as it stands in the hash; `NULL` for None and for NaN.

    Raises:
        KeyError: a type that no expression can produce (services/training/feature_tables.py).
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NULL
    element, is_list = dtype.removesuffix("_LIST"), dtype.endswith("_LIST")
    out = FeastValue()
    if is_list:
        found = getattr(out, _ONE[element].replace("_val", "_list_val"))
        found.SetInParent()  # an empty list is a list, and not nothing
        found.val.extend(_plain(one) for one in value)
    else:
        setattr(out, _ONE[element], _plain(value))
    raw: bytes = out.SerializeToString()
    return raw


def column(values: Sequence[Any], dtype: str) -> list[bytes]:
    """One cell a value."""
    return [cell(value, dtype) for value in values]


def moment(at_us: int) -> bytes:
    """The cell `_ts:<view>` of a row of this moment, microseconds since the epoch."""
    seconds, rest_us = divmod(at_us, 1_000_000)
    raw: bytes = FeastTimestamp(seconds=seconds, nanos=rest_us * 1_000).SerializeToString()
    return raw


def _plain(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value
