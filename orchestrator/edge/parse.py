"""
Bytes and query strings → checked models; every complaint names its field.

JSON is read by orjson, which takes exactly RFC 8259: no NaN, no invalid UTF-8, no lone surrogate. A key given
twice counts with its last value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from orchestrator.edge import schemas
from orchestrator.edge.problems import BadFields, FieldError, Kind, Problem

M = TypeVar("M", bound=BaseModel)

_KEY_BEFORE = re.compile(r'"([^"\\]{1,100})"\s*:\s*[^:{}]*\Z')
_INTEGER = re.compile(r"-?[0-9]{1,9}\Z")
_SHOWN = 60
"""Characters of a wrong value that are shown back; enough to recognise it, too few to carry anything away."""

_KNOWN_FIELDS = sorted(
    {
        name
        for model in vars(schemas).values()
        if isinstance(model, type) and issubclass(model, schemas.Strict)
        for name in model.model_fields
    }
)


async def read_json(request: Request) -> Any:
    """`read_document` of what Starlette hands to a handler."""
    return await read_document(request.scope, request.receive)


async def read_document(scope: Scope, receive: Receive) -> Any:
    """
    The body, as JSON.

    Raises:
        Problem: another media type (415), not JSON (400, with the field where it breaks).
        ClientDisconnect: the caller left before all of it was there.
    """
    _check_media_type(scope["headers"])
    body = await _whole(receive)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(body, error) from error


async def _whole(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return b"".join([*parts, part]) if parts else part
        parts.append(part)


def _check_media_type(headers: Iterable[tuple[bytes, bytes]]) -> None:
    given, encoding = None, None
    for name, value in headers:
        if name == b"content-type" and given is None:
            given = value
        elif name == b"content-encoding" and encoding is None:
            encoding = value
    if given != b"application/json":
        media_type = (given or b"").decode("latin-1")
        if media_type.partition(";")[0].strip().lower() != "application/json":
            found = f"found {media_type[:80]!r}" if media_type else "found none"
            raise Problem(Kind.UNSUPPORTED_MEDIA_TYPE, f"content-type must be application/json; {found}")
    if encoding is not None and encoding.lower() != b"identity":
        raise Problem(Kind.UNSUPPORTED_MEDIA_TYPE, "a compressed body is not taken; send it as it is")


def _not_json(body: bytes, error: orjson.JSONDecodeError) -> Problem:
    """Name the last key before the place where reading stopped: that is the field to look at."""
    try:
        text, at, why = body.decode(), error.pos, error.msg
        where = f"line {error.lineno} column {error.colno}"
    except UnicodeDecodeError as bad:
        text, at, why = body[: bad.start].decode(), bad.start, "not valid UTF-8"
        where = f"byte {bad.start}"
    key = _KEY_BEFORE.search(text[:at])
    message = f"{why} at {where}"
    return Problem(
        Kind.INVALID_JSON, f"the body is not JSON: {message}", [FieldError(key.group(1) if key else "body", message)]
    )


def check(model: type[M], document: object) -> M:
    """
    *document* as *model*.

    Raises:
        BadFields: names every field at fault.
    """
    try:
        # What `model_validate` calls when it has looked at options that nobody gives here.
        return model.__pydantic_validator__.validate_python(document)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise BadFields(field_errors(error)) from error


def field_errors(error: ValidationError) -> list[FieldError]:
    """pydantic's findings in our words."""
    found = error.errors(include_url=False)
    return [FieldError(_path(one["loc"]), _message(one)) for one in found]


def _path(location: tuple[int | str, ...]) -> str:
    """("context", "item_ids", 3) → context.item_ids[3]"""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part[:_SHOWN]}" if path else part[:_SHOWN]
    return path or "body"


def _unknown(name: str) -> str:
    if name in schemas.Context.model_fields:
        return f"unknown field here; did you mean context.{name}?"
    near = difflib.get_close_matches(name, _KNOWN_FIELDS, 1)
    # A name that is known elsewhere is no typo.
    return f"unknown field; did you mean {near[0]}?" if near and near[0] != name else "unknown field"


def _message(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown(str(error["loc"][-1])[:_SHOWN])
        case "model_type" | "model_attributes_type" | "dict_type":
            text = "should be an object"
        case "list_type":
            text = "should be a list"
        case "string_pattern_mismatch":
            text = "must not contain control characters"
        case "finite_number":
            text = "should be a finite number"
        case "literal_error":
            text = f"should be {context.get('expected', 'another value')}"
        case "too_long" | "too_short":
            return f"should have at {_bound(context)}; has {context.get('actual_length', 'another number')}"
        case "string_too_long":
            return f"should have at most {context.get('max_length')} characters; has {len(str(error['input']))}"
        case _:
            text = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{text}; found {_shown(error['input'])}"


def _bound(context: Mapping[str, Any]) -> str:
    return f"most {context['max_length']} entries" if "max_length" in context else f"least {context['min_length']}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def check_parameters(request: Request, model: type[M], integers: frozenset[str]) -> M:
    """
    The query string as *model*; parameters in *integers* are read as whole numbers.

    Raises:
        BadFields: unknown, repeated or unacceptable parameter.
    """
    pairs = request.query_params.multi_items()
    document: dict[str, object] = {}
    for name, value in pairs:
        if name in document:
            raise BadFields([FieldError(name[:_SHOWN], "is given more than once")])
        document[name] = int(value) if name in integers and _INTEGER.match(value) else value
    return check(model, document)
