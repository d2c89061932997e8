"""
One object a line, as JSON or (Amazon Reviews 2014) as a Python literal: dictionaries with their line numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from services.training.importers.base import Progress
from services.training.importers.errors import DatasetError, quote
from services.training.importers.literals import parse_literal
from services.training.importers.text import blocks


def read_objects(file: Path, progress: Progress, hint: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """
    (line number, object) of every line of *file* that is not empty.

    Raises:
        DatasetError: a line that is neither JSON nor a literal, no object, or no UTF-8.
    """
    for block in blocks(file, progress):
        for number, line in block.lines():
            yield number, _object(file, number, line, hint)


def _object(file: Path, number: int, line: bytes, hint: str) -> Mapping[str, object]:
    # A key in single quotes is what tells Python's print from JSON.
    is_literal = line[:2] == b"{'"
    try:
        found: object = parse_literal(line.decode()) if is_literal else orjson.loads(line)
    except UnicodeDecodeError as error:
        what = f"byte 0x{line[error.start]:02x} at position {error.start + 1}, which is no UTF-8"
        raise DatasetError(file, line=number, found=what, expected="UTF-8 text", hint=hint) from error
    except orjson.JSONDecodeError as error:
        raise DatasetError(
            file,
            line=number,
            found=f"{quote(line[:60].decode(errors='replace'))} ({error.msg} at position {error.pos + 1})",
            expected="one JSON object",
            hint=hint,
        ) from error
    except ValueError as error:
        raise DatasetError(
            file, line=number, found=str(error), expected="a JSON object or a plain literal", hint=hint
        ) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise DatasetError(file, line=number, found=f"a {type(found).__name__}", expected="an object", hint=hint)
    return found
